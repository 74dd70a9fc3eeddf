"""`augury bench`: how far an oracle's answers can be trusted, beside its controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augury.cli.common import guarded, stdout, write_json
from augury.cli.options import AsJson

bench = typer.Typer(no_args_is_help=True, help="How far an oracle's answers can be trusted, beside its controls.")


@bench.command("rescore")
@guarded
def rescore_answers(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Recorded answers: TASK/ORACLE.jsonl.")],
    as_json: AsJson = False,
) -> None:
    """Score recorded AObench answers again, as published: no model, no judge.

    The table has each task's headline figure; --json has every metric by its published name.

    \b
    augury bench rescore recorded/
    augury bench rescore recorded/ --json > metrics.json
    """
    from augury.bench.rescore import HEADLINES, rescore

    found = rescore(folder)
    if as_json:
        write_json(found)
        return
    from rich.table import Column, Table

    oracles = sorted({oracle for by_oracle in found.values() for oracle in by_oracle})
    numbers = [Column(str(number), justify="right") for number in range(1, len(oracles) + 1)]
    shown = Table(Column("task", no_wrap=True), Column("metric", no_wrap=True), *numbers)
    for task, by_oracle in found.items():
        metric = HEADLINES[task]
        shown.add_row(task, metric, *(_figure(by_oracle.get(oracle, {}).get(metric)) for oracle in oracles))
    stdout().print(shown)
    for number, oracle in enumerate(oracles, 1):
        stdout().print(f"{number}  {oracle}", highlight=False)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
