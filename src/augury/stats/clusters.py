"""Figures over problems: items of one problem resemble each other, so problems are what is counted.

Rates and scales have t intervals over the problems' means, in the form that keeps its level near the ends of the scale
too; AUCs have the delete-one-problem jackknife with t. Both do so from a handful of problems on, where a percentile
bootstrap does not (89% at 9 clusters).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from augury.errors import AuguryError, InputError
from augury.stats.auc import pair_counters, weighted_auc
from augury.stats.checks import Bools, Codes, Floats, as_codes, as_labels, as_scores
from augury.stats.intervals import wilson

LEAST_CLUSTERS = 6  # fewer say nothing about the next one
LEVEL = 0.95

How = Literal["t", "score", "wilson", "jackknife", "combined", "none"]


@dataclass(frozen=True)
class Figure:
    """An estimate with its interval.

    Attributes:
        estimate: The statistic of the data itself.
        low: Lower end; None where there is no interval.
        high: Upper end.
        n: Items.
        clusters: Problems among them.
        how: What made the interval: `t` over problems' means, `score` where these have bounds, `wilson` where every
            problem is one yes or no (or all agree), `jackknife` over problems, `combined` from several figures, or
            `none` (below 6 problems, or an answer from fewer than two).
        error: The standard error; None where it cannot be known. It is there from two problems on, since several
            figures of few problems may make one of enough.
        freedom: Degrees of freedom of that error.
    """

    estimate: float
    low: float | None
    high: float | None
    n: int
    clusters: int
    how: How
    error: float | None = None
    freedom: float = 0.0

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.estimate:.3f}"
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, Any]:
        """The figure as JSON-ready fields."""
        return asdict(self)

    def scaled(self, zero: float, one: float) -> Figure:
        """The same on another scale: what is `zero` here is 0 there, and what is `one` here, above it, is 1."""
        by = one - zero
        low, high = ((None if end is None else (end - zero) / by) for end in (self.low, self.high))
        error = None if self.error is None else self.error / by
        return replace(self, estimate=(self.estimate - zero) / by, low=low, high=high, error=error)


def mean_figure(
    values: ArrayLike,
    clusters: ArrayLike | None = None,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    level: float = LEVEL,
) -> Figure:
    """The mean over problems of each problem's mean, with a t interval over problems.

    Between bounds it is the score interval with t at the effective number of problems, which is Wilson's form (Korn and
    Graubard 1998, Survey Methodology 24): near an end of the scale the plain t interval covers as little as 60%. Where
    every problem holds one yes or no it is Wilson's own. Where no spread was seen, which is not the same as none, each
    problem counts as one.

    Args:
        values: `[n]`, finite: booleans, rates, marks on a scale.
        clusters: `[n]`, the problem of each item; None where each is its own.
        bounds: Lowest and highest value there can be; None where there are none (differences).
        level: Coverage.

    Raises:
        InputError: Nothing there, a value that is not finite or out of bounds, or lengths that differ.
    """
    array = _values(values, bounds)
    codes = as_codes(clusters, array.size, "clusters")
    sizes = np.bincount(codes)
    means = np.bincount(codes, weights=array) / sizes
    count, estimate = len(means), float(means.mean())
    if count < 2:
        return Figure(estimate, None, None, array.size, count, "none")
    spread = float(means.var(ddof=1)) / count
    if bounds == (0.0, 1.0) and _plain(means):
        found = wilson(round(float(means.sum())), count, level)
        return _figure(estimate, (found.low, found.high), spread, array.size, count, "wilson", level)
    if bounds is None:
        half = t_quantile(count - 1, level) * spread**0.5
        return _figure(estimate, (estimate - half, estimate + half), spread, array.size, count, "t", level)
    return _figure(estimate, _score(estimate, spread, count, bounds, level), spread, array.size, count, "score", level)


def _figure(
    estimate: float, ends: tuple[float, float], spread: float, n: int, count: int, how: How, level: float
) -> Figure:
    """A figure with its error, and with its interval where there are problems enough.

    Where no spread was seen, which is not the same as none, the error is as wide as the interval.
    """
    low, high = ends
    error = spread**0.5 or max(high - estimate, estimate - low) / t_quantile(count - 1, level)
    if count < LEAST_CLUSTERS:
        return Figure(estimate, None, None, n, count, "none", error, count - 1.0)
    return Figure(estimate, low, high, n, count, how, error, count - 1.0)


def _score(
    estimate: float, spread: float, count: int, bounds: tuple[float, float], level: float
) -> tuple[float, float]:
    """Wilson's interval on a scale: as of so many problems as have this spread of the mean, and with t."""
    width, t = bounds[1] - bounds[0], t_quantile(count - 1, level)
    share = (estimate - bounds[0]) / width
    effective = share * (1 - share) * width**2 / spread if spread > 0 else float(count)
    shift = t * t / effective
    centre = (share + shift / 2) / (1 + shift)
    half = (max(0.0, share * (1 - share) * shift) + shift * shift / 4) ** 0.5 / (1 + shift)
    return max(0.0, centre - half) * width + bounds[0], min(1.0, centre + half) * width + bounds[0]


def mean_difference(
    one: ArrayLike,
    other: ArrayLike,
    clusters: ArrayLike | None = None,
    bounds: tuple[float, float] | None = None,
    level: float = LEVEL,
) -> Figure:
    """How much higher the mean of `one` is than that of `other`, paired by item, over problems.

    Args:
        one: `[n]`.
        other: `[n]`, on the same items.
        clusters: `[n]`, the problem of each item; None where each is its own.
        bounds: Of the values (not of their difference); None where there are none.
        level: Coverage.

    Raises:
        InputError: As `mean_figure`, and where the two have not the same items.
    """
    a, b = _values(one, bounds), _values(other, bounds)
    _same_items(a, b)
    same = np.array_equal(a, b)  # where nothing differs there is no doubt about it, whatever the scale
    widest = None if bounds is None or same else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    return mean_figure(a - b, clusters, widest, level)


