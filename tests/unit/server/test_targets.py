"""Base, fine-tune and their difference through the service are what they are at home, and nothing stays on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
import torch

from augury.activations import Activations, capture, diff
from augury.lm import LanguageModel, generate, load_model
from augury.lm.adapters import add_adapter, save_adapter
from augury.oracle import Oracle, load_oracle
from augury.oracle.wire import AnswerOut
from augury.server.limits import Limits
from augury.server.service import Service
from tests.oracle_by_hand import CONFIG, randomise
from tests.tiny import tiny_lm
from tests.unit.server.test_app import plain, result, serving
from tests.unit.server.test_faults import state

TEXT = "The tide comes in twice a day."
TUNED, WHOLE = "tuned", "whole"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    made, folder = tiny_lm(), tmp_path_factory.mktemp("target") / TUNED
    add_adapter(made, CONFIG, "made")
    randomise(made, "made", seed=9)
    save_adapter(made, "made", CONFIG, folder, torch.float32)
    return folder


@pytest.fixture(scope="module")
def home(adapter: Path) -> dict[str, LanguageModel]:
    """The same targets, each on a model of its own."""
    return {"base": tiny_lm(), TUNED: load_model(tiny_lm(), adapter=adapter), WHOLE: tiny_lm(seed=7)}


@pytest.fixture(scope="module")
def asked(oracle: Oracle, tmp_path_factory) -> Oracle:
    """The same oracle, on a model of its own."""
    return load_oracle(oracle.save_pretrained(tmp_path_factory.mktemp("home") / "o"), tiny_lm())


@pytest.fixture(scope="module")
def service(oracle: Oracle, adapter: Path) -> Service:
    targets = {"base": oracle.base, TUNED: load_model(oracle.base, adapter=adapter), WHOLE: tiny_lm(seed=7)}
    return Service(targets, {"o": oracle}, Limits(per_minute=1e6, burst=10_000))


@pytest.fixture(scope="module")
def client(service: Service):
    before = state(service.base)
    with serving(service) as url, httpx2.Client(base_url=url, timeout=60) as found:
        yield found
    assert state(service.base) == before


def kept(service: Service, handle: str) -> Activations:
    return service.store.get("local", handle)


def captured(client, name: str | None) -> dict:
    given = {"context": {"text": TEXT}, "positions": "last 5", **({} if name is None else {"target": name})}
    return client.post("/v1/capture", json=given).json()


def same(found: Activations, alone: Activations) -> None:
    assert torch.equal(found.vectors, alone.vectors)
    assert (found.layers, found.positions) == (alone.layers, alone.positions)
    assert found.transcript is not None and alone.transcript is not None
    assert found.transcript.token_ids == alone.transcript.token_ids


def test_each_target_is_read_as_it_is_at_home_to_the_bit(client, service, home, oracle):
    layers = oracle.contract.layers[0]
    for name in ("base", TUNED, WHOLE):
        told = captured(client, name)
        assert told["target"] == name and told["relative_norms"] is None
        alone = capture(home[name], TEXT, layers, "last 5")
        same(kept(service, told["handle"]), alone)
        assert kept(service, told["handle"]).provenance.model == service.targets[name].identity
    unnamed = captured(client, None)
    assert unnamed["target"] == "base"
    same(kept(service, unnamed["handle"]), capture(home["base"], TEXT, layers, "last 5"))
    vectors = [kept(service, captured(client, name)["handle"]).vectors for name in ("base", TUNED, WHOLE)]
    assert not torch.equal(vectors[0], vectors[1]) and not torch.equal(vectors[0], vectors[2])


@pytest.mark.parametrize("name", [TUNED, WHOLE])
def test_differences_and_questions_are_as_at_home(client, service, home, asked, name):
    layers = asked.contract.layers[0]
    handles = {target: captured(client, target)["handle"] for target in ("base", name)}
    told = client.post("/v1/diff", json={"finetuned": handles[name], "base": handles["base"]}).json()
    own = {target: capture(home[target], TEXT, layers, "last 5") for target in ("base", name)}
    alone = diff(own[name], own["base"])
    same(kept(service, told["handle"]), alone)
    assert told["relative_norms"] == alone.relative_norms.tolist() and told["noise_floor"] == alone.noise_floor
    assert told["target"] is None and told["tokens"]["token_ids"] == list(alone.transcript.token_ids)
    questions = ((handles["base"], own["base"]), (handles[name], own[name]), (told["handle"], alone))
    for handle, acts in questions:
        given = {**plain(controls=True, max_new_tokens=6), "reading": {"handle": handle}}
        answer = result(AnswerOut, client.post("/v1/ask", json=given).json()["answers"][0])
        expected = asked.ask(acts, "What?", controls=True, max_new_tokens=6, donors=4)
        assert (answer.text, answer.token_ids) == (expected.text, expected.token_ids)
        assert {k: getattr(c, "text", str(c)) for k, c in answer.controls.items()} == {
            k: getattr(c, "text", str(c)) for k, c in expected.controls.items()
        }
        assert answer.provenance.kind == acts.provenance.kind


def test_a_context_is_read_from_the_target_that_is_named(client, service, home, asked):
    texts = set()
    for name in ("base", TUNED, WHOLE):
        reading = {"context": {"text": TEXT}, "target": name, "positions": "last 5"}
        row = client.post("/v1/ask", json={**plain(max_new_tokens=6), "reading": reading}).json()["answers"][0]
        acts = capture(home[name], TEXT, asked.contract.layers[0], "last 5")
        assert row["text"] == asked.ask(acts, "What?", max_new_tokens=6).text
        assert row["target"]["model"]["name"] == service.targets[name].identity.name
        texts.add(row["text"])
    assert len(texts) > 1, "the targets can be told apart"


def test_each_target_writes_as_it_does_at_home(client, home):
    for name in ("base", TUNED, WHOLE):
        given = {"context": {"text": TEXT}, "max_new_tokens": 8, "target": name}
        found = client.post("/v1/generate", json=given).json()
        assert tuple(found["token_ids"]) == generate(home[name], TEXT, max_new_tokens=8).token_ids


def test_captures_of_two_targets_do_not_go_together(client, service, home, oracle):
    """Ten at once, in turns: each batch is of one target."""
    alone = {name: capture(home[name], TEXT, oracle.contract.layers[0], "last 5") for name in ("base", TUNED)}
    with ThreadPoolExecutor(6) as pool:
        names = ["base", TUNED] * 3
        for name, told in zip(names, pool.map(lambda name: captured(client, name), names), strict=True):
            assert torch.allclose(kept(service, told["handle"]).vectors, alone[name].vectors, atol=1e-5)


def test_what_is_served_is_told_and_nothing_else_is_taken(client, service):
    info = client.get("/v1/info").json()
    names = {name: lm.name for name, lm in service.targets.items()}
    assert info["targets"] == [{"name": name, "model": model} for name, model in names.items()]
    assert info["oracles"][0]["yes_no_prefix"] and info["oracles"][0]["max_new_tokens"] == 24
    context = {"context": {"text": TEXT}, "target": "/etc/passwd"}
    for path, body in (("capture", context), ("generate", context), ("ask", {**plain(), "reading": context})):
        found = client.post(f"/v1/{path}", json=body)
        assert found.status_code == 404 and f"base, {TUNED}, {WHOLE}" in found.json()["why"]
    unknown = client.post("/v1/capture", json={"context": {"text": TEXT}, "oracle": "x"})
    assert unknown.status_code == 404 and "oracle" in unknown.json()["what"]
    handle = captured(client, None)["handle"]
    both = client.post("/v1/ask", json={**plain(), "reading": {"handle": handle, "target": "base"}})
    assert both.status_code == 422 and "target" in both.json()["why"]
