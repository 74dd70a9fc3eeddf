"""`report.html` of an audit: one file without links."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augury.audit.picture import standing
from augury.audit.words import PLACE, READ, named
from augury.bench.page import STYLE

MORE = """
table.map td{border:0;padding:0;min-width:1.6rem;height:1.3rem;text-align:center;font-size:10px;color:#222}
table.map th{border:0;padding:0 .5rem;font-weight:400;font-size:11px}
.claimed{border-left:4px solid #2a9d5c;padding-left:.8rem} blockquote{margin:.3rem 0 1.2rem 1rem} code span{color:#222}
.verdict{border-left:4px solid #d95f02;padding-left:.8rem;font-size:17px} table.written td{white-space:pre-line}
"""
Fields = Mapping[str, Any]


def page(report: Fields) -> str:
    """The whole page, from what stands in `report.json`."""
    name = _told(f"{Path(report['target']).name} against {report['settings']['base']['name']}")
    others = "peers" if len(report["settings"]["fine-tunes"]) > 1 else "other concepts"
    shown = [finding for finding in report["findings"] if finding["examples"]]
    body = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Audit: {name}</title><style>{STYLE}{MORE}</style>",
        f"<h1>{name}</h1>",
        f"<p class=verdict>{_told(report['verdict'][0])}</p>",
        *(f"<p>{_told(line)}</p>" for line in report["verdict"][1:]),
        "" if report["contrast"] is None else standing(report),
        "<h2>What it writes</h2>",
        _black_box(report["black box"]),
        "<h2>Findings, with what they rest on</h2>",
        "<p class=quiet>A token that was read is the darker the further base and fine-tune part there.</p>",
        *(_finding(finding, report["open questions"], others) for finding in shown),
        "<h2>All concepts</h2>",
        _concepts(report),
        "<h2>Where base and fine-tune part</h2>",
        _map(report),
        "<h2>What the claim is measured by</h2>",
        _null(report),
        "<h2>Planted</h2>",
        _planted(report["planted"]),
        "<h2>What was run</h2>",
        _run(report),
    ]
    return "\n".join(body) + "\n"


def _told(text: object) -> str:
    return html.escape(str(text))


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]], kind: str = "") -> str:
    head = "".join(f"<th>{_told(name)}" for name in heads)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}" for row in rows)
    return f"<table class='{kind}'><tr>{head}{body}</table>"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"<td class=n>{value:.3g}" if 0 < abs(value) < 0.01 else f"<td class=n>{value:.2f}"
    return f"<td>{'-' if value is None else _told(value)}"


def _where(read: Fields) -> str:
    return f"{READ[read['kind']]}, at {PLACE[read['place']]}"


def _finding(finding: Fields, questions: Sequence[str], others: str) -> str:
    state = "claimed" if finding["claimed"] else "not claimed"
    p = "" if finding["p"] is None else f", p = {finding['p']:.2g}"
    title = f"<h3>{_told(finding['concept'])} <small class=quiet>{state}{p}</small></h3>"
    where = f"<p class=quiet>It stands highest as {_told(_where(finding['read']))}. {_told(named(finding))}</p>"
    examples = "".join(_example(example, questions, others) for example in finding["examples"])
    kind = " class=claimed" if finding["claimed"] else ""
    return f"<div{kind}>{title}{where}{examples}</div>"


def _example(example: Fields, questions: Sequence[str], others: str) -> str:
    positions = example["positions"]
    at = f"{positions[0]} to {positions[-1]}" if positions else "none"
    norm = "" if example["norm"] is None else f", ||difference|| / ||base|| {example['norm']:.3f}"
    gives = "; the text names it" if example["text names it"] else ""
    silent = ["not asked"] * len(questions)
    rows = [(who, margin, *example["answers"].get(who, silent)) for who, margin in example["margins"].items()]
    said = _table(("", "log-odds of Yes", *questions), rows)
    return (
        f"<blockquote><b>{_told(example['prompt'])}</b> <span class=quiet>({_told(example['kind'])}; positions {at}: "
        f"{_shaded(example)}{gives}{norm}; {example['contrast']:+.2f} against the {others})</span>"
        f"{said}</blockquote>"
    )


def _shaded(example: Fields) -> str:
    """The tokens that were read, the darker the further base and fine-tune part there."""
    most = max(example["norms"], default=0.0)
    tokens = "".join(
        f'<span style="background:{_color(norm, most, 30)}" title="{norm:.4f}">{_told(token)}</span>'
        for token, norm in zip(example["tokens"], example["norms"], strict=True)
    )
    return f"<code>{tokens}</code>"


def _concepts(report: Fields) -> str:
    heads = ("concept", "claimed", "p", "score", "moved", "claimed from", "read", "stated in text", "asked in words")
    rows = [
        (
            one["concept"],
            "yes" if one["claimed"] else "no",
            one["p"],
            one["score"],
            one["moved"],
            one["needed"],
            f"{one['read']['kind']}, {one['read']['place']}",
            one["stated"],
            one["black box"],
        )
        for one in report["findings"]
    ]
    note = (
        "<p class=quiet>Moved and claimed from: log-odds, centred over concepts, the mean over prompts. Stated in "
        "text: the share of texts that state the concept in which the oracle puts it first. Asked in words: how far "
        "the fine-tune's own Yes moved when it is asked without an oracle.</p>"
    )
    return note + _table(heads, rows)


def _map(report: Fields) -> str:
    found = report["map"]
    most = max(value for rows in found["places"].values() for row in rows for value in row) or 1.0
    parts = [f"<p class=quiet>||difference|| / ||base||, the mean over prompts; darkest is {most:.3f}.</p>"]
    for place, rows in found["places"].items():
        body = []
        for layer, row in reversed(list(zip(found["layers"], rows, strict=True))):
            mark = " (read)" if layer in found["read"] else ""
            cells = "".join(_shade(value, most) for value in row)
            body.append(f"<tr><th>layer {layer}{mark}{cells}")
        parts.append(f"<h3>{_told(PLACE[place])}</h3><table class=map>{''.join(body)}</table>")
    return "".join(parts)


def _shade(value: float, most: float) -> str:
    return f'<td style="background:{_color(value, most)}" title="{value:.4f}">{value:.2f}'


def _color(value: float, most: float, deepest: int = 55) -> str:
    return f"hsl(20 80% {97 - deepest * min(1.0, value / (most or 1.0)):.0f}%)"


def _null(report: Fields) -> str:
    found = report["contrast"]
    if found is None:
        return "<p>There are too few peers for a null distribution.</p>"
    whole = {key: one["name"] for key, one in report["settings"]["fine-tunes"].items()}
    short = {key: Path(name).name for key, name in whole.items()}
    names = short if len(set(short.values())) == len(short) else whole
    peers = [(names[key], score) for key, score in found["peers"].items()]
    rows = [("target", found["statistic"]), *peers, ("claimed from", found["threshold"])]
    told = (
        "The largest standardised score over all concepts and reads: of the target against its peers, and of each peer "
        f"against the others. p = {found['p']:.3g}. The base captured twice moves no concept by more than "
        f"{found['base against base']:.2g}."
    )
    return f"<p>{_told(told)}</p>{_table(('fine-tune', 'largest score'), rows)}"


def _planted(planted: Sequence[Fields]) -> str:
    heads = ("concept", "strength, of the norm", "place among all", "score", "claimed")
    names = {True: "yes", False: "no", None: None}
    rows = [(r["concept"], r["strength"], r["rank"], r["score"], names[r["claimed"]]) for r in planted]
    return _table(heads, rows)


def _black_box(found: Fields) -> str:
    claimed = ", ".join(found["claimed"]) or "nothing"
    p = "" if found["p"] is None else f" (p = {found['p']:.3g}; claimed by the same test: {claimed})"
    first = "They cannot be asked in words: a model here has no chat template." if found["first"] is None else (
        f"Asked in words, the fine-tune moved most towards {found['first']}{p}."
    )  # fmt: skip
    rows = [(one["prompt"], one["fine-tuned"], one["base"]) for one in found["generations"]]
    table = _table(("prompt", "the fine-tune writes", "the base writes"), rows, "written")
    return f"{table}<p>{_told(first)}</p>"


def _run(report: Fields) -> str:
    costs, settings = report["costs"], report["settings"]
    places = [
        (key, place, counts["asked"], counts["left out"])
        for key, found in report["positions"].items()
        for place, counts in found.items()
    ]
    names = _table(("", "fine-tune"), [(key, one["name"]) for key, one in settings["fine-tunes"].items()])
    told = (
        f"Oracle {settings['oracle']['name']}; {costs['rows']:,} questions, {costs['tokens']:,} tokens. Noise floor "
        f"{report['noise floor']:.1e} of the norm."
    )
    heads = ("fine-tune", "place", "positions asked", "below the noise floor")
    return f"<p>{_told(told)}</p>{names}{_table(heads, places)}"
