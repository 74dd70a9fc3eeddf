"""A run of the bench in the terminal: every task's figure beside its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from augury.cli.common import stdout

if TYPE_CHECKING:
    from augury.bench.compare import Compared

RATERS = ("oracle", "none", "shuffled", "text-window", "text-all", "untrained", "probe")
LEAD = "text-all"


def show_summary(found: Mapping[str, Any]) -> None:
    """The table of a summary, and what it rests on."""
    from rich.table import Column, Table

    numbers = [Column(name, justify="right") for name in RATERS]
    shown = Table(
        Column("task", no_wrap=True), "measure", Column("items", justify="right"), *numbers,
        Column(f"oracle less {LEAD}", justify="right"),
    )  # fmt: skip
    missing = []
    for name, task in found["tasks"].items():
        if task["not measurable"]:
            missing.append(f"{name}: not measurable on this model, since {task['not measurable']}")
        elif not task["measures"]:
            missing.append(f"{name}: not judged")
        for measure, figures in task["measures"].items():
            cells = [_figure(figures["raters"].get(rater), interval=rater == RATERS[0]) for rater in RATERS]
            lead = _figure(figures["leads"].get(LEAD), signed=True)
            shown.add_row(name, measure, str(figures["counted"]), *cells, lead)
        if task.get("strength at 75%") is not None:
            strength = f"{task['strength at 75%']:.3f} of the residual norm"
            told = f"three of four pairs are told apart from at most {strength} on"
            missing.append(f"{name}: {told}")
        missing += _remarks(name, task)
    console = stdout()
    console.print(shown)
    for line in missing:
        console.print(line, highlight=False)
    if found["headline"] is not None:
        console.print(f"read-or-infer, from 0 (chance) to 1: {found['headline']:.2f}", highlight=False)
    mean = found["aobench"]
    if mean["value"] is not None:
        lacks = f" (it lacks {', '.join(mean['missing'])})" if mean["missing"] else ""
        console.print(f"AObench's aggregate over {len(mean['of'])} tasks: {mean['value']:.2f}{lacks}", highlight=False)
    if not found["oracle"]["reader"]:
        told = "the text is read by the plain base: a small one cannot answer questions, and to beat it proves little"
        console.print(told, highlight=False)


def _remarks(name: str, task: Mapping[str, Any]) -> list[str]:
    """What belongs to a task's figures: the organisms' own knowledge, the judge, and calibration."""
    told = []
    if task.get("known") is not None:
        told.append(f"{name}: the organisms themselves know {task['known']:.0%}; the rest does not count")
    if task.get("judge"):
        judge = task["judge"]
        told.append(f"{name}: judged by {judge['model']}, {judge['failed']} of {judge['answers']} failed")
    told += [
        f"{name}: {one['confidence']} is off by {one['ece']:.2f} on average from how often it is right (ECE)"
        for one in task.get("calibration", ())
    ]
    return told


def show_comparison(names: tuple[str, str], rows: Sequence[Compared]) -> None:
    """Two runs' figures beside each other, with what is noise called so."""
    from rich.table import Column, Table

    numbers = [Column(name, justify="right") for name in ("A", "B", "B less A")]
    shown = Table(Column("task", no_wrap=True), "measure", Column("items", justify="right"), *numbers, "")
    for row in rows:
        plain = row.to_dict()
        cells = [_figure(plain["one"]), _figure(plain["other"]), _figure(plain["difference"], signed=True)]
        shown.add_row(row.task, row.measure, str(row.items), *cells, _verdict(row))
    console = stdout()
    console.print(shown)
    for letter, name in zip("AB", names, strict=True):
        console.print(f"{letter}  {name}", highlight=False)


def _verdict(row: Compared) -> str:
    """Who is ahead, where the interval of the difference leaves no doubt."""
    found = row.difference
    if found is None:
        return "not the same items"
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return "within noise"
    return "B is better" if (found.estimate > 0) == (row.better > 0) else "A is better"


def _figure(value: Mapping[str, Any] | None, signed: bool = False, interval: bool = True) -> str:
    """The estimate, and below it its interval."""
    if value is None:
        return "-"
    form = "{:+.2f}" if signed else "{:.2f}"
    estimate = form.format(value["estimate"])
    if value["low"] is None or not interval:
        return estimate
    return f"{estimate}\n{form.format(value['low'])} to {form.format(value['high'])}"
