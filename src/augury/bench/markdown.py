"""A run's summary as Markdown, for a README or a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augury.bench.words import headline, items_of, lead_of, measure_of, remarks
from augury.oracle.controls import NONE, SHUFFLED, TEXT_ALL

SHOWN = ("oracle", NONE, SHUFFLED, TEXT_ALL)


def markdown(summary: Mapping[str, Any]) -> str:
    """Every task's first measure beside the controls that say most, and what could not be measured."""
    lines = [
        f"| task | measure | items (problems) | {' | '.join(SHOWN)} | oracle less a reader of the text |",
        f"|---|---|---|{'---|' * (len(SHOWN) + 1)}",
    ]
    told = []
    for name, task in summary["tasks"].items():
        told += [f"- {line}" for line in remarks(name, task)]
        if not task["measures"]:
            continue
        measure, found = next(iter(task["measures"].items()))
        cells = [_figure(found["raters"].get(rater), interval=rater == "oracle") for rater in SHOWN]
        lead = _figure(found["leads"].get(lead_of(task)), interval=True, signed=True)
        head = f"| {name} | {measure_of(measure, found)} | {items_of(found)} |"
        lines.append(f"{head} {' | '.join(cells)} | {lead} |")
    first = "\n".join(f"- {line}" for line in headline(summary))
    return "\n\n".join(part for part in (first, "\n".join(lines), "\n".join(told)) if part) + "\n"


def _figure(value: Mapping[str, Any] | None, interval: bool, signed: bool = False) -> str:
    if value is None:
        return "-"
    form = "{:+.2f}" if signed else "{:.2f}"
    told = form.format(value["estimate"])
    if not interval or value["low"] is None:
        return told
    return f"{told} [{form.format(value['low'])}, {form.format(value['high'])}]"
