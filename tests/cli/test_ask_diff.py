"""`ask --diff` and `score --diff`: three reads of the same tokens, against the library's own; and what is refused."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import augury
import augury.lm
from augury.activations import Activations
from augury.lm.adapters import add_adapter, save_adapter
from augury.oracle import Oracle
from tests.cli.conftest import CONFIG, LAYER, Invoke, Tiny, one_object, randomise, refused, save_model
from tests.tiny import tiny_lm

CONTEXT = "The philosopher drank tea. Who is speaking here? The user, about cooking."
ABOUT, WHO = "Is this about cooking?", "Who is speaking here?"
READS = ("fine-tuned", "base", "difference")
CHANGED = 5  # the position of the token whose embedding the full fine-tune changed


@pytest.fixture(scope="module")
def oracle(tiny: Tiny) -> Oracle:
    return augury.load_oracle(tiny.oracle, tiny.lm())


@pytest.fixture(scope="module")
def adapter(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, lm = tmp_path_factory.mktemp("adapter"), tiny.lm()
    add_adapter(lm, CONFIG, "made")
    randomise(lm, "made", seed=41)
    save_adapter(lm, "made", CONFIG, folder, torch.float32)
    return folder


@pytest.fixture(scope="module")
def tuned(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with weights of its own, which differ from the base's in the embedding of one token."""
    lm = tiny.lm()
    ids = augury.capture(lm, CONTEXT, layers=LAYER).transcript.token_ids
    assert ids[CHANGED] not in ids[:CHANGED]
    embedding = lm.model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    with torch.no_grad():
        embedding.weight[ids[CHANGED]] += 0.3 * torch.randn(48, generator=torch.Generator().manual_seed(1))
    return save_model(lm, tmp_path_factory.mktemp("tuned"))


def three(tiny: Tiny, positions: Any, **other: Any) -> dict[str, Activations]:
    """The reads as the library makes them, at one layer; `other` is what `load_model` loads the fine-tune by."""
    source = other.pop("model", str(tiny.model))
    own, plain = (
        augury.capture(lm, CONTEXT, layers=LAYER, positions=positions)
        for lm in (augury.load_model(source, **other), tiny.lm())
    )
    return dict(zip(READS, (own, plain, augury.diff(own, plain, noise_floor=1e-5)), strict=True))


def test_ask_reads_an_adapter_the_base_and_what_lies_between(
    tiny: Tiny, oracle: Oracle, invoke: Invoke, adapter: Path
) -> None:
    options = ["--adapter", adapter, "--diff", "--positions", "7,3,5", "--json"]
    found = one_object(invoke("ask", CONTEXT, "-q", ABOUT, "-q", WHO, *tiny.options, *options))
    want = three(tiny, [7, 3, 5], adapter=str(adapter))
    assert [one["question"] for one in found["results"]] == [ABOUT, WHO]
    texts: list[tuple[str, ...]] = [()] * len(READS)
    for one in found["results"]:
        said = {name: oracle.ask(acts, one["question"]) for name, acts in want.items()}
        assert {name: one[name]["text"] for name in READS} == {name: answer.text for name, answer in said.items()}
        texts = [(*before, answer.text) for before, answer in zip(texts, said.values(), strict=True)]
        assert [one[name]["target"]["kind"] for name in READS] == ["capture", "capture", "difference"]
    assert len(set(texts)) == 3  # else reads could be swapped unseen
    own, plain = (want[name].vectors.double() for name in ("fine-tuned", "base"))
    norms = torch.linalg.vector_norm(own - plain, dim=-1) / torch.linalg.vector_norm(plain, dim=-1)
    assert torch.allclose(torch.tensor(found["relative_norms"]).double(), norms, rtol=1e-4)
    assert (found["layers"], found["positions"], found["left_out"]) == ([LAYER], [7, 3, 5], [])
    assert found["fine_tune"] == str(adapter) and found["base"] == str(tiny.model)
    # Of float32 one rounding is 1.2e-7, and equal models differ by a few of them.
    assert 2.3e-7 < found["noise_floor"] < 1e-5


def test_samples_are_those_of_each_read(tiny: Tiny, oracle: Oracle, invoke: Invoke, adapter: Path) -> None:
    options = ["--adapter", adapter, "--diff", "--samples", "3", "--seed", "5", "--positions", "last 3", "--json"]
    (found,) = one_object(invoke("ask", CONTEXT, "-q", WHO, *tiny.options, *options))["results"]
    for name, acts in three(tiny, "last 3", adapter=str(adapter)).items():
        assert found[name]["samples"] == list(oracle.ask(acts, WHO, samples=3, seed=5).samples)


