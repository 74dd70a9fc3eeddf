"""How much has to be planted until an oracle sees it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from augury.stats.clusters import Figure
from augury.stats.dose import rising, threshold

TOLD = 0.75  # of pairs: the strength from which so many are told apart


@dataclass(frozen=True)
class Dose:
    """The strength from which three of four pairs are told apart, on a curve that never falls.

    Attributes:
        strength: As a share of the residual norm; None: at none that was tried. The least that was tried, where that is
            enough.
        low: Where the upper ends of the figures' intervals get there.
        high: Where their lower ends do; None: at no strength that was tried.
        tried: Strengths with enough pairs for an interval.
    """

    strength: float | None
    low: float | None
    high: float | None
    tried: int


def dose_of(figures: Mapping[str, Figure | None]) -> Dose:
    """From the figure at each strength; those without an interval are left out."""
    known = {
        float(value): (found.low, found.estimate, found.high, found.n)
        for value, found in sorted(figures.items(), key=lambda row: float(row[0]))
        if found is not None and found.low is not None and found.high is not None
    }
    if not known:
        return Dose(None, None, None, 0)
    lows, estimates, highs, weights = zip(*known.values(), strict=True)
    # As the curve never falls it lies above every lower end to its left, and below every upper end to its right.
    above = list(itertools.accumulate(lows, max))
    below = list(itertools.accumulate(reversed(highs), min))[::-1]
    curves = (rising(estimates, weights), below, above)
    strength, low, high = (threshold(list(known), curve, TOLD) for curve in curves)
    return Dose(strength, low, high, len(known))
