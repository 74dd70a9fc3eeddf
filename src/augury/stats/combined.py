"""Several figures as one: their mean, with an interval from the errors that they have themselves."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from statistics import fmean

import numpy as np

from augury.errors import InputError
from augury.stats.clusters import LEAST_CLUSTERS, LEVEL, Figure, t_quantile


def combined(
    figures: Sequence[Figure],
    sharing: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] | None = None,
    level: float = LEVEL,
) -> Figure:
    """The mean of several figures, with a t interval from their own errors.

    Figures of other problems err independently. Those that share theirs are taken to err together, which is the worst
    case. Degrees of freedom are Satterthwaite's (1946, Biometrics Bulletin 2), with each variance's square without its
    bias, and never fewer than the least of the figures has. Below six problems in all, or where a figure has no error,
    there is no interval.

    Args:
        figures: At least one.
        sharing: What each figure's problems are; None: each has its own.
        bounds: Lowest and highest value there can be.
        level: Coverage.

    Raises:
        InputError: There are none.
    """
    if not figures:
        raise InputError("A mean cannot be made.", "there are no figures", "pass at least one")
    groups: dict[Hashable, list[Figure]] = {}
    for figure, key in zip(figures, range(len(figures)) if sharing is None else sharing, strict=True):
        groups.setdefault(key, []).append(figure)
    estimate = fmean(figure.estimate for figure in figures)
    n, count = (
        sum(max(getattr(one, name) for one in group) for group in groups.values()) for name in ("n", "clusters")
    )
    if any(figure.error is None for figure in figures):
        return Figure(estimate, None, None, n, count, "none")
    variances = [(sum(one.error or 0.0 for one in group) / len(figures)) ** 2 for group in groups.values()]
    freedoms = [min(one.freedom for one in group) for group in groups.values()]
    error, freedom = sum(variances) ** 0.5, _freedom(variances, freedoms)
    if count < LEAST_CLUSTERS:
        return Figure(estimate, None, None, n, count, "none", error, freedom)
    half = t_quantile(freedom, level) * error
    least, most = bounds or (-np.inf, np.inf)
    low, high = max(estimate - half, least), min(estimate + half, most)
    return Figure(estimate, low, high, n, count, "combined", error, freedom)


def _freedom(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """Degrees of freedom of a sum of estimated variances."""
    total = sum(variances)
    if not total:
        return sum(freedoms)
    squares = sum(variance**2 / (freedom + 2) for variance, freedom in zip(variances, freedoms, strict=True))
    return min(sum(freedoms), max(min(freedoms), total**2 / squares - 2))
