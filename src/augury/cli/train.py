"""`augury train`: from a recipe to an oracle with its report."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.bars import shown_bars
from augury.cli.common import INTERRUPTED, say, stdout, working, write_json
from augury.cli.options import AsJson
from augury.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from augury.train.costs import Costs
    from augury.train.metrics import StepReport
    from augury.train.recipe import Recipe


def train(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (YAML).", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="A new folder for the run.")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with this run; its own recipe is used.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Laid over the recipe; several times.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A data set that `augury data build` made; else RUN/data.")
    ] = None,
    reader: Annotated[
        bool, typer.Option("--reader", help="Train a reader: text in place of activations, for the text controls.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would cost.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train an oracle: sample, capture, train, measure, save. Ctrl-C ends it after a checkpoint.

    \b
    augury train recipes/smollm2.yaml -o runs/mine --set optimizer.examples=16000
    augury train --resume runs/mine
    augury train --reader mine.yaml -o runs/reader
    augury train mine.yaml --data data/mine -o runs/mine
    """
    from augury.train.costs import estimate
    from augury.train.recipe import read_recipe

    run = _run_folder(recipe, out, resume, dry_run)
    laid_over = [*(settings or ()), *(["reads=text"] if reader else [])]
    found = read_recipe(recipe or _kept_recipe(resume), laid_over)
    if data is not None:
        found = found.model_copy(update={"data": data.resolve()})
    from augury.train.checks import check_unloaded
    from augury.train.prepare import DATA

    check_unloaded(found, found.data or (run / DATA if run else None))
    with working("reckoning the costs"):
        costs = estimate(found, run)
    if dry_run:
        _show_costs(costs, found, as_json)
        return
    assert run is not None  # only a dry run goes without
    _train(found, run, resume is not None, costs, as_json)


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
    path = Path(run or "") / "config.yaml"
    if not path.is_file():
        raise NotFoundError(f"There is no run in {run}.", "it holds no config.yaml", "start one with -o")
    return path


def _show_costs(costs: Costs, recipe: Recipe, as_json: bool) -> None:
    if as_json:
        write_json({"dry_run": True, "recipe": recipe.name, "model": recipe.model, **costs.to_dict()})
        return
    typer.echo(f"{recipe.name}: {recipe.model}, layers {[list(group) for group in recipe.layers]}")
    for line in costs.lines():
        typer.echo(line)


def _train(recipe: Recipe, run: Path, resume: bool, costs: Costs, as_json: bool) -> None:
    from augury.train.curve import curve_at
    from augury.train.finish import finish_run
    from augury.train.page import write_page
    from augury.train.ranks import needs_processes, started
    from augury.train.run import Progress, one_run, prepare_run, start_run, train_run

    ranks = started()
    needs_processes(ranks, recipe.optimizer.processes)
    for line in costs.lines() if ranks.first else ():
        say(line)
    with (
        one_run(run, ranks),
        shown_bars(ranks.first) as bars,
    ):  # held to the end: no other may change the recipe between
        if ranks.first:
            start_run(recipe, run, resume)
        prepared = prepare_run(recipe, run, Progress(phase=bars.phase), ranks)
        measure = curve_at(recipe, prepared, run, ranks)
        with stopping() as stopped:

            def measured(report: StepReport, resumed: bool = False) -> None:
                if measure(report, resumed) and ranks.first:
                    write_page(run, recipe, prepared.contract)

            def step(report: StepReport) -> None:
                bars.step(report)
                measured(report)

            progress = Progress(bars.phase, step, stopped.is_asked, lambda report: measured(report, resumed=True))
            contract = train_run(recipe, run, prepared, progress, ranks)
        done = contract.trained_on.steps if contract.trained_on else None
        if done != recipe.optimizer.steps:
            bars.close()
            _show_stopped(run, done, recipe.optimizer.steps, as_json and ranks.first)
        oracle = finish_run(recipe, run, prepared, contract, progress=bars.phase, ranks=ranks)
    if ranks.first:
        _show_end(run, oracle, done, as_json)


def _show_stopped(run: Path, done: int | None, steps: int, as_json: bool) -> None:
    say(f"stopped after step {done} of {steps}; go on with `augury train --resume {run}`")
    if as_json:
        write_json({"run": str(run), "stopped": True, "steps": done})
    raise typer.Exit(INTERRUPTED)


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
def stopping() -> Iterator[_Stop]:
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
