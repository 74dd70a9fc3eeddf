"""The training benchmark: all ways compute one loss, its fields are there, and it refuses what it cannot do."""

from __future__ import annotations

import importlib
import json
from types import ModuleType

import pytest
import torch

from augury.errors import ModelError
from augury.train.batching import TrainingData
from augury.train.reads import cache_reads
from tests.conftest import ROOT
from tests.tiny import tiny_contract, tiny_lm
from tests.training import examples_of, recipe, rollouts, training_data


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("train")


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture
def data(lm, tmp_path) -> tuple[TrainingData, list]:
    contexts = rollouts(lm)
    reads = cache_reads(lm, contexts, [2], tmp_path / "reads", "train")
    return training_data(recipe(), examples_of(lm, contexts), reads), contexts


def compare(benchmark: ModuleType, lm, data, steps: int = 2):
    return benchmark.compare(recipe(), lm, tiny_contract(lm), *data, steps, 1)


@pytest.mark.slow
def test_every_way_has_one_loss_and_the_report_its_fields(benchmark, lm, data):
    found = json.loads(json.dumps(compare(benchmark, lm, data)))
    losses = [way["loss"] for way in found["same_loss"].values()]
    assert len(losses) > 6 and max(losses) - min(losses) < 1e-3
    assert all(way["cosine"] > 0.999 for way in found["same_loss"].values())
    assert {"model", "rank", "batch_size", "threads", "versions", "peak_flops", "rows", "speedup"} <= found.keys()
    for row in found["rows"]:
        assert row["examples_per_second"] > 0 and row["tokens_per_second"] > row["examples_per_second"]
        assert len(row["seconds"]) == 1 and len(row["seconds"][0]) == found["steps"] == 2
        assert (row["matrix_share"] is not None) == row["name"].startswith("Augury")
    assert {row["precision"] for row in found["rows"]} == {"float32", "bfloat16"}
    assert found["rows"][0]["speedup"] == 1 and found["rows"][0]["name"] == "straightforward"
    assert found["speedup"] == found["speedups"]["float32"]["speedup"] > 0 and found["matrix_share"] > 0
    assert benchmark.table(found).count("\n") > len(found["rows"])


@pytest.mark.slow
def test_a_way_that_computes_something_else_is_not_timed(benchmark, lm, data, monkeypatch):
    plain = importlib.import_module("plain_training")
    before = plain.losses
    monkeypatch.setattr(plain, "losses", lambda *of: before(*of) * 1.01)
    monkeypatch.setattr(benchmark, "_timed", lambda *_: pytest.fail("it was timed"))
    with pytest.raises(ModelError, match="'straightforward' does not compute"):
        compare(benchmark, lm, data)


@pytest.mark.slow
def test_the_flops_are_those_that_torch_counts(benchmark, lm, data):
    """Beside torch's own count, which has neither attention on a CPU nor a first block that needs no gradient."""
    from torch.utils.flop_counter import FlopCounterMode

    from augury.train.batching import batches, pools, prepare_all
    from augury.train.step import example_losses

    training, _ = data
    with benchmark._learner(recipe(), lm, tiny_contract(lm), training) as learner:
        (_, examples) = next(pools(recipe(), training, 0, 1))
        items = prepare_all(lm, learner.contract, learner.reads, examples)
        with FlopCounterMode(display=False) as counter:
            for _, batch in batches(lm, items, share=True):
                example_losses(lm, learner.contract.injection, batch).sum().backward()
        ours = benchmark.step_flops(lm, items, True, None)
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.25)


@pytest.mark.slow
def test_a_shape_is_measured_and_without_a_gpu_refused(benchmark, monkeypatch, capsys):
    shapes = importlib.import_module("training_shape")
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 128, "max_position_embeddings": 512,
    }  # fmt: skip
    monkeypatch.setitem(shapes.SHAPES, "small", shapes.Shape(sizes, (1, 2), 4))
    found = json.loads(json.dumps(shapes.measure_shape("small", 1, device="cpu")))
    assert [row["gradient_checkpointing"] for row in found["rows"]] == [False, True]
    assert all(row["tokens_per_second"] > 0 and row["hours"] > 0 for row in found["rows"])
    assert "320k examples" in shapes.shape_table(found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main(["--shape", "qwen3-8b"]) == 1
    assert "needs a GPU" in capsys.readouterr().err
