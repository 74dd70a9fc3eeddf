"""A data set for people: tables and cards, rich in a terminal and plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from augury.activations.show import visible
from augury.data.audit import READINGS, Audit
from augury.data.cards import TEMPLATE, Card, Piece
from augury.data.opened import DataSet
from augury.data.summary import Summary

STYLES = {"target": "green", "bank": "cyan", TEMPLATE: "dim"}  # whatever else wrote is a file or an annotator
OTHER, READ = "magenta", "bold reverse"
OPEN, CLOSE = "[[", "]]"  # around what is read, where nothing has a colour


@dataclass(frozen=True)
class Grid:
    """A table as texts: the first column names the row."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def plain(self) -> str:
        """Aligned lines."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        texts = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([*([self.title] if self.title else []), *texts])

    def rich(self) -> Any:
        """A rich table."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(self.title) or None, title_justify="left", title_style="bold")
        for i, name in enumerate(self.head):
            table.add_column(escape(name), overflow="fold", style="bold" if i == 0 else None)
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table


def headline(data: DataSet) -> list[str]:
    """What the data set is and what it is made from."""
    model = data.model
    lines = [f"{data.folder}: {visible(str(data.recipe.get('name', 'no recipe was kept')))}"]
    if data.fingerprint is None:
        lines.append("not finished: the same `augury data build` goes on with it")
    lines.append(f"model        {data.target or 'not known'}{f' at {r}' if (r := model.get('revision')) else ''}")
    for name in ("weights_fingerprint", "tokenizer_hash"):
        if model.get(name):
            lines.append(f"{name.split('_')[0]:<12} {model[name]}")
    if data.fingerprint is not None:
        lines.append(f"fingerprint  {data.fingerprint}")
    lines += [f"  {name}: {digest[:16]}" for name, digest in data.made.items()]
    return lines


def counts(summary: Summary) -> Grid:
    """Each set of contexts and each source with its train and held-out counts: how a build ends."""
    of_set = {name: {s.split: s.contexts for s in summary.sets if s.name == name} for name in _names(summary)}
    rows = [(name, "contexts", *_both(found)) for name, found in of_set.items()]
    rows += [(s.name, "examples", f"{s.train:,}", f"{s.heldout:,}") for s in summary.sources]
    return Grid("", ("name", "holds", "train", "held out"), tuple(rows))


def _names(summary: Summary) -> list[str]:
    return list(dict.fromkeys(found.name for found in summary.sets))


def _both(found: dict[Any, int]) -> tuple[str, str]:
    return f"{found.get('train', 0):,}", f"{found.get('heldout', 0):,}"


def grids(summary: Summary) -> list[Grid]:
    """The tables of `augury data show`."""
    sets = tuple((s.name, _split(s.split), f"{s.contexts:,}", f"{s.tokens:,}", str(s.lengths)) for s in summary.sets)
    sources = tuple(
        (
            s.name, f"{s.train:,}", f"{s.heldout:,}", _listed(s.tasks), str(s.positions), str(s.answers),
            f"{s.wordings.get('train', 0):,} / {s.wordings.get('heldout', 0):,}",
            _shared(s.authors), _shared(s.layers),
        )
        for s in summary.sources
    )  # fmt: skip
    spread = "(min / median / max)"
    return [
        Grid("Contexts", ("set", "split", "contexts", "tokens", f"tokens of one {spread}"), sets),
        Grid(
            f"Examples; positions and words {spread}",
            ("source", "train", "held out", "tasks", "positions", "answer words", "wordings (train / held out)",
             "answers by", "layers"),
            sources,
        ),
    ]  # fmt: skip


def audit_grid(audit: Audit) -> Grid:
    """The audit as a table: one row a source and form of answer."""
    rows = tuple(
        (
            row.source, _split(row.split), row.measure, f"{row.examples} ({row.contexts})",
            *(str(row.scores[reading]) for reading in READINGS),
            "" if row.chance is None else f"{row.chance:.2f}",
            *(f"+{g}" if (g := row.gained.get(reading)) and g.value >= 0 else str(g or "") for reading in READINGS[1:]),
            " / ".join(f"{figure.value:.0%}" for figure in row.equal.values()),
            f"{row.closed:.0%}",
        )
        for row in audit.rows
    )  # fmt: skip
    head = ("source", "split", "measure", "examples (contexts)", *READINGS, "chance", "window gains", "all gains",
            "greedy right", "closed")  # fmt: skip
    return Grid("Text inversion: the base reads the text in place of the activations", head, rows)


def _split(split: str) -> str:
    return "held out" if split == "heldout" else split


def _listed(found: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in found.items())


def _shared(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in found.items())


def card_lines(card: Card) -> list[str]:
    """The card as lines of text: each author named before what is theirs, what is read in double brackets."""
    lines, named = [card_title(card)], None
    for piece in card.pieces:
        if named != (piece.role, piece.author):
            lines.append(f"  {_by(piece)}: ")
            named = (piece.role, piece.author)
        lines[-1] += f"{OPEN}{_text(piece)}{CLOSE}" if piece.read else _text(piece)
    return [*_cut(card, lines), *(f"  {name}: {text}" for name, text in _facts(card))]


def _cut(card: Card, lines: list[str]) -> list[str]:
    before = [f"  ... {card.before:,} tokens before"] if card.before else []
    after = [f"  ... {card.after:,} tokens after, which nobody reads"] if card.after else []
    return [lines[0], *before, *lines[1:], *after]


def card_panel(card: Card) -> Any:
    """The card as a rich panel: authors by colour, what is read reversed."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    text = Text("... " if card.before else "")
    for piece in card.pieces:
        style = STYLES.get(piece.author, OTHER)
        text.append(_text(piece), style=f"{style} {READ}" if piece.read else style)
    text.append(" ..." if card.after else "")
    authors = dict.fromkeys(piece.author for piece in card.pieces)
    legend = Text(" ").join(Text(author, style=STYLES.get(author, OTHER)) for author in authors)
    facts = [Text.assemble((f"{name}: ", "bold"), found) for name, found in _facts(card)]
    return Panel(Group(text, legend, Text(""), *facts), title=Text(card_title(card)), title_align="left")


def card_title(card: Card) -> str:
    """What the example is, in a line."""
    e = card.example
    kind = e.task if e.kind == e.task else f"{e.task}, {e.kind}"
    return f"{e.source} ({_split(e.split)}): {kind}"


def _facts(card: Card) -> list[tuple[str, str]]:
    e = card.example
    found = [
        ("question", e.question),
        ("answer", f"{e.answer}  (by {e.author})"),
        ("reads", f"positions {_ranges(e.positions)} at layers {', '.join(map(str, e.layers))}"),
        ("context", f"{e.contexts} {e.context}, from {card.origin}"),
        ("wording", e.wording if e.wording != e.question else ""),
        ("labels", ", ".join(f"{name} {value}" for name, value in card.labels.items())),
        ("weight", f"{e.weight:g}" if e.weight != 1 else ""),
        *e.notes.items(),
    ]
    return [(name, visible(text)) for name, text in found if text]


def _ranges(positions: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][1] + 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in runs)


def _by(piece: Piece) -> str:
    return f"{piece.role}, by {piece.author}" if piece.role else piece.author


def _text(piece: Piece) -> str:
    return f"<{piece.tokens} tokens>" if piece.text is None else visible(piece.text).replace("\n", "\\n")
