"""`report.html` of a run of the bench: one file without links, by which a stranger can judge an oracle."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from augury.bench.engine import ORACLE, RATERS
from augury.oracle.controls import TEXT_ALL
from augury.oracle.plot import need_matplotlib

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
td,th{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums} svg{max-width:100%;height:auto}
.quiet{color:#666} h2{margin-top:2.2rem} select,input{font:inherit;margin:0 .8rem .6rem 0}
#one{border:1px solid #ccc;border-radius:6px;padding:1rem} mark{background:#ffe08a;color:#222}
#text{white-space:pre-wrap;font-family:ui-monospace,monospace;font-size:13px}
@media (prefers-color-scheme:dark){body{color:#ddd;background:#181818}td,th{border-color:#444}
svg{background:#fff;border-radius:4px}.quiet{color:#999}}
"""
SCRIPT = """
const data = JSON.parse(document.getElementById('answers').textContent);
const pick = id => document.getElementById(id), task = pick('task'), item = pick('item');
const option = (to, text, value) => to.add(new Option(text, value));
Object.keys(data).forEach(name => option(task, name, name));
const cell = (row, text) => { row.insertCell().textContent = text; };
function items() {
  item.length = 0;
  data[task.value].forEach((row, i) => option(item, row.question + ' \\u2014 ' + row.problem, i));
  one();
}
function one() {
  const row = data[task.value][item.value], text = pick('text'), read = new Set(row.read);
  text.replaceChildren(row.cut ? '\\u2026' : '');
  row.tokens.forEach((token, i) => {
    const part = document.createElement(read.has(i) ? 'mark' : 'span');
    part.textContent = token;
    text.append(part);
  });
  pick('asked').textContent = row.question;
  pick('truth').textContent = row.truth;
  pick('state').textContent = row.state;
  const body = pick('said');
  body.replaceChildren();
  Object.entries(row.answers).forEach(([who, said]) => { const r = body.insertRow(); cell(r, who); cell(r, said); });
}
task.onchange = items;
item.onchange = one;
pick('back').onclick = () => { item.selectedIndex = Math.max(0, item.selectedIndex - 1); one(); };
pick('next').onclick = () => { item.selectedIndex = Math.min(item.length - 1, item.selectedIndex + 1); one(); };
items();
"""
BROWSER = """<h2>Single answers</h2>
<p class=quiet>What is read is marked. All answers stand in <code>answers/</code>.</p>
<label>Task <select id=task></select></label><label>Item <select id=item></select></label>
<button id=back>before</button> <button id=next>next</button>
<div id=one><p id=text></p><p><b id=asked></b><br>truth: <span id=truth></span> <span class=quiet id=state></span></p>
<table><thead><tr><th>who<th>answer</thead><tbody id=said></tbody></table></div>"""

Figures = Mapping[str, Any]


