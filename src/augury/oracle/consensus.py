"""Whether answers agree: the same normal form for all comparisons of short answers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

LONGEST_COMPARED = 5  # words; longer answers never agree to the letter, whatever they say

_ARTICLES = frozenset(("a", "an", "the"))
_NUMBER = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?|[+-]?\.\d+")
_STARTS_NUMBER = re.compile(r"-?\.?\d")
_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: i for i, word in enumerate(_UNITS)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}


@dataclass(frozen=True)
class Group:
    """Samples that give one answer: the first of them as it was written, and how many there are."""

    text: str
    count: int


@dataclass(frozen=True)
class Consensus:
    """What several samples say together.

    Attributes:
        groups: Largest first; among equals the one that was sampled first.
        agreement: The share of the largest group; None where the answers are longer than five words, and for one
            sample, which has nothing to agree with.
    """

    groups: tuple[Group, ...]
    agreement: float | None


def normalise_answer(text: str) -> str:
    """The form in which two answers are compared.

    NFKC, case folded, without outer punctuation, articles and extra space; numbers by value, so that `1,000`, `1000.0`
    and `1000` are one, as are `twelve` and `12`.
    """
    stripped = _strip_punctuation(unicodedata.normalize("NFKC", text).casefold().strip())
    words = stripped.split()
    kept = [word for word in words if word not in _ARTICLES] or words
    return " ".join(_number(word) for word in kept)


def consensus(samples: Sequence[str]) -> Consensus:
    """Group samples by their normalised answers."""
    groups: dict[str, list[str]] = {}
    for sample in samples:
        groups.setdefault(normalise_answer(sample), []).append(sample)
    ordered = sorted(groups.values(), key=len, reverse=True)
    found = tuple(Group(texts[0], len(texts)) for texts in ordered)
    comparable = len(samples) > 1 and not _long(found[0].text) and sum(map(_long, samples)) * 2 <= len(samples)
    return Consensus(found, found[0].count / len(samples) if comparable else None)


def _long(text: str) -> bool:
    return len(text.split()) > LONGEST_COMPARED


def _strip_punctuation(text: str) -> str:
    start, stop = 0, len(text)
    while start < stop and _outer(text[start]) and not _STARTS_NUMBER.match(text, start):
        start += 1
    while stop > start and _outer(text[stop - 1]):
        stop -= 1
    return text[start:stop]


def _outer(char: str) -> bool:
    return char.isspace() or char == "`" or unicodedata.category(char).startswith("P")


def _number(word: str) -> str:
    if _NUMBER.fullmatch(word):
        value = Decimal(word.replace(",", ""))
        return format(value.normalize() if value else Decimal(0), "f")
    tens, _, unit = word.partition("-")
    if not unit:
        return str(_VALUES.get(word, word))
    compound = tens in _TENS and unit in _UNITS[1:10]
    return str(_VALUES[tens] + _VALUES[unit]) if compound else word
