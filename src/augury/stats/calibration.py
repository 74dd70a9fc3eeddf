"""Calibration: whether a stated confidence is how often it is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from augury.errors import InputError
from augury.stats.checks import as_labels, in_unit_interval


@dataclass(frozen=True)
class ReliabilityBin:
    """The items whose confidence lies in `[low, high)` (the last bin includes 1).

    Attributes:
        low: Lower edge.
        high: Upper edge.
        confidence: Mean stated confidence.
        accuracy: Share that is right.
        n: Items.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Confidence against accuracy in bins of equal width; bins without items are left out.

    Args:
        confidence: `[n]`, from 0 to 1.
        correct: `[n]`, booleans or 0 and 1.
        bins: How many.

    Raises:
        InputError: Where lengths differ, a confidence lies outside 0 to 1, or `bins` is not positive.
    """
    stated = in_unit_interval(confidence, "confidence")
    right = as_labels(correct, stated.size, "correct")
    if bins < 1:
        raise InputError("reliability cannot be computed", f"bins is {bins}", "pass at least one bin")
    edges = np.linspace(0, 1, bins + 1)
    index = np.searchsorted(edges[1:-1], stated, side="right")
    return tuple(
        ReliabilityBin(
            low=float(edges[b]),
            high=float(edges[b + 1]),
            confidence=float(stated[index == b].mean()),
            accuracy=float(right[index == b].mean()),
            n=int((index == b).sum()),
        )
        for b in np.unique(index)
    )


def ece(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, weighted by items (Naeini 2015).

    Arguments and errors are those of `reliability`.
    """
    table = reliability(confidence, correct, bins)
    return sum(row.n * abs(row.confidence - row.accuracy) for row in table) / sum(row.n for row in table)


def ece_by_chance(
    confidence: ArrayLike, bins: int = 10, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> float:
    """What the expected calibration error stays below, so often, where every confidence is exactly right.

    An ECE is never below zero and rises as items become fewer; this is what chance alone makes of it, by simulation.

    Args:
        confidence: `[n]`, from 0 to 1.
        bins: As in `ece`.
        level: How often.
        draws: Of the simulation.
        seed: Of the draws.

    Raises:
        InputError: As `reliability`.
    """
    stated = in_unit_interval(confidence, "confidence")
    rng = np.random.default_rng(seed)
    found = [ece(stated, rng.random(stated.size) < stated, bins) for _ in range(draws)]
    return float(np.quantile(found, level))
