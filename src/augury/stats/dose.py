"""Dose and response: how much it takes until an effect is seen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from augury.errors import InputError


def rising(responses: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """The nearest responses that never fall: pools of neighbours that do are set to their mean (isotonic regression).

    Args:
        responses: In order of the dose.
        weights: How much each counts; None: alike.

    Source: Barlow, Bartholomew, Bremner and Brunk (1972), pool adjacent violators.
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(responses, weights or [1.0] * len(responses), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, wa, na), (b, wb, nb) = pools[-2:]
            pools[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return [mean for mean, _, count in pools for _ in range(count)]


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
