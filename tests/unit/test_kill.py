"""A run that is killed at any moment goes on, and ends with bitwise the adapter of one that was not."""

from __future__ import annotations

import multiprocessing
import random
import time
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from augury.data.bank import topics
from augury.data.contexts import RolloutSettings
from augury.train import prepare as prepare_room
from augury.train.metrics import read_metrics
from augury.train.recipe import Recipe
from augury.train.run import Progress, prepare_run, start_run, train_run
from tests.tiny import tiny_lm
from tests.training import recipe

KILLS = 20
STEPS = 120
PER_KILL = 4  # no kill lets more steps through, so that a fast machine is not done before the last


def small_run(seed: int = 0) -> Recipe:
    settings = {"examples": 4 * STEPS, "checkpoint_every": 1, "seed": seed}
    found = recipe(**settings)
    lora = found.lora.model_copy(update={"dropout": 0.1})
    answers = RolloutSettings(train=8, heldout=2, max_new_tokens=16, batch_size=4)
    return found.model_copy(update={"contexts": {"answers": answers}, "lora": lora, "evaluations": 0})


def whole_run(run: Path) -> None:
    """Everything but the report, from wherever it was cut off."""
    torch.set_num_threads(1)
    found, lm = small_run(), tiny_lm()
    prepare_room.load_model = lambda name: lm  # type: ignore[assignment]
    start_run(found, run, resume=(run / "config.yaml").exists())
    train_run(found, run, prepare_run(found, run, Progress()), Progress())


def started(run: Path) -> ForkProcess:
    process = multiprocessing.get_context("fork").Process(target=whole_run, args=(run,))
    process.start()
    return process


def steps(run: Path) -> int:
    return len(read_metrics(run))


def wait_for(process: ForkProcess, run: Path, count: int, seconds: float = 60.0) -> None:
    """Until so many steps are done, the time is over, or the process has ended."""
    end = time.monotonic() + seconds
    while process.exitcode is None and steps(run) < count and time.monotonic() < end:
        process.join(0.002)


def finished(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{STEPS:06d}" / "adapter_model.safetensors")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_run_killed_at_twenty_moments_ends_bitwise_as_one_that_was_not(tmp_path):
    topics()  # read once, before the forks
    process = started(tmp_path / "whole")
    process.join()
    assert process.exitcode == 0
    rng, reached = random.Random(0), []
    for kill in range(KILLS):
        process = started(tmp_path / "cut")
        most = PER_KILL * (kill + 1)
        if kill < 5:  # while data and activations are made
            wait_for(process, tmp_path / "cut", most, rng.uniform(0.05, 1.0))
        else:  # in a step, in a checkpoint, or while the newest one is read
            wait_for(process, tmp_path / "cut", min(most, steps(tmp_path / "cut") + rng.randint(0, 2)))
            wait_for(process, tmp_path / "cut", most, rng.uniform(0.0, 0.15))
        assert process.exitcode is None, f"it was done before kill {kill}, at steps {reached}"
        process.kill()
        process.join()
        reached.append(steps(tmp_path / "cut"))
    assert len(set(reached)) > 5, f"killed at too few places: {reached}"
    process = started(tmp_path / "cut")
    process.join()
    assert process.exitcode == 0
    a, b = finished(tmp_path / "whole"), finished(tmp_path / "cut")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    losses = [[row.loss for row in read_metrics(tmp_path / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1]
