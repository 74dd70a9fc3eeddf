"""From an answer to a mark. Whole words and whole numbers only: "blueberry" is not "blue", and 120 is not 12."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_NUMBER = re.compile(r"(?<![\w.,-])[-\u2212]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|[.,]\d)")


def numbers_in(answer: str) -> list[float]:
    """The numbers of an answer in their order; thousands may be set apart by commas."""
    plain = unicodedata.normalize("NFKC", answer)
    return [float(found.replace(",", "").replace("\u2212", "-")) for found in _NUMBER.findall(plain)]


def first_number(answer: str) -> float | None:
    """The first number of an answer."""
    found = numbers_in(answer)
    return found[0] if found else None


def words_of(text: str) -> str:
    """Lower-cased words with one space between, so that whole words can be looked for."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return " ".join(re.findall(r"[^\W_]+(?:'[^\W_]+)*", plain))


def says(answer: str, words: Sequence[str]) -> bool:
    """Whether an answer holds one of some words or names, whole; without spaces between words, anywhere in it."""
    spoken = f" {words_of(answer)} "
    wanted = [words_of(word) for word in words]
    return any((word if is_unspaced(word) else f" {word} ") in spoken for word in wanted if word)


def is_unspaced(text: str) -> bool:
    """Whether it is of a script that puts no spaces between words: Thai, Lao, Burmese, Khmer, kana, Han."""
    return _UNSPACED.search(text) is not None


def likeliest(log_probs: Sequence[float]) -> int:
    """The place of the likeliest choice, the first among equals."""
    return max(range(len(log_probs)), key=lambda i: log_probs[i])


def margin(log_probs: Sequence[float]) -> float:
    """Log-odds of the first of two choices."""
    return log_probs[0] - log_probs[1]