def page(summary: Mapping[str, Any], answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The whole page.

    Args:
        summary: As in `summary.json`.
        answers: Single answers by task, from `augury.bench.browse`.
    """
    name = html.escape(f"{summary['oracle']['name']} on {summary['model']['name']}")
    embedded = json.dumps(answers, ensure_ascii=False).replace("<", "\\u003c")
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><style>{STYLE}</style>",
        f"<h1>{name}</h1>",
        *_opening(summary),
        "<h2>All tasks</h2>",
        _table(summary),
        *_unmeasured(summary),
        _forest(summary),
        *_details(summary),
        BROWSER if answers else "",
        f"<script type=application/json id=answers>{embedded}</script><script>{SCRIPT}</script>" if answers else "",
    ]
    return "\n".join(parts) + "\n"


def _opening(summary: Mapping[str, Any]) -> list[str]:
    found = []
    if summary["headline"] is not None:
        mean = "the mean over the tiers that no reader of the text can do"
        found.append(
            f"<p>Read-or-infer: <b>{summary['headline']:.2f}</b>, from 0 (chance) to 1 (always right): {mean}.</p>"
        )
    who = "a reader that was trained for it" if summary["oracle"]["reader"] else (
        "the plain base; a small one cannot answer questions, and to be ahead of it proves little"
    )  # fmt: skip
    found.append(f"<p class=quiet>The text is read by {who}. Intervals are over problems, 95%. Profile "
                 f"{html.escape(summary['profile']['name'])}, seed {summary['seed']}.</p>")  # fmt: skip
    return found


def _table(summary: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{name}" for name in ("task", "measure", "items", *RATERS, f"oracle less {TEXT_ALL}"))
    rows = []
    for name, task in summary["tasks"].items():
        for measure, found in task["measures"].items():
            cells = [_cell(found["raters"].get(rater)) for rater in RATERS]
            cells.append(_cell(found["leads"].get(TEXT_ALL)))
            about = (
                f"<td title='{html.escape(task['about'], quote=True)}'>{html.escape(name)}<td>{html.escape(measure)}"
            )
            rows.append(f"<tr>{about}<td class=n>{found['counted']}{''.join(cells)}")
    return f"<table><tr>{head}{''.join(rows)}</table>"


def _cell(value: Figures | None) -> str:
    if value is None:
        return "<td class=n>-"
    interval = "" if value["low"] is None else f"<br><small>{value['low']:.2f} to {value['high']:.2f}</small>"
    return f"<td class=n>{value['estimate']:.2f}{interval}"


def _unmeasured(summary: Mapping[str, Any]) -> list[str]:
    told = []
    for name, task in summary["tasks"].items():
        if task["not measurable"]:
            counts = ", ".join(f"{what} {count}" for what, count in task["items"]["counts"].items())
            why = f"not measurable on this model, since {task['not measurable']} ({counts})"
            told.append(f"<li>{html.escape(name)}: {html.escape(why)}")
        elif not task["measures"]:
            told.append(f"<li>{html.escape(name)}: not judged")
    return [f"<ul>{''.join(told)}</ul>"] if told else []


def _forest(summary: Mapping[str, Any]) -> str:
    """Every task from 0 to 1 with its controls, one line each."""
    rows = [
        (f"{name}: {measure}", found)
        for name, task in summary["tasks"].items()
        for measure, found in task["measures"].items()
        if found["kind"] in ("auc", "rate")
    ]
    if not rows:
        return ""
    axes, finish = _axes(8, 0.62 * len(rows) + 0.8)
    for place, (_, found) in enumerate(rows):
        for step, rater in enumerate(RATERS):
            value = found["raters"].get(rater)
            if value is None:
                continue
            y = place + 0.1 * (step - 2.5)
            low, high = (value["low"], value["high"]) if value["low"] is not None else (value["estimate"],) * 2
            axes.plot([low, high], [y, y], color=f"C{step}", lw=2.2 if rater == ORACLE else 1.1)
            axes.plot([value["estimate"]], [y], "o", color=f"C{step}", ms=5 if rater == ORACLE else 3,
                      label=rater if place == 0 else None)  # fmt: skip
        if found["chance"] is not None:
            axes.plot([found["chance"]] * 2, [place - 0.4, place + 0.4], color="#888", lw=0.8, ls=":")
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=6, frameon=False)
    return "<h2>Oracle and controls</h2>" + finish()


def _details(summary: Mapping[str, Any]) -> list[str]:
    """Of each task what there is: windows, wordings, and its parts."""
    found = []
    for name, task in summary["tasks"].items():
        for measure, figures in task["measures"].items():
            parts = [_dose(task), _sweep(figures), *_parts(figures), _wordings(figures)]
            if any(parts):
                found += [f"<h3>{html.escape(name)}: {html.escape(measure)}</h3>", *parts]
    return ["<h2>Windows, wordings and parts</h2>", *found] if found else []


def _dose(task: Mapping[str, Any]) -> str:
    if "strength at 75%" not in task:
        return ""
    found = task["strength at 75%"]
    told = "at no strength that was tried" if found is None else f"from {found:.3f} of the residual norm on"
    return f"<p>Three of four pairs are told apart {told}.</p>"


def _sweep(figures: Figures) -> str:
    windows = figures["windows"]
    if not windows:
        return ""
    names = ["all" if window == "0" else window for window in windows]
    return _lines("positions that are read", names, list(windows.values()))


def _parts(figures: Figures) -> list[str]:
    return [
        _lines(fact, list(values), list(values.values()))
        for fact, values in figures["parts"].items()
        if len(values) > 1
    ]


def _lines(label: str, names: Sequence[str], values: Sequence[Figures]) -> str:
    """The oracle and each control over some steps."""
    axes, finish = _axes(5, 2.4)
    for step, rater in enumerate(RATERS):
        known = [(x, found[rater]["estimate"]) for x, found in enumerate(values) if found.get(rater)]
        if known:
            xs, ys = zip(*known, strict=True)
            axes.plot(xs, ys, "o-", color=f"C{step}", ms=3, lw=2 if rater == ORACLE else 1, label=rater)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel(label, fontsize=8)
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return finish()


def _wordings(figures: Figures) -> str:
    if len(figures["wordings"]) < 2:
        return ""
    rows = "".join(f"<tr><td>{html.escape(text)}{_cell(value)}" for text, value in figures["wordings"].items())
    return f"<table><tr><th>wording<th>oracle{rows}</table>"


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
