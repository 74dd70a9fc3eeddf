"""A training run in one folder: data, activations, adapter, report, oracle. Every part resumes by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from augury.contract import Contract
from augury.data.sources.questions import QuestionSettings
from augury.errors import AuguryError, InputError, NotFoundError
from augury.files import locked, write_text
from augury.oracle.plot import need_matplotlib
from augury.train.loop import ADAPTER, train_adapter
from augury.train.metrics import StepReport, read_metrics
from augury.train.page import write_page
from augury.train.prepare import Prepared, prepare
from augury.train.provenance import counted, described, write_environment
from augury.train.question_report import BINARY
from augury.train.ranks import ALONE, Ranks
from augury.train.recipe import Recipe, read_recipe
from augury.train.start import begin_with

CONFIG = "config.yaml"


@dataclass(frozen=True)
class Progress:
    """Where a run tells how far it is: (phase, done, total), every training step, and, where a run goes on, the last
    step that was done before."""

    phase: Callable[[str, int, int | None], None] = lambda phase, done, total: None
    step: Callable[[StepReport], None] = lambda report: None
    stop: Callable[[], bool] = lambda: False
    resumed: Callable[[StepReport], None] = lambda report: None


def start_run(recipe: Recipe, run: Path, resume: bool = False) -> None:
    """Claim the folder of a run: its recipe is kept there and may not change on a resume, but for the total.

    Raises:
        AuguryError: The closing report needs scikit-learn or matplotlib, which is not installed.
        InputError: The folder holds a run already and `resume` is false, or of another recipe, or it is worked on.
        NotFoundError: There is no run to resume.
        StorageError: The folder cannot be written.
    """
    _check_probe(recipe)
    need_matplotlib("The run's report")
    path = run / CONFIG
    if resume and not path.is_file():
        raise NotFoundError(f"There is no run in {run}.", f"it holds no {CONFIG}", "start one with -o")
    with one_run(run):
        if path.exists():
            _check_same(recipe, run, path, resume)
        write_text(path, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))


def _check_same(recipe: Recipe, run: Path, path: Path, resume: bool) -> None:
    if not resume:
        raise InputError(
            f"{run} holds a run already.", f"its {CONFIG} is there", f"go on with `augury train --resume {run}`"
        )
    kept = read_recipe(path)
    if _comparable(kept) != _comparable(recipe):
        raise InputError(
            f"{run} was started with another recipe.",
            f"only evaluations, report and {', '.join(f'optimizer.{name}' for name in CHANGEABLE)} may change",
            "name a new folder with -o",
        )
    _check_prolonged(kept, recipe, run)


def _check_prolonged(kept: Recipe, recipe: Recipe, run: Path) -> None:
    """Once the learning rate falls, a larger total would make it jump up again."""
    old, new = kept.optimizer, recipe.optimizer
    done, falls = len(read_metrics(run)), old.steps - max(1, round(old.decay * old.steps))
    if new.steps != old.steps and done > falls:
        raise InputError(
            f"{run} cannot be given another length.",
            f"{done} steps are done, and the learning rate falls from step {falls} on",
            "begin a new run with init_from, or prolong a run before its decay",
        )


def _check_probe(recipe: Recipe) -> None:
    """The report stands at the end: what it lacks is told before hours of training."""
    asking = [source for source in recipe.sources.values() if isinstance(source, QuestionSettings)]
    binary = sorted({kind for source in asking for kind in source.yes_no} & BINARY.keys())
    if binary and find_spec("sklearn") is None:
        raise AuguryError(
            "The closing report cannot be made.",
            f"the linear probe beside {', '.join(binary)} needs scikit-learn, which is not installed",
            "pip install 'augury[train]', or take these kinds out of yes_no in the recipe",
        )


CHANGEABLE = (
    "examples", "decay", "checkpoint_every", "autocast", "pass_tokens", "processes", "share_prefix",
    "gradient_checkpointing",
)  # fmt: skip


def _comparable(recipe: Recipe) -> dict[str, Any]:
    found = recipe.model_dump(mode="json")
    for name in CHANGEABLE:
        found["optimizer"].pop(name)
    del found["evaluations"], found["report"]
    return found


def prepare_run(recipe: Recipe, run: Path, progress: Progress, ranks: Ranks = ALONE) -> Prepared:
    """Build or find the run's data and its activations; see `prepare`."""
    with one_run(run, ranks):
        return prepare(recipe, run, progress.phase, ranks)


def train_run(recipe: Recipe, run: Path, prepared: Prepared, progress: Progress, ranks: Ranks = ALONE) -> Contract:
    """Train, or go on training; returns the contract with what it was trained on."""
    lm = prepared.lm
    with one_run(run, ranks):
        contract = described(prepared.contract, recipe, lm, prepared.fingerprint)
        if ranks.first:
            write_environment(run, recipe, lm)
        train_adapter(
            lm, contract, recipe, prepared.data, run,
            ranks=ranks, start=_start(recipe, prepared, contract), on_step=progress.step, on_resume=progress.resumed,
            stop=progress.stop,
        )  # fmt: skip
        contract = counted(contract, read_metrics(run))
        if ranks.first:
            write_text(run / "oracle.json", contract.model_dump_json(indent=1) + "\n")
            write_page(run, recipe, contract)
        return contract


def _start(recipe: Recipe, prepared: Prepared, contract: Contract) -> Callable[[], None] | None:
    source = recipe.init_from
    return None if source is None else lambda: begin_with(source, prepared.lm, recipe.lora, contract, ADAPTER)


@contextmanager
def one_run(run: Path, ranks: Ranks = ALONE) -> Iterator[None]:
    """Only one run works in a folder; what holds the lock may take it again. Its first process holds it for all.

    Raises:
        InputError: Another process works there.
        StorageError: The folder cannot be written.
    """
    if not ranks.first:
        yield
        return
    why = "another process holds its lock"
    busy = InputError(f"{run} is being worked on already.", why, "wait for it, or choose another -o")
    with locked(run.resolve() / ".lock", busy):
        yield
