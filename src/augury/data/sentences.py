"""Sentences of a text, and the tokens behind which a text can be cut without anything of what follows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Decode = Callable[[Sequence[int]], str]
# An end is a line's end, or a mark with its closing quotes and brackets before a space and what may begin a sentence.
_END = re.compile(r"""\n+|[.!?…]+["'”’)\]*_]*(?=[ \t]+["'“‘(\[*_]*[A-Z0-9À-ÞА-ЯΑ-Ω])|[。！？]+[」』”’）]*""")  # noqa: RUF001
_SHORT = re.compile(
    r"(?:(?:^|[\s(\[\"'“])(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|approx|No|Fig|e\.g|i\.e|a\.m|p\.m|[A-Z])"
    r"|(?:^|\n)[ \t]*\d{1,2})\.$"
)


@dataclass(frozen=True)
class Sentence:
    """A sentence's text and its characters `[start, stop)`, without space around it."""

    text: str
    start: int
    stop: int


@dataclass(frozen=True)
class Cut:
    """A text in two, at a token.

    Attributes:
        token: The first token of the second half.
        before: The first half.
        after: The second half.
    """

    token: int
    before: str
    after: str


def sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of a text, in order; nothing but space lies between them.

    A line is at least one, so that the items of a list are. Common abbreviations, initials and the numbers of a list
    end none.
    """
    found: list[Sentence] = []
    begin = 0
    for end in _END.finditer(text):
        if not end[0].startswith("\n") and _SHORT.search(text, max(0, end.end() - 12), end.end()):
            continue
        found.extend(_stripped(text, begin, end.end()))
        begin = end.end()
    return (*found, *_stripped(text, begin, len(text)))


def cut_before(ids: Sequence[int], start: int, stop: int, place: int, decode: Decode) -> Cut | None:
    """Cut tokens `[start, stop)` in front of a character of their text.

    Args:
        ids: Token ids of the whole context.
        start: The text's first token.
        stop: The token after its last.
        place: The character that shall begin the second half.
        decode: Token ids to text.

    Returns:
        The cut; None where a token holds something of both halves, or where one half would have no token.
    """
    text = decode(ids[start:stop])
    low, high = start, stop  # decode(ids[start:low]) is no longer than `place`
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(decode(ids[start:middle])) <= place else (low, middle - 1)
    before = decode(ids[start:low])
    if low in (start, stop) or not text.startswith(before) or before.rstrip() != text[:place].rstrip():
        return None
    return Cut(low, before, text[len(before) :])


def _stripped(text: str, start: int, stop: int) -> list[Sentence]:
    inner = text[start:stop]
    lead = len(inner) - len(inner.lstrip())
    kept = inner.strip()
    return [Sentence(kept, start + lead, start + lead + len(kept))] if kept else []
