"""`report.html` of a run of the bench: one file without links, by which a stranger can judge an oracle."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from augury.bench.charts import bars, forest, lines, reliability
from augury.bench.engine import COLUMNS, ORACLE
from augury.bench.task import trained_window
from augury.bench.words import GLOSSARY, headline, items_of, lead_of, measure_of, remarks

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
td,th{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left;vertical-align:top}
td small{white-space:nowrap} td.n{text-align:right;font-variant-numeric:tabular-nums} svg{max-width:100%;height:auto}
.quiet{color:#666}
td.about{min-width:12rem} td.about small{white-space:normal}
dt{font-weight:600} h2{margin-top:2.2rem} select,input{font:inherit;margin:0 .8rem .6rem 0}
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
        _glossary(),
        *_remarks(summary),
        _section("Oracle and controls", forest(summary)),
        *_details(summary),
        BROWSER if answers else "",
        f"<script type=application/json id=answers>{embedded}</script><script>{SCRIPT}</script>" if answers else "",
    ]
    return "\n".join(parts) + "\n"


def _opening(summary: Mapping[str, Any]) -> list[str]:
    found = [f"<p>{html.escape(line[0].upper() + line[1:])}.</p>" for line in headline(summary)]
    who = "a reader that was trained for it" if summary["oracle"]["reader"] else (
        "the plain base; a small one cannot answer questions, and to be ahead of it proves little"
    )  # fmt: skip
    told = [f"The text is read by {who}. Intervals are 95%. Profile {summary['profile']['name']}"]
    told.append(f"seed {summary['seed']}, {'published items' if summary.get('data') else 'items made for this model'}.")
    found.append(f"<p class=quiet>{html.escape(', '.join(told))}</p>")
    return [*found, *(f"<p class=quiet>{html.escape(note)}</p>" for note in summary["oracle"]["notes"])]


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body}" if body else ""


def _table(summary: Mapping[str, Any]) -> str:
    heads = ("task", "measure", "items", "chance", *COLUMNS, "oracle less a reader")
    head = "".join(f"<th>{name}" for name in heads)
    rows = []
    for name, task in summary["tasks"].items():
        tier = f" <small>({task['tier']})</small>" if task["tier"] else ""
        about = f"<td class=about>{html.escape(name)}{tier}<br><small>{html.escape(task['about'])}</small>"
        for measure, found in task["measures"].items():
            chance = "" if found["chance"] is None else f"{found['chance']:.2f}"
            cells = [_cell(found["raters"].get(rater)) for rater in COLUMNS]
            lead = lead_of(task)
            cells.append(f"{_cell(found['leads'].get(lead))}<br><small>{lead}</small>")
            told = f"<td>{html.escape(measure_of(measure, found))}<td class=n>{items_of(found)}<td class=n>{chance}"
            rows.append(f"<tr>{about}{told}{''.join(cells)}")
    return f"<table><tr>{head}{''.join(rows)}</table>"


def _glossary() -> str:
    rows = "".join(f"<dt>{html.escape(word)}<dd>{html.escape(told)}" for word, told in GLOSSARY.items())
    return f"<details><summary>What the columns and measures are</summary><dl>{rows}</dl></details>"


def _cell(value: Figures | None) -> str:
    if value is None:
        return "<td class=n>-"
    interval = "" if value["low"] is None else f"<br><small>{value['low']:.2f} to {value['high']:.2f}</small>"
    return f"<td class=n>{value['estimate']:.2f}{interval}"


def _remarks(summary: Mapping[str, Any]) -> list[str]:
    told = [line for name, task in summary["tasks"].items() for line in remarks(name, task)]
    return [f"<ul>{''.join(f'<li>{html.escape(line)}' for line in told)}</ul>"] if told else []


def _details(summary: Mapping[str, Any]) -> list[str]:
    """Of each task what there is: windows, wordings, and its parts."""
    found, most = [], trained_window(summary["oracle"]["contract"])
    for name, task in summary["tasks"].items():
        drawn = _bars(task)  # which has all measures: then the first alone is looked at closer
        about = [_judge(task), drawn, *_calibration(task)]
        if any(about):
            found += [f"<h3>{html.escape(name)}</h3>", *about]
        for measure, figures in list(task["measures"].items())[: 1 if drawn else None]:
            parts = [_sweep(figures, most), *_parts(figures), _wordings(figures), _leads(figures)]
            if any(parts):
                found += [f"<h3>{html.escape(name)}: {html.escape(measure)}</h3>", *parts]
    return ["<h2>Windows, wordings and parts</h2>", *found] if found else []


def _judge(task: Mapping[str, Any]) -> str:
    """Who judged, and how far it can be trusted."""
    judge = task.get("judge")
    if judge is None:
        return ""
    told = [f"Judged by {judge['model']} (prompts of version {judge['version']}): {judge['answers']} answers"]
    by = ", ".join(f"{rater} {count}" for rater, count in judge["failed by rater"].items())
    told.append(f"{judge['failed']} of its replies could not be read and do not count{f' ({by})' if by else ''}")
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


def _sweep(figures: Figures, most: int | None) -> str:
    windows = figures["windows"]
    if not windows:
        return ""
    wide = [most is not None and (window == "0" or int(window) > most) for window in windows]
    names = [f"{'all' if w == '0' else w}{'*' if over else ''}" for w, over in zip(windows, wide, strict=True)]
    told = f"; * wider than the {most} that the oracle was trained on" if most and any(wide) else ""
    return lines(f"positions that are read{told}", names, list(windows.values()), figures["chance"], rising=True)


def _parts(figures: Figures) -> list[str]:
    return [
        lines(fact, list(values), list(values.values()), figures["chance"], rising=fact in RISING)
        for fact, values in figures["parts"].items()
        if sum(found[ORACLE] is not None for found in values.values()) > 1
    ]


def _wordings(figures: Figures) -> str:
    known = [value["estimate"] for value in figures["wordings"].values() if value]
    if len(known) < 2:
        return ""
    rows = "".join(f"<tr><td>{html.escape(text)}{_cell(value)}" for text, value in figures["wordings"].items())
    spread = f"<p class=quiet>Between wordings the figure differs by {max(known) - min(known):.2f}.</p>"
    return f"<table><tr><th>wording<th>oracle{rows}</table>{spread}"


def _leads(figures: Figures) -> str:
    """How far the oracle is ahead of each control, item by item."""
    rows = "".join(f"<tr><td>{name}{_cell(value)}" for name, value in figures["leads"].items() if value)
    return f"<table><tr><th>oracle less<th>{rows}</table>" if rows else ""
