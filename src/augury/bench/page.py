"""`report.html` of a run of the bench: one file without links, by which a stranger can judge an oracle."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from augury.bench.charts import bars, forest, lines, reliability
from augury.bench.engine import COLUMNS, ORACLE
from augury.oracle.controls import TEXT_ALL

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
td,th{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left;vertical-align:top}
td small{white-space:nowrap} td.n{text-align:right;font-variant-numeric:tabular-nums} svg{max-width:100%;height:auto}
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
RISING = ("strength",)  # parts that follow one upon the other


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
        _section("Oracle and controls", forest(summary)),
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
    mean = summary["aobench"]
    if mean["value"] is not None:
        lacks = f"; it lacks {', '.join(mean['missing'])}" if mean["missing"] else ""
        told = f"AObench's aggregate over {len(mean['of'])} of {len(mean['of']) + len(mean['missing'])} tasks"
        found.append(f"<p>{told}: <b>{mean['value']:.2f}</b>{html.escape(lacks)}. Its items are this model's own.</p>")
    who = "a reader that was trained for it" if summary["oracle"]["reader"] else (
        "the plain base; a small one cannot answer questions, and to be ahead of it proves little"
    )  # fmt: skip
    found.append(f"<p class=quiet>The text is read by {who}. Intervals are over problems, 95%. Profile "
                 f"{html.escape(summary['profile']['name'])}, seed {summary['seed']}.</p>")  # fmt: skip
    return found


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body}" if body else ""


def _table(summary: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{name}" for name in ("task", "measure", "items", *COLUMNS, f"oracle less {TEXT_ALL}"))
    rows = []
    for name, task in summary["tasks"].items():
        for measure, found in task["measures"].items():
            cells = [_cell(found["raters"].get(rater)) for rater in COLUMNS]
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


def _details(summary: Mapping[str, Any]) -> list[str]:
    """Of each task what there is: windows, wordings, and its parts."""
    found = []
    for name, task in summary["tasks"].items():
        drawn = _bars(task)  # which has all measures: then the first alone is looked at closer
        about = [_known(task), _judge(task), drawn, *_calibration(task)]
        if any(about):
            found += [f"<h3>{html.escape(name)}</h3>", *about]
        for measure, figures in list(task["measures"].items())[: 1 if drawn else None]:
            parts = [_dose(task), _sweep(figures), *_parts(figures), _wordings(figures)]
            if any(parts):
                found += [f"<h3>{html.escape(name)}: {html.escape(measure)}</h3>", *parts]
    return ["<h2>Windows, wordings and parts</h2>", *found] if found else []


def _known(task: Mapping[str, Any]) -> str:
    if task.get("known") is None:
        return ""
    told = "of what they are asked the organisms know themselves; the rest does not count"
    return f"<p>{task['known']:.0%} {told}.</p>"


def _judge(task: Mapping[str, Any]) -> str:
    """Who judged, and how far it can be trusted."""
    judge = task.get("judge")
    if judge is None:
        return ""
    told = [f"Judged by {judge['model']} (prompts of version {judge['version']}): {judge['answers']} answers"]
    told.append(f"{judge['failed']} of its replies could not be read and do not count")
    for kind, found in judge["planted"].items():
        if found["as expected"] is not None:
            told.append(f"{kind}: {found['as expected']['estimate']:.0%} as they should be")
    cost = "" if judge["cost"] is None else f", cost {judge['cost']:.2f}"
    told.append(f"{judge['tokens']['read']:,} tokens read, {judge['tokens']['written']:,} written{cost}")
    return f"<p>{html.escape('; '.join(told))}.</p>"


def _bars(task: Mapping[str, Any]) -> str:
    names = [name for name in task.get("parts", ()) if name in task["measures"]]
    return bars(names, task["measures"]) if len(names) > 1 else ""


def _calibration(task: Mapping[str, Any]) -> list[str]:
    """Whether confidence says how often answers are right."""
    found = task.get("calibration")
    if not found:
        return []
    rows = []
    for one in found:
        auc = "-" if one["auc"] is None else f"{one['auc']['estimate']:.2f}"
        for row in one["at_least"]:
            precision = _cell(row["precision"])
            recall = "-" if row["recall"] is None else f"{row['recall']:.2f}"
            cells = f"<td class=n>{row['threshold']:g}<td class=n>{row['answered']}{precision}<td class=n>{recall}"
            rows.append(f"<tr><td>{one['confidence']}<td class=n>{one['ece']:.2f}<td class=n>{auc}{cells}")
    head = "".join(
        f"<th>{name}" for name in ("confidence", "ECE", "AUC of right", "at least", "answers", "precision", "recall")
    )
    return [reliability(found), f"<table><tr>{head}{''.join(rows)}</table>"]


def _dose(task: Mapping[str, Any]) -> str:
    if "strength at 75%" not in task:
        return ""
    found = task["strength at 75%"]
    told = "at no strength that was tried" if found is None else f"from at most {found:.3f} of the residual norm on"
    return f"<p>Three of four pairs are told apart {told}.</p>"


def _sweep(figures: Figures) -> str:
    windows = figures["windows"]
    if not windows:
        return ""
    names = ["all" if window == "0" else window for window in windows]
    return lines("positions that are read", names, list(windows.values()), rising=True)


def _parts(figures: Figures) -> list[str]:
    return [
        lines(fact, list(values), list(values.values()), rising=fact in RISING)
        for fact, values in figures["parts"].items()
        if sum(found[ORACLE] is not None for found in values.values()) > 1
    ]


def _wordings(figures: Figures) -> str:
    if len(figures["wordings"]) < 2:
        return ""
    rows = "".join(f"<tr><td>{html.escape(text)}{_cell(value)}" for text, value in figures["wordings"].items())
    return f"<table><tr><th>wording<th>oracle{rows}</table>"
