"""What the rest of a text says for the first time: found by rules, without any model."""

from __future__ import annotations

import re
from collections.abc import Iterator

from augury.data.sentences import sentences
from augury.oracle.consensus import normalise_answer

MOST_WORDS = 6  # of a list item's head
_NUMBER = re.compile(r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?%?(?!\w|[.,]\d)")
_LISTED = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,2}[.)])[ \t]+(.+)$", re.MULTILINE)
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w’'-]+(?: (?:(?:of|the|de|van|von) )?[A-Z][\w’'-]+)*")  # noqa: RUF001
_WORD = re.compile(r"(?<![\w’'-])[a-z]{5,}(?![\w’'-])")  # noqa: RUF001
_FUNCTION_WORDS = """
    about above after again against along although among another around because been before began begin being below
    between beyond certain could doing during each either enough every everything first found further given going
    however indeed instead itself large later least leave little maybe might never nothing often other others otherwise
    overall perhaps quite rather really second several shall should since small something sometimes still such than
    their theirs them themselves then there therefore these they thing things third this those though three through
    thus together toward under until using usually various very were what whatever when where whether which while whole
    whose will with within without would years your yours yourself
"""
_COMMON = frozenset(_FUNCTION_WORDS.split())


def first_new(kind: str, earlier: str, rest: str) -> str | None:
    """What of a kind the rest says first that stands nowhere in what came before; None where there is nothing.

    Args:
        kind: `number`, `name` (capitalised inside a sentence), `item` (the head of a list item) or `word` (five
            letters or more, no function word, and no form of a word that came before).
        earlier: Everything before.
        rest: What comes after.
    """
    known = _words(earlier)
    return next((found for found in _OF_KIND[kind](rest) if _is_new(kind, found, earlier, known)), None)


def new_words(earlier: str, rest: str) -> list[str]:
    """The content words that the rest uses for the first time, in order, each once."""
    known = _words(earlier)
    return list(dict.fromkeys(word for word in _content(rest) if not _related(word, known)))


def stands_in(word: str, text: str) -> bool:
    """Whether a text has the word or a form of it."""
    return _related(word, _words(text))


def finished(text: str, ended: bool) -> str:
    """The text without its last sentence where that was cut off: a word or a name in it may be half of one."""
    found = sentences(text)
    return text if ended or not found else text[: found[-1].start]


def _numbers(text: str) -> Iterator[str]:
    for found in _NUMBER.finditer(text):
        lead = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        if lead.strip() or text[found.end() : found.end() + 1] not in (".", ")"):  # else the number of a list item
            yield found[0]


def _names(text: str) -> Iterator[str]:
    for sentence in sentences(text):
        for found in _NAME.finditer(sentence.text):
            if len(found[0]) > 2 and not found[0].startswith(("I'", "I’")):  # noqa: RUF001
                yield re.sub(r"['’]s$", "", found[0])  # noqa: RUF001


def _items(text: str) -> Iterator[str]:
    for found in _LISTED.finditer(text):
        head = re.split(r"[:.;!?(]|\s[-–—]\s", found[1].replace("*", "").replace("_", ""))[0].strip()  # noqa: RUF001
        if 0 < len(head.split()) <= MOST_WORDS:
            yield head


def _content(text: str) -> Iterator[str]:
    return (word for word in _WORD.findall(text) if word not in _COMMON)


_OF_KIND = {"number": _numbers, "name": _names, "item": _items, "word": _content}
KINDS = tuple(_OF_KIND)


def _is_new(kind: str, found: str, earlier: str, known: frozenset[str]) -> bool:
    if kind == "number":
        value = normalise_answer(found)
        return all(normalise_answer(word) != value for word in known)
    if kind == "word":
        return not _related(found, known)
    words = [word.casefold() for word in re.findall(r"\w{3,}", found)]
    return bool(words) and found.casefold() not in earlier.casefold() and not any(_related(w, known) for w in words[:1])


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\d[\d,.]*\d%?|\w+%?", text.casefold()))


def _related(word: str, known: frozenset[str]) -> bool:
    """Whether a word or another form of it is known: they begin alike, up to the last letters."""
    stem = word.casefold()[: max(4, len(word) - 3)]
    return any(other.startswith(stem) for other in known)
