"""The pictures of a run's report, as SVG that needs nothing else."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from augury.bench.engine import COLUMNS, ORACLE
from augury.bench.marks import AUC, BOUNDS, RATE, SCALE
from augury.oracle.plot import need_matplotlib

Figures = Mapping[str, Any]
SHADES = ("#2a9d5c", "#e9c46a", "#e07a5f", "#9aa0a6", "#6d6875")  # from right to wrong


def forest(summary: Mapping[str, Any]) -> str:
    """Every task from 0 to 1 with its controls, one line each; a judge's scales from their worst to their best."""
    rows = [
        (f"{name}: {measure}", found)
        for name, task in summary["tasks"].items()
        for measure, found in task["measures"].items()
        if found["kind"] in (AUC, RATE, SCALE)
    ]
    if not rows:
        return ""
    axes, finish = _axes(8, 0.62 * len(rows) + 0.8)
    for place, (_, found) in enumerate(rows):
        for step, rater in enumerate(COLUMNS):
            if value := found["raters"].get(rater):
                estimate, low, high = (_on_scale(found["kind"], end) for end in _ends(value))
                y = place + 0.1 * (step - 3)
                axes.plot([low, high], [y, y], color=f"C{step}", lw=2.2 if rater == ORACLE else 1.1)
                axes.plot([estimate], [y], "o", color=f"C{step}", ms=5 if rater == ORACLE else 3)
        if found["chance"] is not None:
            axes.plot([found["chance"]] * 2, [place - 0.4, place + 0.4], color="#888", lw=0.8, ls=":")
    for step, rater in enumerate(COLUMNS):
        if any(found["raters"].get(rater) for _, found in rows):
            axes.plot([], [], "o-", color=f"C{step}", ms=4, label=rater)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=7, frameon=False)
    return finish()


def _ends(value: Figures) -> tuple[float, float, float]:
    """The estimate and its interval; where it has none, itself."""
    estimate = value["estimate"]
    return estimate, *((value["low"], value["high"]) if value["low"] is not None else (estimate, estimate))


def _on_scale(kind: str, value: float) -> float:
    low, high = BOUNDS[SCALE] if kind == SCALE else (0.0, 1.0)  # type: ignore[misc]
    return (value - low) / (high - low)


def lines(label: str, names: Sequence[str], values: Sequence[Figures], chance: float | None, rising: bool) -> str:
    """The oracle with its interval and each control over some steps, joined where these rise; else side by side."""
    axes, finish = _axes(5 if rising else max(5.0, 0.75 * len(names)), 2.4)
    for step, rater in enumerate(COLUMNS):
        known = [(x, _ends(found[rater])) for x, found in enumerate(values) if found.get(rater)]
        if not known:
            continue
        xs = [x if rising else x + 0.08 * (step - 3) for x, _ in known]
        ys, lows, highs = zip(*(ends for _, ends in known), strict=True)
        width, size = (2, 5) if rater == ORACLE else (1, 3)
        axes.plot(xs, ys, "o-" if rising else "o", color=f"C{step}", ms=size, lw=width, label=rater)
        if rater == ORACLE:
            axes.vlines(xs, lows, highs, color=f"C{step}", lw=1)
    if chance is not None:
        axes.axhline(chance, color="#888", lw=0.8, ls=":")
        axes.set_ylim(-0.03, 1.03)
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=30 if len(names) > 8 else 0)
    axes.set_xlabel(label, fontsize=8)
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return finish()


def bars(names: Sequence[str], measures: Mapping[str, Any]) -> str:
    """Of each who answered the shares that part all answers: right, vague and wrong beside each other."""
    raters = [rater for rater in COLUMNS if all(measures[name]["raters"].get(rater) for name in names)]
    axes, finish = _axes(6, 0.3 * len(raters) + 0.8)
    left = [0.0] * len(raters)
    for step, name in enumerate(names):
        shares = [measures[name]["raters"][rater]["estimate"] for rater in raters]
        axes.barh(range(len(raters)), shares, left=left, color=SHADES[step % len(SHADES)], label=name)
        left = [one + more for one, more in zip(left, shares, strict=True)]
    axes.set_yticks(range(len(raters)), raters, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(names), frameon=False)
    return finish()


def reliability(found: Sequence[Figures]) -> str:
    """Confidence against how often it is right, with the share of answers in each bin as the size of its dot."""
    axes, finish = _axes(4, 3)
    axes.plot([0, 1], [0, 1], color="#888", lw=0.8, ls=":")
    for step, one in enumerate(found):
        xs, ys = ([row[name] for row in one["bins"]] for name in ("confidence", "accuracy"))
        sizes = [160 * row["n"] / one["n"] + 6 for row in one["bins"]]
        axes.plot(xs, ys, color=f"C{step}", lw=1, label=f"{one['confidence']}, ECE {one['ece']:.2f}")
        axes.scatter(xs, ys, s=sizes, color=f"C{step}")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("confidence", fontsize=8)
    axes.set_ylabel("share that is right", fontsize=8)
    axes.legend(fontsize=7, frameon=False)
    return finish()


def _axes(width: float, height: float):
    """Axes to draw on, and what gives them as SVG."""
    need_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)

    def finish() -> str:
        out = io.StringIO()
        with rc_context({"svg.hashsalt": "augury"}):  # the same page from the same answers
            figure.savefig(out, format="svg", metadata={"Date": None})
        return out.getvalue()[out.getvalue().index("<svg") :]

    return axes, finish
