"""Open questions that do not name their own answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Of answers: too common to tell anything.
_EMPTY = frozenset(
    (
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "to",
        "for",
        "and",
        "or",
        "is",
        "are",
        "was",
        "as",
        "by",
        "about",
        "with",
    )
)


def fair(wordings: Sequence[str], answer: str, among: Sequence[str] = ()) -> list[str]:
    """The wordings without a word of the answer; one that names every answer there could be is fair too.

    Args:
        wordings: Of one question.
        answer: The true one.
        among: All answers there could be, where these are few.
    """
    told = words_of(answer)
    return [
        wording
        for wording in wordings
        if not told & words_of(wording) or (among and all(words_of(other) & words_of(wording) for other in among))
    ]


def words_of(text: str) -> set[str]:
    """The words of a text that tell something, in lower case."""
    return set(re.findall(r"\w+", text.casefold())) - _EMPTY
