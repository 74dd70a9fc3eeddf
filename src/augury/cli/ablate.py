"""`augury ablate`: what each part of a recipe buys."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.common import INTERRUPTED, say, working, write_json
from augury.cli.options import AsJson
from augury.errors import InputError
from augury.files import write_text

if TYPE_CHECKING:
    from augury.train.ablate import Cell, Grid


def ablate(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="A recipe, and the runs that differ from it (YAML).")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="A folder for data, runs and the table.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Laid over the grid's recipe; several times.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would cost.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train several runs that differ in one thing each, on one data set, and compare them example by example.

    Every run resumes by itself: call it again with the same folder after Ctrl-C.

    \b
    augury ablate recipes/ablations/grid.yaml -o runs/ablations --set contexts.corpus.path=texts.jsonl
    augury ablate recipes/ablations/grid.yaml --dry-run --set contexts.corpus.path=texts.jsonl
    """
    from augury.train.ablate import cells_of, read_grid
    from augury.train.checks import check_unloaded
    from augury.train.ranks import ALONE, needs_processes

    found = read_grid(grid)
    cells = cells_of(found, list(settings or ()))
    _show_costs(cells, dry_run and not as_json)
    if dry_run:
        if as_json:
            write_json({"dry_run": True, "runs": [cell.folder for cell in cells]})
        return
    for cell in cells:
        check_unloaded(cell.recipe, cell.recipe.data)
        needs_processes(ALONE, cell.recipe.optimizer.processes)
    if out is None:
        raise InputError("There is no folder for the runs.", "-o was not given", "pass -o DIR")
    if not _run(found, cells, out):
        again = "".join(f" --set {shlex.quote(value)}" for value in settings or ())
        say(f"stopped; go on with `augury ablate {grid} -o {out}{again}`")
        raise typer.Exit(INTERRUPTED)
    _show(found, cells, out, as_json)


def _show_costs(cells: list[Cell], alone: bool) -> None:
    from augury.train.costs import estimate

    with working("reckoning the costs"):
        costs = [estimate(cell.recipe) for cell in cells]
    tell = typer.echo if alone else say
    for cell, cost in zip(cells, costs, strict=True):
        hours = "time not known" if cost.seconds is None else f"about {cost.seconds / 60:.0f} minutes"
        tell(f"{cell.folder:<28}{cost.steps:>7,} steps  {hours}")


def _run(grid: Grid, cells: list[Cell], out: Path) -> bool:
    from augury.cli.bars import shown_bars
    from augury.cli.train import stopping
    from augury.train.ablate import run_grid
    from augury.train.run import Progress, one_run

    with one_run(out), shown_bars(True) as bars, stopping() as stopped:

        def progress(cell: Cell) -> Progress:
            return Progress(
                lambda phase, done, total: bars.phase(f"{cell.folder}: {phase}", done, total),
                lambda report: bars.step(report, f"{cell.folder}: training"),
                stopped.is_asked,
            )

        return run_grid(grid, cells, out, progress, stopped.is_asked)


def _show(grid: Grid, cells: list[Cell], out: Path, as_json: bool) -> None:
    from augury.train.ablate import read_figures
    from augury.train.ablation_table import lines_of, markdown, plot, seed_spread

    measured = read_figures(cells, out)
    lines, spread = lines_of(grid, cells, measured), seed_spread(measured)
    text = markdown(lines, spread)
    write_text(out / "table.md", text)
    write_text(out / "table.json", json.dumps([line.to_dict() for line in lines], indent=1) + "\n")
    plot(lines, out / "table.png")
    if as_json:
        write_json({"lines": [line.to_dict() for line in lines], "seed_spread": spread, "out": str(out)})
        return
    typer.echo(text)
    typer.echo(f"table: {out / 'table.md'}, picture: {out / 'table.png'}")
