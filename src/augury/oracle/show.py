"""Answers, scores and scans as text, as a rich table and as HTML."""

from __future__ import annotations

import html as markup
from typing import TYPE_CHECKING, Any

from augury.activations.show import visible

if TYPE_CHECKING:
    from augury.oracle.answers import Answer, Scan, Score, Unavailable

Cells = tuple[str, ...]
_GROUPS = 5
_YES, _NO = (27, 120, 55), (118, 42, 131)  # as in the heat map (matplotlib's PRGn)


def plain(result: Any) -> str:
    """The result as lines of text, columns aligned."""
    table = _rows(result)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([visible(result.question), *lines, *_below(result)])


def brief(result: Any) -> str:
    """The question and what came of it, in one line."""
    from augury.oracle.answers import Answer

    if isinstance(result, Answer):
        found = repr(result.text)
    elif _is_scan(result):
        found = f"{len(result.margins)} positions"
    else:
        found = f"{result.choice}, margin {result.margin:+.2f}"
    return f"{_line(result.question)!r}: {found}"


def rich_table(result: Any) -> Any:
    """The result as a rich renderable."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    if _is_scan(result):
        return Group(Text(visible(result.question), style="bold"), _rich_tokens(result), *_rich_lines(result))
    head, *body = _rows(result)
    table = Table(*map(escape, head), title=escape(visible(result.question)), title_justify="left", title_style="bold")
    for row in body:
        table.add_row(*map(escape, row), style="bold" if row[0] == "real" else None)
    return Group(table, *_rich_lines(result))


def _below(result: Any) -> list[str]:
    """What stands under the table: the groups of samples, and warnings."""
    from augury.oracle.answers import Answer

    groups = result.groups[:_GROUPS] if isinstance(result, Answer) else ()
    counted = "; ".join(f"{group.count} x {_line(group.text)}" for group in groups)
    return [*([f"samples: {counted}"] if counted else []), *(f"warning: {visible(line)}" for line in result.warnings)]


def _rich_lines(result: Any) -> list[Any]:
    from rich.text import Text

    return [Text(line, style="yellow" if line.startswith("warning") else "dim") for line in _below(result)]


def _rich_tokens(scan: Scan) -> Any:
    from rich.text import Text

    text = Text()
    for token, value, strength in zip(scan.token_texts, scan.values, _strengths(scan), strict=True):
        red, green, blue = _shade(value, strength)
        text.append(visible(token), style=f"black on rgb({red},{green},{blue})")
    return text


def html(result: Any) -> str:
    """The result as HTML for a notebook."""
    title = f"<b>{markup.escape(visible(result.question))}</b>"
    body = _html_tokens(result) if _is_scan(result) else _html_table(_rows(result))
    below = "".join(f"<div>{markup.escape(line)}</div>" for line in _below(result))
    return f"<div>{title}{body}{below}</div>"


def _html_table(rows: list[Cells]) -> str:
    head, *body = rows
    cells = "".join(f"<th>{markup.escape(cell)}</th>" for cell in head)
    lines = ["".join(f"<td>{markup.escape(cell)}</td>" for cell in row) for row in body]
    return f"<table><tr>{cells}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _html_tokens(scan: Scan) -> str:
    spans = []
    for token, value, strength in zip(scan.token_texts, scan.values, _strengths(scan), strict=True):
        red, green, blue = _shade(value, strength)
        style = f"background:rgb({red},{green},{blue});color:#000;white-space:pre-wrap"
        spans.append(f'<span style="{style}" title="{value:+.2f}">{markup.escape(visible(token))}</span>')
    return f"<div>{''.join(spans)}</div>"


def _strengths(scan: Scan) -> list[float]:
    """0 to 1: each value against the largest of the scan, in either direction."""
    largest = max(map(abs, scan.values)) or 1.0
    return [abs(value) / largest for value in scan.values]


def _shade(value: float, strength: float) -> tuple[int, ...]:
    """White towards green (yes) or purple (no)."""
    return tuple(round(255 + (channel - 255) * 0.8 * strength) for channel in (_YES if value > 0 else _NO))


def _rows(result: Any) -> list[Cells]:
    from augury.oracle.answers import Answer, Score

    if isinstance(result, Answer):
        return _answer_rows(result)
    return _score_rows(result) if isinstance(result, Score) else _scan_rows(result)


def _answer_rows(answer: Answer) -> list[Cells]:
    rows: list[Cells] = [("", "agreement", "same as real", "answer")]
    rows.append(("real", agreement(answer), "", answer.text or "(empty)"))
    for name, control in answer.controls.items():
        rows.append((name, *_answer_cells(control)))
    return _without_empty(rows)


def _answer_cells(control: Answer | Unavailable) -> Cells:
    from augury.oracle.answers import Unavailable

    if isinstance(control, Unavailable):
        return ("", "", str(control))
    return (agreement(control), _percent(control.same_as_real), control.text or "(empty)")


def _score_rows(score: Score) -> list[Cells]:
    rows: list[Cells] = [("", "answer", f"P({score.choices[0]})", "margin", "mass", "percentile")]
    rows.append(("real", *_score_cells(score)))
    rows += [(name, *_score_cells(control)) for name, control in score.controls.items()]
    return _without_empty(rows)


def _score_cells(score: Score | Unavailable) -> Cells:
    from augury.oracle.answers import Unavailable

    if isinstance(score, Unavailable):
        return (str(score), "", "", "", "")
    percentile = "" if score.percentile is None else f"{score.percentile:.0f}"
    return (score.choice, f"{score.probability:.2f}", f"{score.margin:+.2f}", f"{score.mass:.2f}", percentile)


def _scan_rows(scan: Scan) -> list[Cells]:
    rows: list[Cells] = [("position", "token", "margin", "less donors")]
    columns = (scan.positions, scan.token_texts, scan.margins, scan.values)
    for position, token, margin, value in zip(*columns, strict=True):
        less = "" if scan.donor_median is None else f"{value:+.2f}"
        rows.append((str(position), repr(token), f"{margin:+.2f}", less))
    return _without_empty(rows)


def _without_empty(rows: list[Cells]) -> list[Cells]:
    """The table without columns that no row fills."""
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    return [tuple(_line(row[i]) for i in kept) for row in rows]


def _line(cell: str) -> str:
    return visible(" ".join(cell.split()))


def agreement(answer: Answer) -> str:
    """The cell of a table: empty without samples, a dash where answers are too long to be compared to the letter."""
    return "-" if answer.samples and answer.agreement is None else _percent(answer.agreement)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _is_scan(result: Any) -> bool:
    from augury.oracle.answers import Scan

    return isinstance(result, Scan)