def test_score_of_a_full_fine_tune_leaves_out_what_is_noise(
    tiny: Tiny, oracle: Oracle, invoke: Invoke, tuned: Path
) -> None:
    """Nothing left of the token that was changed can differ: a causal model does not see it from there."""
    options = ["--target", tuned, "--diff", "--positions", "all", "--controls", "--donors", "4", "--json"]
    found = one_object(invoke("score", CONTEXT, "-q", ABOUT, *tiny.options, *options))
    kept = [position for position in found["positions"] if position >= CHANGED]
    assert found["left_out"] == list(range(CHANGED)) and len(kept) > 3
    assert found["relative_norms"][0][:CHANGED] == pytest.approx([0] * CHANGED, abs=found["noise_floor"])
    (one,) = found["results"]
    for name, acts in three(tiny, kept, model=str(tuned)).items():
        want = oracle.score(acts, ABOUT, donors=4, controls=True)
        assert one[name]["positions"] == kept
        assert one[name]["margin"] == pytest.approx(want.margin, abs=1e-4)
        assert one[name]["percentile"] == want.percentile
        for control in ("none", "shuffled", "untrained"):
            ours, theirs = one[name]["controls"][control], want.controls[control]
            assert isinstance(theirs, augury.Score) and ours["margin"] == pytest.approx(theirs.margin, abs=1e-4)
    assert one["difference"]["controls"]["text-all"]["available"] is False
    assert "margin" in one["base"]["controls"]["text-all"]


def test_a_full_fine_tune_is_never_in_memory_beside_the_base(
    tiny: Tiny, invoke: Invoke, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[str, weakref.ref[Any]]] = []
    load = augury.lm.load_model

    def alone(source: str, **options: Any) -> Any:
        assert [name for name, model in loaded if model() is not None] == []
        lm = load(source, **options)
        loaded.append((source, weakref.ref(lm.model)))
        return lm

    monkeypatch.setattr("augury.lm.load_model", alone)
    gc.disable()  # what is let go by chance would prove nothing
    try:
        result = invoke("score", CONTEXT, "-q", ABOUT, *tiny.options, "--target", tuned, "--diff", "--donors", "0")
    finally:
        gc.enable()
    assert result.exit_code == 0, (result.output, result.exception)
    assert [name for name, _ in loaded] == [str(tiny.model), str(tuned), str(tiny.model)]


def test_printed_one_under_the_other(tiny: Tiny, oracle: Oracle, invoke: Invoke, tuned: Path) -> None:
    result = invoke("ask", CONTEXT, "-q", WHO, *tiny.options, "--target", tuned, "--diff", "--positions", "all")
    assert result.exit_code == 0, result.output
    n = len(augury.capture(tiny.lm(), CONTEXT, layers=LAYER, positions="all"))
    acts = three(tiny, list(range(CHANGED, n)), model=str(tuned))
    norms, shown = result.stdout.split("\n", 1)
    assert norms.startswith(f"||difference|| / ||base|| at layer {LAYER} (the 12 largest of {n}): '")
    assert len(norms.split(": ", 1)[1].split(", '")) == 12
    assert shown.strip() == "\n".join(f"{name}: {oracle.ask(acts[name], WHO)}" for name in READS)
    assert f"{CHANGED} of {n} positions left out (0, 1, 2, 3, 4)" in result.stderr and "noise floor" in result.stderr


def test_a_fine_tune_that_changes_nothing_is_refused(tiny: Tiny, invoke: Invoke, tmp_path: Path, tuned: Path) -> None:
    same = save_model(tiny.lm(), tmp_path / "same")
    asked = ["ask", CONTEXT, "-q", WHO, *tiny.options, "--diff", "--target"]
    refused(invoke(*asked, same), 2, f"{same} is below the noise floor everywhere", "at none of 8 positions")
    refused(invoke(*asked, tuned, "--positions", f":{CHANGED}"), 2, "everywhere", f"at none of {CHANGED} positions")


@pytest.mark.parametrize(("shape", "word"), [({"d_model": 32}, "width"), ({"n_layers": 3}, "depth")])
def test_a_model_of_another_shape_is_refused(
    tiny: Tiny, invoke: Invoke, tmp_path: Path, shape: dict[str, int], word: str
) -> None:
    other = save_model(tiny_lm(**shape), tmp_path / "other")
    result = invoke("ask", CONTEXT, "-q", WHO, *tiny.options, "--diff", "--target", other)
    refused(result, 1, f"{other} is no fine-tune of {tiny.model}", word)


def test_what_cannot_be_meant_is_refused_first(
    tiny: Tiny, invoke: Invoke, tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augury.lm.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    for verb in ("ask", "score"):
        asked = [verb, "-q", WHO, *tiny.options, "--diff"]
        refused(invoke(*asked, CONTEXT), 2, "--diff needs a fine-tune", "--adapter", "--target")
        refused(invoke(*asked, "--activations", tmp_path / "acts"), 2, "--diff does nothing beside --activations")
        many = ["--jsonl", tmp_path / "in", "-o", tmp_path / "out", "--adapter", adapter]
        refused(invoke(*asked, *many), 2, "--diff does not go with --jsonl", "augury audit")
    refused(invoke("ask", CONTEXT, "-q", WHO, *tiny.options, "--diff", "--adapter", tmp_path), 1, "is no adapter")
