"""`augury train` in process on a tiny model: costs told first, a run that stops and resumes, refusals."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock, Timeout

from augury.cli.bars import Bars
from augury.oracle.save import save_oracle
from augury.train.loop import ADAPTER, lora_config
from augury.train.metrics import read_curve
from augury.train.recipe import read_recipe
from augury.train.run import start_run
from tests.cli.conftest import Invoke, Tiny, one_object, refused

STEPS = 4


@pytest.fixture
def recipe(tiny: Tiny, tmp_path: Path) -> Path:
    found = {
        "name": "tiny",
        "model": str(tiny.model),
        "layers": [[2]],
        "contexts": {"answers": {"type": "rollouts", "train": 8, "heldout": 4, "max_new_tokens": 24, "batch_size": 8}},
        "sources": {
            "lens": {"type": "lens", "contexts": "answers", "k": 8, "heldout": 8},
            "asked": {"type": "questions", "contexts": "answers", "pairs": 0, "heldout": 8},
        },
        "lora": {"rank": 2, "alpha": 4},
        "optimizer": {"examples": 4 * STEPS, "batch_size": 4, "pool": 2, "checkpoint_every": 3, "learning_rate": 0.01},
        "stages": [{"until": 1.0, "weights": {"lens": 2, "asked": 1}}],
        "evaluations": 0,
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(found))
    return path


@pytest.fixture
def short_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The closing report asks thousands of questions: here only its files are made."""

    def finish(recipe: Any, run: Path, prepared: Any, contract: Any, progress: Callable[..., None], ranks: Any) -> Path:
        progress("report", 0, 1)
        (run / "report.md").write_text("### Lens loss\n")
        return save_oracle(prepared.lm, ADAPTER, lora_config(recipe), contract, run / "oracle")

    monkeypatch.setattr("augury.train.finish.finish_run", finish)