def auc_figure(
    scores: ArrayLike,
    labels: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    within: ArrayLike | None = None,
    level: float = LEVEL,
) -> Figure:
    """The ROC AUC with a t interval from the delete-one-problem jackknife (Efron and Tibshirani 1993, chapter 11).

    Args:
        scores: `[n]`, higher for yes.
        labels: `[n]`, booleans or 0 and 1.
        clusters: `[n]`, the problem of each item; None where each is its own.
        within: `[n]`, groups within which items are compared (wordings), as in `roc_auc_by_group`.
        level: Coverage.

    Raises:
        InputError: As `roc_auc_by_group`.
    """
    values = as_scores(scores)
    truth = as_labels(labels, values.size)
    codes = as_codes(clusters, values.size, "clusters")
    whole, without = _aucs(values, truth, codes, within)
    return _jackknifed(whole, without, truth, codes, (0.0, 1.0), level)


def auc_difference(
    one: ArrayLike,
    other: ArrayLike,
    labels: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    within: ArrayLike | None = None,
    level: float = LEVEL,
) -> Figure:
    """How much higher the AUC of the scores `one` is than that of `other`, on the same items.

    Raises:
        InputError: As `auc_figure`, and where the two have not the same items.
    """
    a, b = as_scores(one), as_scores(other)
    _same_items(a, b)
    truth = as_labels(labels, a.size)
    codes = as_codes(clusters, a.size, "clusters")
    (whole_a, without_a), (whole_b, without_b) = (_aucs(scores, truth, codes, within) for scores in (a, b))
    return _jackknifed(whole_a - whole_b, without_a - without_b, truth, codes, None, level)


def _aucs(scores: Floats, labels: Bools, codes: Codes, within: ArrayLike | None) -> tuple[float, Floats]:
    """The AUC of all items, and without each problem in turn (NaN where that leaves one answer only)."""
    strata = as_codes(within, scores.size, "within") if within is not None else np.zeros(scores.size, dtype=np.intp)
    counters = pair_counters(scores, labels, strata)
    kept = (codes[None, :] != np.arange(int(codes.max()) + 1)[:, None]).astype(np.float64)
    return float(weighted_auc(counters, np.ones((1, scores.size)))[0]), weighted_auc(counters, kept)


def _jackknifed(
    whole: float, without: Floats, labels: Bools, codes: Codes, bounds: tuple[float, float] | None, level: float
) -> Figure:
    count, n = len(without), codes.size
    if count < 2 or bool(np.isnan(without).any()):
        return Figure(whole, None, None, n, count, "none")
    spread = float(((without - without.mean()) ** 2).sum()) * (count - 1) / count
    if bounds is not None and spread == 0.0 and whole in bounds:
        return _figure(whole, _all_won(whole, labels, codes, level), spread, n, count, "wilson", level)
    if bounds is None and spread == 0.0 and whole:  # of a difference: no spread was seen
        return _figure(whole, _score(whole, 0.0, count, (-1.0, 1.0), level), spread, n, count, "score", level)
    half = t_quantile(count - 1, level) * spread**0.5
    least, most = bounds or (-np.inf, np.inf)
    return _figure(whole, (max(whole - half, least), min(whole + half, most)), spread, n, count, "jackknife", level)


def _all_won(whole: float, labels: Bools, codes: Codes, level: float) -> tuple[float, float]:
    """Every pair was won, or lost: as sure as Wilson's interval is after so many problems of the rarer answer."""
    of_each = [len(np.unique(codes[labels == answer])) for answer in (True, False)]
    found = wilson(min(of_each) if whole == 1.0 else 0, min(of_each), level)
    return found.low, found.high


def _plain(means: Floats) -> bool:
    """Whether each problem is one yes or no, or all problems agree in full."""
    return bool(np.isin(means, (0.0, 1.0)).all())


def _values(values: ArrayLike, bounds: tuple[float, float] | None) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        why = f"the shape is {array.shape}, and {int((~np.isfinite(array)).sum())} are not finite"
        raise InputError("A mean cannot be made.", why, "pass one finite number an item, and at least one")
    if bounds is not None and (array.min() < bounds[0] or array.max() > bounds[1]):
        why = f"they run from {array.min():g} to {array.max():g}, and the bounds are {bounds[0]:g} and {bounds[1]:g}"
        raise InputError("A value is out of its bounds.", why, "pass the scale's own bounds")
    return array


def _same_items(one: Floats, other: Floats) -> None:
    if one.shape != other.shape:
        why = f"there are {one.size} and {other.size}"
        raise InputError("A difference is made item by item.", why, "pass the same items, in the same order")


def t_quantile(freedom: float, level: float) -> float:
    """The quantile of Student's t at which so much lies between it and its negative."""
    if not 0 < level < 1:
        raise InputError("An interval cannot be made.", f"the level is {level}", "pass a level between 0 and 1")
    need_scipy()
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def need_scipy() -> None:
    """Tell how to install what these intervals are made with.

    Raises:
        AuguryError: It is not installed.
    """
    try:
        import scipy.special  # noqa: F401
    except ImportError as error:
        why = "Student's t needs scipy, which is not installed"
        raise AuguryError("Intervals over problems cannot be made.", why, "pip install 'augury[bench]'") from error
