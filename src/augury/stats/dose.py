"""Dose and response: how much it takes until an effect is seen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from augury.errors import InputError


def threshold(doses: Sequence[float], responses: Sequence[float], level: float) -> float | None:
    """The least dose at which the response reaches a level, on straight lines between what was measured.

    Args:
        doses: Rising.
        responses: One for each.
        level: What is to be reached.

    Returns:
        The dose; None where no measured response reaches the level.

    Raises:
        InputError: Nothing there, lengths that differ, or doses that do not rise.
    """
    if not doses or len(doses) != len(responses) or any(b <= a for a, b in itertools.pairwise(doses)):
        why = f"there are {len(doses)} doses and {len(responses)} responses, and doses must rise"
        raise InputError("A threshold cannot be found.", why, "pass one response for each dose, doses rising")
    if responses[0] >= level:
        return doses[0]
    pairs = list(zip(doses, responses, strict=True))
    for (low, below), (high, above) in itertools.pairwise(pairs):
        if below < level <= above:
            return low + (high - low) * (level - below) / (above - below)
    return None
