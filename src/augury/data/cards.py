"""Examples as one can read them: the text with who wrote what, the window that is read, question and answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from augury.data.bank import Split
from augury.data.example import Context, Example
from augury.data.opened import DataSet
from augury.data.sources.base import Decode

AROUND = 60  # tokens that are shown on each side of what is read
TEMPLATE = "chat template"


@dataclass(frozen=True)
class Piece:
    """A stretch of a context by one author, all of it read or none of it.

    Attributes:
        role: Whose turn it is; empty in what the chat template puts between turns.
        author: As in `Part`, or `chat template`.
        read: Whether these tokens are the window.
        tokens: How many there are.
        text: What they say; None without a tokenizer.
    """

    role: str
    author: str
    read: bool
    tokens: int
    text: str | None


@dataclass(frozen=True)
class Card:
    """One example with the part of its context that it is about.

    Attributes:
        example: What is asked.
        origin: Where the context comes from.
        labels: What is known about the context.
        pieces: Its text around the window; empty where it is read from saved activations.
        before: Tokens left out before the first piece.
        after: Tokens left out after the last.
    """

    example: Example
    origin: str
    labels: dict[str, str]
    pieces: tuple[Piece, ...]
    before: int
    after: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def draw_cards(data: DataSet, source: str, count: int, decode: Decode | None, seed: int = 0) -> list[Card]:
    """Some examples of a source, drawn by the seed alone, half of them held out where there are such.

    Args:
        data: Where from.
        source: Whose examples.
        count: How many.
        decode: Token ids to text; None where there is no tokenizer.
        seed: Of the draw.
    """
    rng = random.Random(f"{seed}:{source}")
    wanted: dict[Split, int] = {"heldout": count // 2, "train": count - count // 2}
    if not len(data.examples.get((source, "heldout"), ())):
        wanted = {"heldout": 0, "train": count}
    found: list[Card] = []
    for split in ("train", "heldout"):
        table = data.examples.get((source, split), ())
        rows = sorted(rng.sample(range(len(table)), min(wanted[split], len(table))))
        found += [card_of(table[row], data.context_of(table[row]), decode) for row in rows]
    return found


def card_of(example: Example, context: Context, decode: Decode | None) -> Card:
    """The card of an example."""
    length = len(context.token_ids)
    start = max(0, example.positions[0] - AROUND)
    stop = min(length, example.positions[-1] + AROUND + 1)
    labels = {name: value for name, value in context.labels.items() if name not in ("question", "answer", "qa")}
    pieces = _pieces(context, set(example.positions), range(start, stop), decode) if length else ()
    return Card(example, context.origin, labels, pieces, start if length else 0, length - stop if length else 0)


def _pieces(context: Context, read: set[int], shown: range, decode: Decode | None) -> tuple[Piece, ...]:
    by = _authors(context)
    runs = groupby(shown, lambda position: (*by[position], position in read))
    return tuple(_piece(context, key, list(positions), decode) for key, positions in runs)


def _piece(context: Context, key: tuple[str, str, bool], positions: Sequence[int], decode: Decode | None) -> Piece:
    role, author, read = key
    ids = context.token_ids[positions[0] : positions[-1] + 1]
    return Piece(role, author, read, len(ids), None if decode is None else decode(ids))


def _authors(context: Context) -> list[tuple[str, str]]:
    """(role, author) of each token."""
    found = [("", TEMPLATE)] * len(context.token_ids)
    for part in context.parts:
        found[part.start : part.stop] = [(part.role, part.author)] * (part.stop - part.start)
    return found
