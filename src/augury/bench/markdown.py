"""A run's summary as Markdown, for a README or a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augury.oracle.controls import NONE, SHUFFLED, TEXT_ALL

SHOWN = ("oracle", NONE, SHUFFLED, TEXT_ALL)


def markdown(summary: Mapping[str, Any]) -> str:
    """Every task's first measure beside the controls that say most, and what could not be measured."""
    lines = [
        f"| task | measure | items | {' | '.join(SHOWN)} | oracle less {TEXT_ALL} |",
        f"|---|---|---|{'---|' * (len(SHOWN) + 1)}",
    ]
    missing = []
    for name, task in summary["tasks"].items():
        if not task["measures"]:
            missing.append(f"- {name}: {task['not measurable'] or 'not judged'}")
            continue
        measure, found = next(iter(task["measures"].items()))
        cells = [_figure(found["raters"].get(rater), interval=rater == "oracle") for rater in SHOWN]
        lead = _figure(found["leads"].get(TEXT_ALL), interval=True, signed=True)
        lines.append(f"| {name} | {measure} | {found['counted']} | {' | '.join(cells)} | {lead} |")
    parts = ["\n".join(lines), "\n".join(missing)]
    if summary["headline"] is not None:
        parts.insert(0, f"Read-or-infer, from 0 (chance) to 1: {summary['headline']:.2f}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _figure(value: Mapping[str, Any] | None, interval: bool, signed: bool = False) -> str:
    if value is None:
        return "-"
    form = "{:+.2f}" if signed else "{:.2f}"
    told = form.format(value["estimate"])
    if not interval or value["low"] is None:
        return told
    return f"{told} [{form.format(value['low'])}, {form.format(value['high'])}]"
