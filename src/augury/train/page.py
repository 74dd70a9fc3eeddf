"""`report.html` of a run: one file without links, to be looked at during a run and after it."""

from __future__ import annotations

import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augury.contract import Contract
from augury.files import write_text
from augury.oracle.card import figure_rows
from augury.oracle.plot import need_matplotlib
from augury.train.metrics import StepReport, read_curve, read_metrics
from augury.train.recipe import Recipe
from augury.train.source_report import CONDITIONS

SMOOTHED = 25  # steps
CLOSE = {"AUC": 0.01, "gap": 0.05}  # that far from the best counts as no improvement any more
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
td,th{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left;vertical-align:top}
svg{max-width:100%;height:auto} .quiet{color:#666} h2{margin-top:2.2rem}
@media (prefers-color-scheme:dark){body{color:#ddd;background:#181818}td,th{border-color:#444}
svg{background:#fff;border-radius:4px}.quiet{color:#999}}
"""


def write_page(run: Path, recipe: Recipe, contract: Contract) -> Path:
    """Put what the run's folder holds so far into its `report.html`.

    Args:
        run: The run's folder, with `metrics.jsonl` and, where they were made, `curve.jsonl` and `report.json`.
        recipe: What it was started with.
        contract: With what the oracle was trained on.

    Raises:
        FormatError: A file of the run is broken.
        StorageError: It cannot be written.
    """
    steps, curve = read_metrics(run), read_curve(run)
    report = json.loads((run / "report.json").read_text(encoding="utf-8")) if (run / "report.json").exists() else {}
    name = html.escape(recipe.name)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><style>{STYLE}</style>",
        f"<h1>{name}</h1><p>{html.escape(_sentence(recipe, contract, steps))}</p>",
        "<h2>Training loss</h2>", _losses(steps),
        *(_curve(curve) if curve else ["<p class=quiet>Nothing was measured during the run.</p>"]),
        "<h2>Throughput</h2>", _throughput(steps),
        *_figures(contract),
        *_samples(report.get("sources", ())),
    ]  # fmt: skip
    path = run / "report.html"
    write_text(path, "\n".join(parts) + "\n")
    return path


def _sentence(recipe: Recipe, contract: Contract, steps: Sequence[StepReport]) -> str:
    trained = contract.trained_on
    data = f" Data: {trained.data}." if trained and trained.data else ""
    done = steps[-1].step if steps else 0
    return f"An oracle for {recipe.model}, layers {contract.layers}; {done} of {recipe.optimizer.steps} steps.{data}"


def _losses(steps: Sequence[StepReport]) -> str:
    sources = sorted({source for step in steps for source in step.losses})
    if not sources:
        return "<p class=quiet>No step was done.</p>"
    lines = {}
    for source in sources:
        own = [(step.step, step.losses[source]) for step in steps if source in step.losses]
        lines[source] = ([x for x, _ in own], _smooth([y for _, y in own]))
    return _chart([("loss of each source, nats (smoothed)", lines)])


def _smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value and those before it, `SMOOTHED` at most."""
    return [sum(values[max(0, i - SMOOTHED + 1) : i + 1]) / min(i + 1, SMOOTHED) for i in range(len(values))]


def _curve(curve: Sequence[Mapping[str, float]]) -> list[str]:
    steps = [row["step"] for row in curve]
    names = [name for name in curve[-1] if name != "step"]
    sources = sorted({name.rsplit(" ", 1)[0] for name in names if name.rsplit(" ", 1)[-1] in CONDITIONS})
    panels = []
    for source in sources:
        lines = {c: (steps, [row.get(f"{source} {c}", float("nan")) for row in curve]) for c in CONDITIONS}
        panels.append((f"{source}: held-out loss", lines))
    out = ["<h2>Held-out loss with its own, another's and no activations</h2>", _chart(panels)] if panels else []
    found = {name: [row.get(name, float("nan")) for row in curve] for name in names if _closeness(name) is not None}
    if found:
        pairs = [
            (kind, {name: (steps, values) for name, values in found.items() if kind in name})
            for kind in CLOSE
            if any(kind in name for name in found)
        ]
        told = "".join(f"<li>{html.escape(stopped(name, steps, values))}</li>" for name, values in found.items())
        out += ["<h2>What it can do</h2>", _chart(pairs), f"<ul>{told}</ul>"]
        out.append("<p class=quiet>Small samples: a difference of a few hundredths is noise. Most of the uplift is "
                   "there early, and a falling loss is no capability.</p>")  # fmt: skip
    return out


def _closeness(name: str) -> float | None:
    return next((close for kind, close in CLOSE.items() if kind in name), None)


def stopped(name: str, steps: Sequence[float], values: Sequence[float]) -> str:
    """From which measured step on a figure came no nearer to its best."""
    close = _closeness(name) or 0.0
    known = [(step, value) for step, value in zip(steps, values, strict=True) if not math.isnan(value)]
    steps, values = [step for step, _ in known], [value for _, value in known]
    best = max(values)
    first = next(step for step, value in zip(steps, values, strict=True) if value >= best - close)
    if first == steps[-1]:
        return f"{name}: {values[-1]:.3f}, still rising at the end"
    return f"{name}: at best {best:.3f}; within {close:g} of that from step {first:,} on"


def _throughput(steps: Sequence[StepReport]) -> str:
    if not steps:
        return "<p class=quiet>No step was done.</p>"
    seconds, tokens = sum(s.seconds for s in steps), sum(s.tokens for s in steps)
    examples = sum(s.examples for s in steps)
    return (
        f"<p>{examples:,} examples and {tokens:,} tokens in {seconds / 60:,.1f} minutes of training: "
        f"{examples / seconds:.1f} examples and {tokens / seconds:.0f} tokens a second.</p>"
    )


def _figures(contract: Contract) -> list[str]:
    rows = figure_rows(contract)
    if not rows:
        return []
    cells = "".join(f"<tr><td>{html.escape(name)}<td>{html.escape(value)}" for name, value in rows)
    return ["<h2>Closing report</h2>", f"<table><tr><th>what<th>figures [95% interval]{cells}</table>"]


def _samples(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [(s["source"], sample) for s in sources for sample in s["samples"]]
    if not rows:
        return []
    names = ("question", "truth", "answer", "shuffled")
    body = "".join(
        f"<tr><td>{html.escape(source)}" + "".join(f"<td>{html.escape(sample[name])}" for name in names)
        for source, sample in rows
    )
    head = "<tr><th>source<th>question<th>truth<th>answer<th>with another's activations"
    return ["<h2>Held-out questions</h2>", f"<table>{head}{body}</table>"]


def _chart(panels: Sequence[tuple[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]]) -> str:
    """Line charts side by side, as SVG inside the page."""
    need_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns if columns > 1 else 7, 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, lines) in zip(grid, panels, strict=False):
        for name, (x, y) in lines.items():
            axes.plot(x, y, label=name, lw=1.4, marker="o" if len(x) < 30 else None, ms=3)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    out = io.StringIO()
    with rc_context({"svg.hashsalt": "augury"}):  # the same page from the same files
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]