def steps_done(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("short_report")
def test_a_run_ends_in_an_oracle_that_answers(tiny: Tiny, invoke: Invoke, recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = invoke("train", recipe, "-o", run)
    assert result.exit_code == 0, result.output
    assert "steps" in result.stderr and "tokens" in result.stderr and "memory" in result.stderr
    assert "### Lens loss" in result.stdout and f"oracle: {run / 'oracle'}" in result.stdout
    assert steps_done(run) == list(range(1, STEPS + 1))
    data = json.loads((run / "data" / "data.json").read_text())
    env = json.loads((run / "env.json").read_text())
    checkpoint = json.loads((run / "checkpoints" / "step-000004" / "oracle.json").read_text())
    assert checkpoint["trained_on"]["data_fingerprint"] == data["fingerprint"]
    assert checkpoint["weights_fingerprint"] == env["model"]["weights_fingerprint"]
    arguments = ["--model", tiny.model, "--oracle", run / "oracle", "--json"]
    assert one_object(invoke("ask", "tea tea", "-q", "What is this about?", *arguments))["layers"] == [2]


@pytest.mark.usefixtures("short_report")
def test_ctrl_c_ends_after_a_checkpoint_and_resume_goes_on(
    invoke: Invoke, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told = tmp_path / "run", Bars.step

    def step(self: Bars, report: Any) -> None:
        told(self, report)
        if report.step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Bars, "step", step)
    before = signal.getsignal(signal.SIGINT)
    stopped = invoke("train", recipe, "-o", run)
    assert stopped.exit_code == 130, stopped.output
    assert f"augury train --resume {run}" in stopped.stderr and "stopped after step 2 of 4" in stopped.stderr
    assert signal.getsignal(signal.SIGINT) is before
    assert steps_done(run) == [1, 2] and (run / "checkpoints" / "step-000002" / "state.json").is_file()
    monkeypatch.setattr(Bars, "step", told)
    found = one_object(invoke("train", "--resume", run, "--json"))
    assert found["steps"] == STEPS and steps_done(run) == [1, 2, 3, 4]
    assert Path(found["oracle"], "oracle.json").is_file()


@pytest.mark.usefixtures("short_report")
def test_the_learning_curve_is_appended_to(
    invoke: Invoke, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augury.train.curve.measure_once", lambda prepared, size, ranks: {"past_lens gap": 0.5})
    run = tmp_path / "run"
    assert invoke("train", recipe, "-o", run, "--set", "evaluations=2").exit_code == 0
    assert (run / "curve.jsonl").read_text().splitlines() == [
        '{"step": 2, "past_lens gap": 0.5}',
        '{"step": 4, "past_lens gap": 0.5}',
    ]


@pytest.mark.usefixtures("short_report")
def test_a_run_that_was_killed_while_it_measured_measures_when_it_goes_on(
    invoke: Invoke, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = tmp_path / "run", []

    def killed(prepared: Any, size: Any, ranks: Any) -> dict[str, float]:
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return {"past_lens gap": float(len(asked))}

    monkeypatch.setattr("augury.train.curve.measure_once", killed)
    settings = ["--set", "evaluations=2", "--set", "optimizer.checkpoint_every=1"]
    assert invoke("train", recipe, "-o", run, *settings).exit_code != 0
    assert (run / "checkpoints" / "step-000004").is_dir() and len(read_curve(run)) == 1
    for _ in range(2):
        assert invoke("train", "--resume", run).exit_code == 0
    assert [row["step"] for row in read_curve(run)] == [2, 4] and len(asked) == 3


def test_a_reader_does_not_begin_with_an_oracle(invoke: Invoke, recipe: Path, tmp_path: Path) -> None:
    told = "a reader does not begin with an oracle"
    refused(invoke("train", "--reader", recipe, "-o", tmp_path / "run", "--set", "init_from=smollm2"), 1, told)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_costs_nothing(invoke: Invoke, recipe: Path, tmp_path: Path) -> None:
    found = one_object(invoke("train", recipe, "--dry-run", "--set", "optimizer.examples=1001", "--json"))
    assert found["examples"] == 1001 and found["steps"] == 251  # of 4 examples, the last one short
    assert found["rollout_tokens"] == 12 * 24
    assert found["memory_bytes"] > 4 * 100_000 and found["seconds"] > 0 and found["measured"] is False
    result = invoke("train", recipe, "-o", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0 and "about" in result.stdout and not (tmp_path / "run").exists()


@pytest.mark.usefixtures("short_report")
def test_a_run_that_is_worked_on_keeps_its_recipe(invoke: Invoke, recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start_run(read_recipe(recipe), run)
    before = (run / "config.yaml").read_bytes()
    with FileLock(run / ".lock"):
        refused(invoke("train", "--resume", run, "--set", "optimizer.examples=800"), 2, "being worked on")
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.usefixtures("short_report")
def test_a_run_is_held_from_its_recipe_to_its_oracle(
    invoke: Invoke, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, free = tmp_path / "run", []

    def look(*_: Any) -> None:
        try:
            FileLock(run / ".lock", timeout=0).acquire()
            free.append(True)
        except Timeout:
            free.append(False)

    monkeypatch.setattr(Bars, "phase", look)
    monkeypatch.setattr(Bars, "_begin", look)
    assert invoke("train", recipe, "-o", run).exit_code == 0
    assert len(free) > 3 and not any(free)


def test_refusals(invoke: Invoke, recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    refused(invoke("train", tmp_path / "no.yaml", "-o", run), 1, "no recipe")
    refused(invoke("train", recipe), 2, "-o RUN")
    refused(invoke("train", "--resume", run), 1, "no run")
    refused(invoke("train", recipe, "-o", run, "--resume", tmp_path / "other"), 2, "Two folders")
    refused(invoke("train", recipe, "-o", run, "--set", "optimizer.exmaples=3"), 1, "exmaples")
    refused(invoke("train", recipe, "-o", run, "--set", "nonsense"), 1, "'='")
    refused(invoke("train", recipe, "--resume", run), 2, "Two recipes", "--set")
    recipe.write_text("name: [")
    refused(invoke("train", recipe, "-o", run), 1, "no YAML")
    assert not run.exists()
