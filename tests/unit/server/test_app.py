"""The service over real sockets: its answers are the oracle's, each caller gets its own, and nobody unknown gets in."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import torch
import uvicorn

from augury.activations import capture, diff
from augury.activations.store import save
from augury.lm import generate, transcript_of
from augury.oracle.controls import CONTROLS
from augury.oracle.wire import AnswerOut, ScanOut, ScoreOut
from augury.server.app import make_app
from augury.server.auth import Callers, read_tokens
from augury.server.events import EVENTS, ProgressEvent
from augury.server.limits import Limits
from augury.server.page import FOLDER
from augury.server.service import Service
from tests.tiny import tiny_lm

TEXT, OTHER = "The tide comes in twice a day.", "A baker gets up early."
NOBODY = Callers()
ANA, BEN = "the-token-of-ana-1", "the-token-of-ben-2"


@contextmanager
def serving(service: Service, callers: Callers = NOBODY, hosts=("127.0.0.1", "localhost"), page: Path = FOLDER):
    """A server on a free port, as long as the block lasts; its address."""
    config = uvicorn.Config(make_app(service, callers, hosts, page), port=0, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def service(oracle):
    return Service({"base": oracle.base}, {"o": oracle}, Limits(per_minute=1e6, burst=10_000, at_once=100))


@pytest.fixture(scope="module")
def client(service):
    with serving(service) as url, httpx2.Client(base_url=url, timeout=60) as found:
        yield found


def plain(question: str = "What?", **fields) -> dict:
    return {"reading": {"context": {"text": TEXT}}, "questions": [question], "donors": 4, **fields}


def result(kind, row):
    return kind.model_validate(row).result()


def test_what_is_served(client, oracle):
    assert client.get("/health").json() == {"status": "ok", "waiting": 0, "kept": 0}
    info = client.get("/v1/info").json()
    assert info["model"]["d_model"] == oracle.lm.d_model
    assert info["oracles"][0]["name"] == "o" and info["limits"]["context_tokens"] == 8192
    paths = client.get("/v1/openapi.json").json()["paths"]
    assert {"/v1/ask", "/v1/score", "/v1/scan", "/v1/capture", "/v1/activations/{handle}"} <= set(paths)


def test_tokens_and_continuations_are_the_targets(client, oracle):
    found = client.post("/v1/tokenize", json={"context": {"text": TEXT}}).json()
    transcript = transcript_of(oracle.lm, TEXT)
    assert tuple(found["token_ids"]) == transcript.token_ids and "".join(found["tokens"]).strip() == TEXT
    asked = {"context": {"text": TEXT}, "max_new_tokens": 5, "temperature": 1.0, "seed": 3}
    told = client.post("/v1/generate", json=asked).json()
    alone = generate(oracle.lm, TEXT, max_new_tokens=5, temperature=1.0, seed=3)
    assert tuple(told["token_ids"]) == alone.token_ids
    assert told["spans"][-1] == {"role": "assistant", "start": alone.spans[-1].start, "stop": alone.spans[-1].stop}


def test_answers_scores_and_scans_are_the_oracles(client, oracle):
    (row,) = client.post("/v1/ask", json=plain(controls=True, max_new_tokens=5)).json()["answers"]
    answer, alone = result(AnswerOut, row), oracle.ask(TEXT, "What?", controls=True, max_new_tokens=5, donors=4)
    assert (answer.text, answer.token_ids) == (alone.text, alone.token_ids)
    assert {n: str(getattr(c, "text", c)) for n, c in answer.controls.items()} == {
        n: str(getattr(c, "text", c)) for n, c in alone.controls.items()
    }
    assert answer.source.text == alone.source.text and answer.provenance.model == alone.provenance.model
    asked = plain("Is it so?", choices=["Yes", "No"])
    (row,) = client.post("/v1/score", json=asked).json()["scores"]
    assert result(ScoreOut, row).margin == pytest.approx(oracle.score(TEXT, "Is it so?", donors=4).margin, abs=1e-4)
    (row,) = client.post("/v1/scan", json=plain("Is it so?", window=2)).json()["scans"]
    alone = oracle.scan(TEXT, "Is it so?", window=2, donors=4)
    assert result(ScanOut, row).margins == pytest.approx(alone.margins, abs=1e-4)


def test_a_handle_holds_what_was_captured(client, oracle):
    kept = client.post("/v1/capture", json={"context": {"text": TEXT}, "positions": "last 4"}).json()
    acts = capture(oracle.base, TEXT, oracle.contract.layers[0], "last 4")
    assert tuple(kept["positions"]) == acts.positions and kept["d_model"] == oracle.lm.d_model
    reading = {"handle": kept["handle"], "positions": [acts.positions[-1], acts.positions[-2]]}
    (row,) = client.post("/v1/ask", json={**plain(max_new_tokens=5), "reading": reading}).json()["answers"]
    alone = oracle.ask(acts, "What?", max_new_tokens=5, positions=[acts.positions[-1], acts.positions[-2]])
    assert (row["text"], row["positions"]) == (alone.text, list(alone.positions))
    assert client.delete(f"/v1/activations/{kept['handle']}").status_code == 204
    gone = client.post("/v1/ask", json={**plain(), "reading": {"handle": kept["handle"]}})
    assert gone.status_code == 404 and gone.json()["code"] == "not-found"


def test_an_upload_is_asked_about_as_at_home(client, oracle, tmp_path):
    acts = capture(oracle.base, OTHER, oracle.contract.layers[0], "last 3")
    body = save(acts, tmp_path / "a.safetensors").read_bytes()
    handle = client.post("/v1/activations", content=body).json()["handle"]
    (row,) = client.post("/v1/score", json={**plain("So?"), "reading": {"handle": handle}}).json()["scores"]
    assert row["margin"] == pytest.approx(oracle.score(acts, "So?", donors=4).margin, abs=1e-4)
    assert client.post("/v1/activations", content=b"\x80\x04K\x01.").status_code == 400


def events(response) -> list[tuple[str, dict]]:
    found, name = [], ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def test_parts_are_streamed_the_answer_before_its_controls(client, oracle):
    asked = plain(controls=True, max_new_tokens=5, stream=True, questions=["What?", "Who?"])
    with client.stream("POST", "/v1/ask", json=asked) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found = events(response)
    answers = [(row["number"], row["answer"]) for name, row in found if name == "answer"]
    assert [number for number, _ in answers[:2]] == [0, 1] and found[-1] == ("done", {})
    assert not answers[0][1]["controls"] and set(answers[-1][1]["controls"]) == set(CONTROLS)
    with client.stream("POST", "/v1/scan", json=plain("So?", stream=True)) as response:
        names = [name for name, _ in events(response)]
    assert names[0] == "progress" and names[-2:] == ["scan", "done"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("changed", "status", "told"),
    [
        ({"questions": [""]}, 422, "questions"), ({"questions": []}, 422, "questions"),
        ({"unknown": 1}, 422, "unknown"),
        ({"reading": {}}, 422, "handle or a context"), ({"reading": {"handle": "x"}}, 404, "handle"),
        ({"reading": {"context": {"text": TEXT, "token_ids": [1]}}}, 422, "exactly one"),
        ({"reading": {"context": {"text": TEXT}, "layers": [0]}}, 409, "layer"),
        ({"reading": {"context": {"text": TEXT}, "positions": "nonsense"}}, 400, "nonsense"),
        ({"reading": {"context": {"text": TEXT}, "positions": [10_000]}}, 400, "10000"),
        ({"reading": {"context": {"token_ids": [10**6]}}}, 400, "token"),
        ({"reading": {"context": {"messages": []}}}, 400, ""), ({"oracle": "../../etc"}, 404, "oracle"),
        ({"samples": 33}, 400, "32 may be"), ({"max_new_tokens": 513}, 400, "512"),
        ({"coefficient": 0}, 400, "coefficient"),
        ({"donors": 1, "controls": True}, 400, "donors"), ({"questions": ["   "]}, 400, "question"),
        ({"samples": 2, "temperature": 0}, 400, "temperature"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_before_anything_is_sent(client, changed, status, told, stream):
    found = client.post("/v1/ask", json={**plain(stream=stream), **changed})
    assert found.status_code == status and found.headers["content-type"] == "application/json"
    row = found.json()
    assert set(row) == {"code", "what", "why", "instead"} and told in json.dumps(row)


def test_many_at_once_get_each_its_own(client, service, oracle):
    texts = [f"{word} is what this is about." for word in ("Bread", "The moon", "A violin", "Iron", "Rain", "Chess")]
    alone = {text: oracle.ask(text, "What?", max_new_tokens=6).text for text in texts}
    before = service.engine.batches, service.engine.jobs

    def ask(number: int) -> tuple[str, str]:
        text = texts[number % len(texts)]
        asked = {**plain(max_new_tokens=6), "reading": {"context": {"text": text}}}
        return text, client.post("/v1/ask", json=asked).json()["answers"][0]["text"]

    with ThreadPoolExecutor(12) as pool:
        for text, found in pool.map(ask, range(48)):
            assert found == alone[text]
    batches, jobs = service.engine.batches - before[0], service.engine.jobs - before[1]
    assert jobs == 96 and batches < 60, "captures and questions went together"


@pytest.fixture(scope="module")
def guarded(service, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(f"ana: {ANA}\nben: {BEN}\n")
    path.chmod(0o600)
    limited = Service(
        service.targets,
        service.oracles,
        Limits(per_minute=6000, burst=200, at_once=4, body_bytes=20_000, upload_bytes=50_000),
    )
    with serving(limited, read_tokens(path), None) as url:
        yield url


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_who_is_not_known_is_refused_alike(guarded):
    told = set()
    rows = [({}, ""), (bearer("wrong-token-of-ana"), ""), ({}, f"?token={ANA}"), ({"authorization": ANA}, "")]
    for headers, query in (*rows, ({"cookie": f"token={ANA}"}, f"?authorization=Bearer%20{ANA}")):  # fmt: skip
        for path in ("/v1/info", "/v1/openapi.json", "/v1/none", "/assets"):
            found = httpx2.get(f"{guarded}{path}{query}", headers=headers)
            told.add((found.status_code, found.text, found.headers.get("www-authenticate")))
    assert len(told) == 1 and next(iter(told))[0] == 401
    assert httpx2.get(f"{guarded}/health").status_code == 200
    assert httpx2.get(f"{guarded}/v1/info", headers=bearer(BEN)).status_code == 200


def test_another_callers_handle_is_as_one_that_never_was(guarded):
    asked = {"context": {"text": TEXT}}
    handle = httpx2.post(f"{guarded}/v1/capture", json=asked, headers=bearer(ANA), timeout=60).json()["handle"]
    told = set()
    for name in (handle, "x" * len(handle)):
        given = {**plain(), "reading": {"handle": name}}
        found = httpx2.post(f"{guarded}/v1/ask", json=given, headers=bearer(BEN))
        gone = httpx2.delete(f"{guarded}/v1/activations/{name}", headers=bearer(BEN))
        told |= {(found.status_code, found.text), (gone.status_code, gone.text)}
    assert len(told) == 1 and next(iter(told))[0] == 404
    assert httpx2.delete(f"{guarded}/v1/activations/{handle}", headers=bearer(ANA)).status_code == 204


def test_what_is_too_large_is_refused_and_not_read(guarded):
    body = json.dumps({**plain(), "questions": ["x" * 30_000]}).encode()
    assert httpx2.post(f"{guarded}/v1/ask", content=body, headers=bearer(ANA)).status_code == 413

    def endless():
        for _ in range(10_000):
            yield b" " * 4096

    for path in ("ask", "activations"):
        try:
            found = httpx2.post(f"{guarded}/v1/{path}", content=endless(), headers=bearer(ANA)).status_code
        except httpx2.WriteError:
            found = 413  # closed before all was sent
        assert found == 413, path


def test_pages_and_names_that_are_not_the_services_own_are_refused(client):
    url = str(client.base_url)
    assert client.get("/v1/info", headers={"origin": "https://evil.example"}).status_code == 403
    assert client.get("/v1/info", headers={"origin": "null"}).status_code == 403
    assert client.get("/v1/info", headers={"origin": "http://["}).status_code == 403
    assert client.get("/v1/info", headers={"origin": url.rstrip("/")}).status_code == 200
    assert client.get("/v1/info", headers={"host": "evil.example"}).status_code == 403
    assert client.get("/v1/info", headers={"host": "localhost:1"}).status_code == 200
    found = client.get("/v1/info")
    assert found.headers["x-content-type-options"] == "nosniff" and "'none'" in found.headers["content-security-policy"]
    assert "access-control-allow-origin" not in found.headers
    simple = {"content-type": "text/plain"}  # which a page may send anywhere without asking
    assert client.post("/v1/ask", content=json.dumps(plain()), headers=simple).status_code == 422


def test_a_line_is_kept_of_every_request_and_no_secret_in_it(guarded, caplog):
    with caplog.at_level(logging.INFO, "augury.audit"):
        httpx2.get(f"{guarded}/v1/info?token={ANA}", headers=bearer(BEN))
        httpx2.get(f"{guarded}/v1/info?token={ANA}", headers=bearer("wrong-token-of-ana"))
        asked = {"context": {"text": "a secret text"}}
        httpx2.post(f"{guarded}/v1/tokenize", json=asked, headers=bearer(ANA), timeout=60)
        httpx2.delete(f"{guarded}/v1/activations/a-handle", headers=bearer(ANA))
        time.sleep(0.2)
    rows = [json.loads(record.message) for record in caplog.records if record.name == "augury.audit"]
    rows = [row for row in rows if row["caller"] != "local"]  # of the other tests' service, which may write late
    assert [(row["caller"], row["path"], row["status"]) for row in rows] == [
        ("ben", "/v1/info", 200), ("-", "/v1/info", 401), ("ana", "/v1/tokenize", 200),
        ("ana", "/v1/activations/...", 404)]  # fmt: skip
    assert all(secret not in caplog.text for secret in (ANA, BEN, "wrong-token", "a secret text", "a-handle"))


HOSTILE = [
    b"", b"null", b"[]", b"3", b"{", b"[" * 50_000, b'{"reading": ' * 20_000, b"\xff\xfe", b'{"questions": "\\ud800"}',
    *(json.dumps({**plain(), **changed}).encode() for changed in (
        {"coefficient": float("nan")}, {"coefficient": float("inf")}, {"coefficient": 1e300}, {"coefficient": "2"},
        {"questions": ["\ud800?"]}, {"questions": ["\x00"]}, {"questions": [{}]}, {"questions": "What?"},
        {"seed": 2**70}, {"seed": -(2**64)}, {"samples": -1}, {"samples": 1e9}, {"samples": True}, {"donors": 33},
        {"temperature": -1}, {"temperature": float("nan"), "samples": 2}, {"max_new_tokens": 0}, {"oracle": ""},
        {"oracle": "o\x00"}, {"stream": "perhaps"}, {"controls": []},
        {"reading": {"context": {"text": ""}}}, {"reading": {"context": {"text": "\ud800"}}},
        {"reading": {"context": {"text": "a " * 9000}}}, {"reading": {"context": {"token_ids": []}}},
        {"reading": {"context": {"token_ids": [-1]}}}, {"reading": {"context": {"token_ids": [2**63]}}},
        {"reading": {"context": {"token_ids": [0] * 9000}}},
        {"reading": {"context": {"messages": [{"role": "nobody", "content": 3}]}}},
        {"reading": {"context": {"messages": [{"role": "user", "content": "a", "tool_calls": []}]}}},
        {"reading": {"context": {"text": TEXT, "end": "open"}}}, {"reading": {"handle": "../../etc/passwd"}},
        {"reading": {"handle": "\x00" * 9}}, {"reading": {"context": {"text": TEXT}, "layers": [9999]}},
        {"reading": {"context": {"text": TEXT}, "layers": []}},
        {"reading": {"context": {"text": TEXT}, "positions": []}},
        {"reading": {"context": {"text": TEXT}, "positions": "(" * 900}},
        {"reading": {"context": {"text": TEXT}, "positions": "last 99999999999999999999999"}},
        {"reading": {"context": {"text": TEXT}, "positions": "text(" + "x" * 900 + ")"}},
        {"reading": {"context": {"text": TEXT}, "positions": "::0"}},
    )),
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_is_sent_breaks_the_service(client, body):
    for verb in ("ask", "score", "scan"):
        found = client.post(f"/v1/{verb}", content=body, headers={"content-type": "application/json"})
        assert found.status_code < 500, (verb, found.text)
        assert found.status_code == 200 or set(found.json()) == {"code", "what", "why", "instead"}
        assert len(found.text) < 5000 or found.status_code == 200


def test_a_caller_has_so_many_under_way(guarded, service):
    def ask(_: int) -> int:
        asked = plain(controls=True, max_new_tokens=40)
        return httpx2.post(f"{guarded}/v1/ask", json=asked, headers=bearer(ANA), timeout=60).status_code

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, range(12)))
    assert set(found) == {200, 429} and found.count(200) >= 4
    assert ask(0) == 200, "and after that it is let in again"


def test_a_client_that_vanishes_costs_nothing_more(client, service, monkeypatch):
    held, seen = threading.Event(), []
    plain_run = service.engine.run

    def slow(jobs):
        seen.extend(type(job.work).__name__ for job in jobs)
        held.wait(3)
        return plain_run(jobs)

    monkeypatch.setattr(service.engine, "run", slow)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{client.base_url}/v1/ask", json=plain(controls=True), timeout=0.3)
    time.sleep(1.2)
    held.set()
    time.sleep(0.5)
    assert seen == ["Capture"], "neither the question nor its controls were run"
    monkeypatch.undo()
    assert client.post("/v1/ask", json=plain(max_new_tokens=4)).status_code == 200


def test_what_fails_inside_is_told_without_its_inside(client, service, monkeypatch, caplog):
    def broken(jobs):
        raise RuntimeError("/secret/path of the machine")

    monkeypatch.setattr(service.engine, "run", broken)
    found = client.post("/v1/ask", json=plain())
    assert found.status_code == 500 and "secret" not in found.text

    def full(jobs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(service.engine, "run", full)
    assert client.post("/v1/ask", json=plain()).status_code == 507
    monkeypatch.undo()
    assert client.post("/v1/ask", json=plain(max_new_tokens=4)).status_code == 200


def test_stopping_under_load_finishes_or_tells(oracle):
    service = Service({"base": oracle.base}, {"o": oracle}, Limits(per_minute=1e6, burst=1000, at_once=100))
    with ThreadPoolExecutor(8) as pool:
        with serving(service) as url:

            def ask(_: int) -> int:
                return httpx2.post(f"{url}/v1/ask", json=plain(max_new_tokens=8), timeout=60).status_code

            asked = [pool.submit(ask, number) for number in range(24)]
            while not service.engine.jobs:
                time.sleep(0.01)
        ended = [one.exception() or one.result() for one in asked]
    assert all(isinstance(found, Exception) or found in (200, 503) for found in ended), ended
    assert 200 in ended


def test_a_difference_is_kept_under_a_handle(client, oracle):
    handles = [client.post("/v1/capture", json={"context": {"text": TEXT}}).json()["handle"] for _ in range(2)]
    kept = client.post("/v1/diff", json={"finetuned": handles[0], "base": handles[1]}).json()
    alone = diff(*(capture(oracle.base, TEXT, oracle.contract.layers[0], "all") for _ in range(2)))
    assert kept["target"] is None and kept["noise_floor"] == alone.noise_floor
    assert kept["relative_norms"] == alone.relative_norms.tolist() == [[0.0] * len(alone)]
    found = client.post("/v1/ask", json={**plain(), "reading": {"handle": kept["handle"]}})
    assert found.status_code == 400 and "not above the noise" in found.json()["what"]
    again = client.post("/v1/diff", json={"finetuned": kept["handle"], "base": handles[1]})
    assert again.status_code == 400 and "a difference already" in again.json()["why"]
    gone = client.post("/v1/diff", json={"finetuned": "x", "base": handles[1]})
    assert gone.status_code == 404 and gone.json()["code"] == "not-found"


def test_the_page_of_the_interface_holds_every_event(client):
    page = client.get("/v1/openapi.json").json()
    schemas = page["components"]["schemas"]
    assert {model.__name__ for model in EVENTS.values()} <= set(schemas)
    assert set(schemas["AnswerEvent"]["properties"]) == {"number", "answer"}
    for verb in ("ask", "score", "scan", "generate"):
        told = page["paths"][f"/v1/{verb}"]["post"]["responses"]["200"]["content"]
        assert set(told) == {"application/json", "text/event-stream"}


def raw(url: str, head: str, body: bytes = b"") -> socket.socket:
    """A request as bytes, of which more may follow."""
    made = socket.create_connection((httpx2.URL(url).host, httpx2.URL(url).port), timeout=10)
    made.sendall(f"{head}\r\nhost: localhost\r\ncontent-type: application/json\r\n".encode() + b"\r\n" + body)
    return made


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)


def under_way(service: Service) -> int:
    own = service.gate._callers.get("local")
    return 0 if own is None else own.running


def test_who_asks_too_much_is_refused_before_the_body_is_read(oracle):
    """Two may be under way: two whose bodies never come hold their places, and a third is refused with no body read."""
    service = Service({"base": oracle.base}, {"o": oracle}, Limits(per_minute=1e6, burst=100, at_once=2))
    head = "POST /v1/ask HTTP/1.1\r\ncontent-length: 1000"
    with serving(service) as url:
        held = [raw(url, head) for _ in range(2)]
        until(lambda: under_way(service) == 2)
        with raw(url, head) as third:
            reply = b""
            while not reply.endswith(b"}"):
                reply += third.recv(65536).lower()
        assert reply.startswith(b"http/1.1 429") and b"\r\nretry-after: 1\r\n" in reply and b"2 may be" in reply
        for path in ("/health", "/v1/info", "/v1/openapi.json", "/"):
            assert httpx2.get(url + path).status_code in (200, 404), "these are never refused so"
        assert httpx2.delete(f"{url}/v1/activations/x").status_code == 429
        for one in held:
            one.close()
        until(lambda: under_way(service) == 0)
        assert httpx2.post(f"{url}/v1/ask", json=plain(max_new_tokens=3), timeout=60).status_code == 200


def test_the_rate_is_held_before_the_body_is_read(oracle):
    service = Service({"base": oracle.base}, {}, Limits(per_minute=1, burst=3))
    with serving(service) as url:
        found = [httpx2.post(f"{url}/v1/tokenize", content=b"{").status_code for _ in range(5)]
        assert found == [422] * 3 + [429] * 2
        assert int(httpx2.post(f"{url}/v1/none").headers["retry-after"]) > 30


def test_a_stream_holds_its_place_until_its_last_byte_or_its_callers_end(oracle):
    service = Service({"base": oracle.base}, {"o": oracle}, Limits(per_minute=1e6, burst=100, at_once=2))
    asked, plain_run, held = plain("So?", stream=True), service.engine.run, threading.Event()

    def slow(jobs):
        jobs[0].tell("progress", ProgressEvent(number=0, done=0, total=1))
        held.wait(20)
        return plain_run(jobs)

    service.engine.run = slow
    with serving(service) as url, httpx2.Client(base_url=url, timeout=60) as found:
        with found.stream("POST", "/v1/scan", json=asked) as reply:
            lines = reply.iter_lines()
            assert next(lines) and under_way(service) == 1
        until(lambda: under_way(service) == 0)
        held.set()
        with found.stream("POST", "/v1/scan", json=asked) as reply:
            assert events(reply)[-1] == ("done", {})
        until(lambda: under_way(service) == 0)


def test_the_service_replies_while_long_contexts_are_tokenized(oracle, monkeypatch, tmp_path):
    lm = tiny_lm()
    lm.model.config.max_position_embeddings = 10**6
    service = Service({"base": lm}, {"o": oracle}, Limits(per_minute=1e6, burst=1000, context_tokens=200_000))
    text = "".join(map(chr, range(33, 127))) * 1064
    acts = replace(capture(lm, TEXT, [2], "last 4"), transcript=transcript_of(lm, text[:40_000]))
    body = save(acts, tmp_path / "a.safetensors").read_bytes()
    plain_decode = lm.tokenizer.decode
    monkeypatch.setattr(lm.tokenizer, "decode", lambda *a, **k: time.sleep(0.005) or plain_decode(*a, **k))
    with serving(service) as url, httpx2.Client(base_url=url, timeout=60) as found, ThreadPoolExecutor(1) as pool:
        for path, sent in (("tokenize", {"json": {"context": {"text": text}}}), ("activations", {"content": body})):
            asked, slowest = pool.submit(httpx2.post, f"{url}/v1/{path}", timeout=60, **sent), 0.0
            began = time.monotonic()
            while not asked.done():
                before = time.monotonic()
                assert found.get("/health").status_code == 200
                slowest = max(slowest, time.monotonic() - before)
            assert asked.result().status_code == 200, asked.result().text
            assert time.monotonic() - began > 0.4
            assert slowest < 0.25, path
