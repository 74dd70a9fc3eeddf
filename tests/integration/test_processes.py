"""Two gloo processes train as one does: the same losses, the same adapter, one writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.cli.conftest import save_model
from tests.tiny import tiny_lm
from tests.training import SOURCES

pytestmark = pytest.mark.slow
STEPS = 6
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    found = {
        "name": "two",
        "model": str(save_model(tiny_lm(), folder / "model")),
        "layers": [[2]],
        "lora": {"rank": 4, "alpha": 8},
        "optimizer": {"examples": 5 * STEPS, "batch_size": 5, "pool": 3, "learning_rate": 0.01, "checkpoint_every": 4},
        "contexts": {"answers": {"type": "rollouts", "train": 16, "heldout": 8, "max_new_tokens": 20}},
        "sources": SOURCES,
        "stages": [{"until": 1.0, "weights": {"lens": 1, "asked": 1}}],
        "evaluations": 2,
        "report": "quick",
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(found))
    return path


def start(launcher: list[str], recipe: Path, run: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [*launcher, "augury", "train", str(recipe), "-o", str(run), *settings]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def runs(recipe, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    one = start([sys.executable, "-m"], recipe, folder / "one")
    assert one.returncode == 0, one.stderr[-3000:]
    two = start(TORCHRUN, recipe, folder / "two", "--set", "optimizer.processes=2")
    assert two.returncode == 0, two.stderr[-3000:]
    return {"one": folder / "one", "two": folder / "two"}


def rows(run: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def test_two_processes_have_the_loss_curve_of_one(runs):
    one, two = (rows(runs[name], "metrics.jsonl") for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in one] == pytest.approx([row["loss"] for row in two], abs=1e-4)
    for a, b in zip(one, two, strict=True):
        assert a["losses"] == pytest.approx(b["losses"], abs=1e-4)


def test_and_its_adapter_and_held_out_figures(runs):
    one, two = (load_file(run / "checkpoints" / "step-000006" / "adapter_model.safetensors") for run in runs.values())
    assert one.keys() == two.keys() and all(torch.allclose(one[name], two[name], atol=1e-3) for name in one)
    for a, b in zip(*(rows(run, "curve.jsonl") for run in runs.values()), strict=True):
        assert a == pytest.approx(b, abs=5e-3)
    reports = [json.loads((run / "report.json").read_text()) for run in runs.values()]
    for a, b in zip(*(report["lens"] + report["sources"] for report in reports), strict=True):
        assert a["real"]["estimate"] == pytest.approx(b["real"]["estimate"], abs=5e-3)


def test_another_number_of_processes_than_the_recipes_is_refused(recipe, tmp_path):
    found = start([sys.executable, "-m"], recipe, tmp_path / "run", "--set", "optimizer.processes=2")
    assert found.returncode == 2 and "2 processes, and 1 started" in found.stderr and "torchrun" in found.stderr
    assert "Traceback" not in found.stderr and not (tmp_path / "run").exists()
