"""Activations as a compact table: in a terminal through rich, in a notebook as HTML."""

from __future__ import annotations

import html as markup
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augury.activations.types import Activations

Cells = tuple[str, ...]
_ENDS = 6  # positions shown at either end of a long selection


# All that steers a terminal or turns the order of letters round, but for tabs and line ends.
_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]")


def visible(text: str) -> str:
    """The text with its control characters written out (`\\x1b`): what was read may be hostile to who looks at it."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def rich_table(acts: Activations) -> Any:
    """The table as a rich renderable."""
    from rich.table import Table

    head, *body = _rows(acts)
    table = Table(title=_title(acts), title_justify="left", title_style="bold")
    for name in head:
        table.add_column(name, justify="right")
    for row in body:
        table.add_row(*row)
    return table


def html(acts: Activations) -> str:
    """The table as HTML."""
    head, *body = _rows(acts)
    lines = [_line("th", head), *(_line("td", row) for row in body)]
    return f"<table><caption>{markup.escape(_title(acts))}</caption>{''.join(lines)}</table>"


def _line(tag: str, cells: Cells) -> str:
    return "<tr>" + "".join(f"<{tag}>{markup.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _title(acts: Activations) -> str:
    provenance = acts.provenance
    source = provenance.model.name if provenance.model else "a bare tensor"
    kind = "difference" if provenance.kind == "difference" else "activations"
    floor = "" if acts.noise_floor is None else f", noise floor {acts.noise_floor:.1e}"
    return f"{kind} of {visible(source)}: {len(acts)} positions, d_model {acts.d_model}, {provenance.dtype}{floor}"


def _rows(acts: Activations) -> list[Cells]:
    """A heading and one row a position: its index, its token id, and each layer's norm (or relative norm)."""
    relative = acts.relative_norms
    values = acts.vectors.float().norm(dim=-1) if relative is None else relative
    name = "norm" if relative is None else "relative norm"
    ids = [str(token) for token in acts.token_ids] or ["-"] * len(acts)
    head: tuple[str, ...] = ("position", "token id", *(f"layer {layer} {name}" for layer in acts.layers))
    rows: list[tuple[str, ...]] = [
        (str(position), token, *(f"{value:.4g}" for value in values[:, i].tolist()))
        for i, (position, token) in enumerate(zip(acts.positions, ids, strict=True))
        if not _ENDS <= i < len(acts) - _ENDS
    ]
    if len(rows) < len(acts):
        rows.insert(_ENDS, ("...",) * len(head))
    return [head, *rows]
