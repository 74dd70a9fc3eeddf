"""A run of the bench in the terminal: every task's figure beside its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from augury.cli.common import stdout

if TYPE_CHECKING:
    from augury.bench.compare import Compared

RATERS = ("oracle", "none", "shuffled", "text-window", "text-all", "untrained", "probe")


def show_summary(found: Mapping[str, Any]) -> None:
    """The table of a summary, and what it rests on."""
    from rich.table import Column, Table

    from augury.bench.words import headline, items_of, lead_of, measure_of, remarks

    numbers = [Column(name, justify="right") for name in ("items (problems)", "chance", *RATERS)]
    shown = Table(Column("task", no_wrap=True), "measure", *numbers, Column("oracle less a reader", justify="right"))
    told = []
    for name, task in found["tasks"].items():
        for measure, figures in task["measures"].items():
            chance = "" if figures["chance"] is None else f"{figures['chance']:.2f}"
            cells = [_figure(figures["raters"].get(rater), interval=rater == RATERS[0]) for rater in RATERS]
            lead = _figure(figures["leads"].get(lead_of(task)), signed=True)
            shown.add_row(name, measure_of(measure, figures), items_of(figures), chance, *cells, lead)
        told += remarks(name, task)
    console = stdout()
    console.print(shown)
    for line in [*told, *headline(found)]:
        console.print(line, highlight=False)
    if not found["oracle"]["reader"]:
        told = "the text is read by the plain base: a small one cannot answer questions, and to beat it proves little"
        console.print(told, highlight=False)


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
        return "not comparable: other items, target, organisms or judge"
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return "within noise"
    if row.better == 0:
        return "B has more" if found.estimate > 0 else "A has more"
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
