"""`augury.Remote` and an oracle that runs here: the same answers, the same types, the same refusals."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
import torch

import augury
from augury.activations import Activations, capture, role, text
from augury.errors import AccessError, AuguryError, ContractError, InputError, NetworkError, NotFoundError
from augury.lm import generate, transcript_of
from augury.server.auth import read_tokens
from augury.server.client import Remote
from augury.server.limits import Limits
from augury.server.refused import BusyError
from augury.server.service import Service
from tests.unit.server.test_app import ANA, serving

TEXT = "The tide comes in twice a day."
TURNS = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Well, and you?"}]


@pytest.fixture(scope="module")
def service(oracle):
    return Service({"base": oracle.base}, {"o": oracle}, Limits(per_minute=1e6, burst=10_000))


@pytest.fixture(scope="module")
def remote(service):
    with serving(service) as url, Remote(url) as found:
        yield found


def sources(oracle) -> dict:
    layer = oracle.contract.layers[0]
    acts = capture(oracle.base, TEXT, layer, "last 4")
    return {
        "text": (TEXT, {}),
        "messages": (TURNS, {"positions": role("assistant")}),
        "token ids": (list(transcript_of(oracle.base, TEXT).token_ids), {"positions": "last 3"}),
        "transcript": (transcript_of(oracle.base, TURNS), {"positions": "role(user)"}),
        "activations": (acts, {}),
        "some of them": (acts, {"positions": [acts.positions[2], acts.positions[0]], "layers": list(layer)}),
        "a tensor": (torch.randn(2, oracle.lm.d_model, generator=torch.Generator().manual_seed(0)), {"layers": layer}),
        "one token": (TEXT, {"positions": text("twice")}),
    }


@pytest.mark.parametrize("source", ["text", "messages", "token ids", "transcript", "activations", "some of them",
                                    "a tensor", "one token"])  # fmt: skip
def test_answers_scores_and_scans_equal_those_from_here(remote, oracle, source):
    acts, where = sources(oracle)[source]
    asked = {"controls": True, "donors": 4, **where}
    here, there = (who.ask(acts, "What?", samples=3, max_new_tokens=5, seed=4, **asked) for who in (oracle, remote))
    assert type(there) is type(here) and (there.text, there.samples, there.groups) == (
        here.text,
        here.samples,
        here.groups,
    )
    assert (there.layers, there.positions, there.settings) == (here.layers, here.positions, here.settings)
    assert there.source.text == here.source.text and there.warnings == here.warnings
    assert {n: str(getattr(c, "text", c)) for n, c in there.controls.items()} == {
        n: str(getattr(c, "text", c)) for n, c in here.controls.items()
    }
    here, there = (who.score(acts, "Is it so?", choices=("Yes", "No"), **asked) for who in (oracle, remote))
    assert there.log_probs == pytest.approx(here.log_probs, abs=1e-4)
    assert (there.percentile, there.choices, there.spellings) == (here.percentile, here.choices, here.spellings)
    assert there.donor_margins == pytest.approx(here.donor_margins, abs=1e-4)
    here, there = (who.scan(acts, "Is it so?", window=2, donors=4, **where) for who in (oracle, remote))
    assert there.values == pytest.approx(here.values, abs=1e-4) and there.token_texts == here.token_texts


def test_many_at_once(remote, oracle):
    pairs = [(TEXT, "What?"), (TURNS, "Who?")]
    here, there = (who.ask_batch(pairs, max_new_tokens=5) for who in (oracle, remote))
    assert [one.text for one in there] == [one.text for one in here]
    here, there = (who.score_batch(pairs) for who in (oracle, remote))
    assert [one.margin for one in there] == pytest.approx([one.margin for one in here], abs=1e-4)
    assert there[0].percentile is None


def test_what_is_captured_there_stays_there(remote, oracle, service):
    kept = remote.capture(TURNS, layers="62%", positions="role(assistant)")
    acts = capture(oracle.base, TURNS, "62%", "role(assistant)")
    assert (kept.layers, kept.positions, len(kept)) == (acts.layers, acts.positions, len(acts))
    kept = remote.capture(TURNS, positions=slice(-3, None))
    acts = capture(oracle.base, TURNS, oracle.contract.layers[0], slice(-3, None))
    assert remote.ask(kept, "What?", max_new_tokens=5).text == oracle.ask(acts, "What?", max_new_tokens=5).text
    before = len(service.store)
    remote.forget(kept)
    assert len(service.store) == before - 1
    with pytest.raises(NotFoundError):
        remote.ask(kept, "What?")


def test_activations_are_sent_once_and_again_when_they_were_forgotten(remote, oracle, service):
    acts = capture(oracle.base, TEXT, oracle.contract.layers[0], "last 2")
    before = len(service.store)
    first = remote.score(acts, "So?")
    assert remote.score(acts, "So?") == first and len(service.store) == before + 1
    service.store._kept.clear()
    assert remote.score(acts, "So?").margin == first.margin


def test_tensors_and_old_activations_leave_nothing_there(remote, oracle, service, monkeypatch):
    service.store._kept.clear()
    remote._sent.clear()
    tensor = torch.randn(2, oracle.lm.d_model)
    for _ in range(3):
        remote.score(tensor, "So?", layers=oracle.contract.layers[0])
    assert len(service.store) == 0
    monkeypatch.setattr("augury.server.client.MOST_SENT", 2)
    layer = oracle.contract.layers[0]
    for number in range(5):
        remote.score(capture(oracle.base, f"{TEXT} {number}", layer, "last 2"), "So?")
    assert len(service.store) == len(remote._sent) == 2
    acts = capture(oracle.base, TEXT, layer, "last 2")
    remote.score(acts, "So?")
    service.store._kept.clear()
    assert remote.score(acts, "So?").margin is not None
    with pytest.raises(NotFoundError, match="no oracle"):
        Remote(remote.url, name="other").score(acts, "So?")


@pytest.mark.parametrize("source", [TEXT, TURNS[:1], "ids", "transcript"])
def test_the_target_writes_what_it_writes_here(remote, oracle, source):
    rendered = transcript_of(oracle.base, TURNS[:1])
    given = {"ids": list(rendered.token_ids), "transcript": rendered}.get(str(source), source)
    settings = {"max_new_tokens": 6, "temperature": 1.0, "top_p": 0.9, "seed": 3}
    here, there = generate(oracle.base, given, **settings), remote.generate(given, **settings, target="base")
    assert (there.token_ids, there.spans, there.messages) == (here.token_ids, here.spans, here.messages)
    assert len(there.spans) and there.spans[-1].role == "assistant"
    with pytest.raises(InputError, match="Nothing is generated"):
        remote.generate(TURNS[:1], end="closed")


def test_differences_lie_there(remote, oracle):
    kept = [remote.capture(TEXT, positions="last 3", target="base") for _ in range(2)]
    made = remote.diff(*kept)
    assert made.positions == kept[0].positions and made.handle not in {one.handle for one in kept}
    with pytest.raises(InputError, match="not above the noise"):
        remote.ask(made, "What?")
    with pytest.raises(NotFoundError, match="no target"):
        remote.capture(TEXT, target="another")


def test_an_answer_is_streamed_before_its_controls(remote, oracle):
    (plain,) = remote.stream(TEXT, "What?", samples=None, max_new_tokens=5)
    assert plain.text
    first, *_, last = remote.stream(TEXT, "What?", controls=True, donors=4, max_new_tokens=5)
    assert (
        not first.controls
        and last.controls
        and first.text == last.text == oracle.ask(TEXT, "What?", max_new_tokens=5).text
    )
    with pytest.raises(InputError, match="question"):
        list(remote.stream(TEXT, "  "))


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"question": " "}, InputError), ({"question": "What?", "layers": [0]}, ContractError),
        ({"question": "What?", "positions": "nonsense"}, InputError),
        ({"question": "What?", "coefficient": 0}, InputError),
        ({"question": "What?", "samples": 2, "temperature": 0}, InputError),
        ({"question": "What?", "positions": role("nobody")}, InputError),
    ],
)  # fmt: skip
def test_refusals_are_those_from_here(remote, oracle, asked, kind):
    told = []
    for who in (oracle, remote):
        with pytest.raises(kind) as caught:
            who.ask(TURNS, **asked)
        told.append((type(caught.value), caught.value.what, caught.value.code))
    assert told[0] == told[1]


def test_what_cannot_be_sent_is_told(remote):
    for acts in (None, 3, [], {"a": 1}):
        with pytest.raises(InputError):
            remote.ask(acts, "What?")
    with pytest.raises(InputError, match="layer"):
        remote.ask(torch.zeros(2, 8), "What?")


def test_tokens_and_other_oracles(service, tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"ana: {ANA}\n")
    path.chmod(0o600)
    with serving(service, read_tokens(path)) as url:
        with pytest.raises(AccessError, match="needs a token"):
            Remote(url).ask(TEXT, "What?")
        with Remote(url, token=ANA) as known:
            assert known.info().oracles[0].name == "o" and ANA not in repr(known)
        with pytest.raises(NotFoundError, match="no oracle"):
            Remote(url, token=ANA, name="other").ask(TEXT, "What?")


class Busy(BaseHTTPRequestHandler):
    """Twice too busy, then something that is no service of augury."""

    seen: ClassVar[list[str]] = []

    def do_GET(self):
        self.seen.append(self.path)
        busy = len(self.seen) <= 2
        body = b'{"code": "busy", "what": "w", "why": "y", "instead": "i"}' if busy else b"<html>"
        self.send_response(429 if busy else 500)
        self.send_header("retry-after", "0.01")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def busy():
    Busy.seen.clear()
    server = HTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_busy_service_is_asked_again_and_a_strange_one_told(busy):
    with pytest.raises(BusyError):
        Remote(busy, retries=1).info()
    Busy.seen.clear()
    with pytest.raises(NetworkError, match="no service of augury"):
        Remote(busy, retries=4).info()
    assert len(Busy.seen) == 3
    Busy.seen.clear()
    with pytest.raises(NetworkError, match="no service of augury"):
        next(Remote(busy, retries=4).stream(TEXT, "What?"))
    assert Busy.seen == 3 * ["/v1/ask"], "a stream is asked for again too"
    with pytest.raises(NetworkError, match="gives no reply"):
        Remote("http://127.0.0.1:9").info()


def test_it_is_a_public_name():
    assert augury.Remote is Remote and issubclass(BusyError, AuguryError)
    assert isinstance(Activations, type)
