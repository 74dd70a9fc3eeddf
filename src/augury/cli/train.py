"""`augury train`: from a recipe to an oracle with its report."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augury.cli.common import INTERRUPTED, say, stderr, stdout, working, write_json
from augury.cli.options import AsJson
from augury.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from augury.train.costs import Costs
    from augury.train.metrics import StepReport
    from augury.train.recipe import Recipe

SMOOTHING = 0.97  # of the loss shown: about the last 33 steps


def train(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (YAML).", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="A new folder for the run.")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with this run; its own recipe is used.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Laid over the recipe; several times.")
    ] = None,
    curve: Annotated[
        int, typer.Option(metavar="STEPS", min=0, help="Measure a small held-out sample this often (0: never).")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would cost.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train an oracle: sample, capture, train, measure, save. Ctrl-C ends it after a checkpoint.

    \b
    augury train recipes/smollm2.yaml -o runs/mine --set optimizer.examples=16000 --curve 200
    augury train --resume runs/mine
    """
    from augury.train.costs import estimate
    from augury.train.recipe import read_recipe

    run = _run_folder(recipe, out, resume, dry_run)
    found = read_recipe(recipe or _kept_recipe(resume), list(settings or ()))
    with working("reckoning the costs"):
        costs = estimate(found, run)
    if dry_run:
        _show_costs(costs, found, as_json)
        return
    for line in costs.lines():
        say(line)
    assert run is not None  # only a dry run goes without
    _train(found, run, resume is not None, curve, as_json)


def _run_folder(recipe: Path | None, out: Path | None, resume: Path | None, dry_run: bool) -> Path | None:
    if recipe is None and resume is None:
        why = "neither a recipe nor --resume was given"
        raise InputError("There is nothing to train.", why, "pass recipes/NAME.yaml -o RUN, or --resume RUN")
    if out is not None and resume is not None and out != resume:
        why = f"--resume goes on in {resume} and -o names {out}"
        raise InputError("Two folders were named for one run.", why, "leave -o out")
    if recipe is not None and resume is not None:
        why = f"--resume goes on by the recipe that {resume} holds, and {recipe} would be another"
        raise InputError(
            "Two recipes were named for one run.", why, "leave the recipe out; --set changes single values"
        )
    if out is None and resume is None and not dry_run:
        raise InputError("There is no folder for the run.", "-o was not given", "pass -o RUN")
    return resume or out


def _kept_recipe(run: Path | None) -> Path:
    path = Path(run or "") / "recipe.json"
    if not path.is_file():
        raise NotFoundError(f"There is no run in {run}.", "it holds no recipe.json", "start one with -o")
    return path


def _show_costs(costs: Costs, recipe: Recipe, as_json: bool) -> None:
    if as_json:
        write_json({"dry_run": True, "recipe": recipe.name, "model": recipe.model, **costs.to_dict()})
        return
    typer.echo(f"{recipe.name}: {recipe.model}, layers {[list(group) for group in recipe.layers]}")
    for line in costs.lines():
        typer.echo(line)


def _train(recipe: Recipe, run: Path, resume: bool, curve: int, as_json: bool) -> None:
    from augury.train.curve import curve_every
    from augury.train.report import finish_run
    from augury.train.run import Progress, one_run, prepare_run, start_run, train_run

    with one_run(run), _shown() as shown:  # held to the end: between its parts no other process may change the recipe
        start_run(recipe, run, resume)
        prepared = prepare_run(recipe, run, Progress(phase=shown.phase))
        measure = curve_every(curve, prepared, run)
        with _stopping() as stopped:

            def step(report: StepReport) -> None:
                shown.step(report)
                measure(report)

            contract = train_run(recipe, run, prepared, Progress(shown.phase, step, stopped.is_asked))
        done = contract.trained_on.steps if contract.trained_on else None
        if stopped.asked and done != shown.steps:
            shown.close()
            say(f"stopped after step {done} of {shown.steps}; go on with `augury train --resume {run}`")
            if as_json:
                write_json({"run": str(run), "stopped": True, "steps": done})
            raise typer.Exit(INTERRUPTED)
        oracle = finish_run(recipe, run, prepared, contract, progress=shown.phase)
    _show_end(run, oracle, done, as_json)


def _show_end(run: Path, oracle: Path, steps: int | None, as_json: bool) -> None:
    report = run / "report.md"
    if as_json:
        write_json({"run": str(run), "oracle": str(oracle), "steps": steps, "report": str(report)})
        return
    from rich.markdown import Markdown

    console = stdout()
    text = report.read_text(encoding="utf-8")
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        typer.echo(text)
    typer.echo(f"oracle: {oracle}")


class _Stop:
    """Whether the run was asked to end after this step."""

    def __init__(self) -> None:
        self.asked = False

    def is_asked(self) -> bool:
        return self.asked

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        say("ending after a checkpoint; once more to end at once")


@contextmanager
def _stopping() -> Iterator[_Stop]:
    """The first Ctrl-C (or SIGTERM) asks, the second interrupts."""
    stop = _Stop()
    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(number, stop.ask) for number in signals]
    except ValueError:  # signals are the main thread's; elsewhere there are none to catch
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


class _Bars:
    """One bar a phase, and under it the smoothed loss of each task in nats per token."""

    def __init__(self, bar: Any) -> None:
        self.bar, self.task, self.named = bar, None, ""
        self.losses: dict[str, float] = {}
        self.steps: int | None = None

    def phase(self, phase: str, done: int, total: int) -> None:
        if phase != self.named:
            self._begin(phase, total)
        self._update(done, total, "")

    def step(self, report: StepReport) -> None:
        self.steps = report.steps
        for task, loss in report.losses.items():
            self.losses[task] = SMOOTHING * self.losses.get(task, loss) + (1 - SMOOTHING) * loss
        if self.named != "training":
            self._begin("training", report.steps)
        self._update(report.step, report.steps, "  ".join(f"{task} {loss:.2f}" for task, loss in self.losses.items()))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def _begin(self, phase: str, total: int) -> None:
        self.named = phase
        if self.bar is not None:
            self.task = self.bar.add_task(phase, total=total, losses="")

    def _update(self, done: int, total: int, losses: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, losses=losses)


@contextmanager
def _shown() -> Iterator[_Bars]:
    """Bars on stderr in a terminal, nothing in a pipe."""
    console = stderr()
    if not console.is_terminal:
        yield _Bars(None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[losses]}"), console=console) as bar:
        yield _Bars(bar)
