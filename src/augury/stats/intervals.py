"""Intervals: the cluster bootstrap over rollouts, and Wilson's for plain shares.

Items that come from one rollout resemble each other, so whole rollouts are drawn with replacement, never items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from augury.errors import InputError
from augury.stats.auc import pair_counters, weighted_auc
from augury.stats.checks import Bools, Codes, Floats, as_codes, as_labels, as_scores

Statistic = Callable[[Floats], float]

# Weights of one chunk of resamples take about this many bytes.
_CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        estimate: The statistic of the data itself.
        low: Lower end.
        high: Upper end.
        n: Items.
        n_groups: Independent groups among them, over which was resampled.
    """

    estimate: float
    low: float
    high: float
    n: int
    n_groups: int

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean(values: Floats) -> float:
    """The mean of a vector `[n]`: the default statistic."""
    return float(values.mean())


def bootstrap_interval(
    values: ArrayLike,
    statistic: Statistic = mean,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> Interval:
    """The percentile interval of a statistic by the cluster bootstrap (Efron and Tibshirani 1993, chapters 8 and 13).

    Below about 20 groups percentile intervals come out somewhat narrow.

    Args:
        values: `[n_items]`, or `[n_items, n_columns]` for a statistic of several measurements of the same items,
            such as a ratio of means. All finite.
        statistic: From values like those (some items repeated, some absent) to a number.
        groups: `[n_items]`, what is drawn with replacement (rollouts); None where items are independent.
        level: Coverage, between 0 and 1.
        n: Resamples.
        seed: Of the resampling.

    Raises:
        InputError: Where values are not finite, lengths differ, or there are fewer than two groups.
    """
    array = _as_values(values)
    codes = _checked_groups(groups, len(array))
    _check_level(level, n)
    if statistic is mean and array.ndim == 1:
        resampled = _resampled_means(array, codes, n, seed)
    else:
        resampled = np.array([statistic(array[items]) for items in _resampled_items(codes, n, seed)])
    return _percentiles(float(statistic(array)), resampled, level, codes)


def auc_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    within: ArrayLike | None = None,
    level: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> Interval:
    """The ROC AUC with its interval by the cluster bootstrap.

    Args:
        scores: `[n_items]`, higher for yes.
        labels: `[n_items]`, booleans or 0 and 1.
        groups: `[n_items]`, what is drawn with replacement (rollouts); None where items are independent.
        within: `[n_items]`, groups within which items are compared (wordings), as in `roc_auc_by_group`.
        level: Coverage, between 0 and 1.
        n: Resamples.
        seed: Of the resampling.

    Raises:
        InputError: As `roc_auc_by_group`, and where an answer comes from fewer than two groups.
    """
    values = as_scores(scores)
    truth = as_labels(labels, values.size)
    codes = _checked_groups(groups, values.size)
    _check_level(level, n)
    strata = np.zeros_like(codes) if within is None else as_codes(within, values.size, "within")
    counters = pair_counters(values, truth, strata)
    _check_answers(truth, codes)
    estimate = float(weighted_auc(counters, np.ones((1, values.size)))[0])
    chunks = [weighted_auc(counters, weights[:, codes]) for weights in _group_weights(codes, n, seed)]
    return _percentiles(estimate, np.concatenate(chunks), level, codes)


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval for `k` of `n` independent items (Wilson 1927); it holds at 0 and `n` too.

    Raises:
        InputError: Where `n` is not positive or `k` lies outside 0 to `n`.
    """
    if n < 1 or not 0 <= k <= n:
        raise InputError("the share is undefined", f"{k} of {n}", "pass 0 <= k <= n with n at least 1")
    _check_level(level, 1)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = k / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At 0 and n the ends are exact in theory and off by rounding in practice.
    low, high = (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)
    return Interval(share, float(low), float(high), n, n)


def _as_values(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in (1, 2) or array.size == 0:
        why = f"the shape is {array.shape}"
        raise InputError("values cannot be used", why, "pass [n_items] or [n_items, n_columns], not empty")
    if not np.isfinite(array).all():
        why = f"{int((~np.isfinite(array)).sum())} of {array.size} values are not finite"
        raise InputError("values cannot be used", why, "find out what made them, or leave those items out by name")
    return array


def _checked_groups(groups: ArrayLike | None, n: int) -> Codes:
    codes = as_codes(groups, n)
    if codes.max() < 1:
        why = "all items are of one group, which says nothing about another"
        raise InputError("an interval cannot be made", why, "pass items from at least two groups")
    return codes


def _check_answers(labels: Bools, codes: Codes) -> None:
    """With an answer in one group only, resamples without that group drop out and the rest look too sure."""
    for answer in (True, False):
        if len(np.unique(codes[labels == answer])) < 2:
            why = f"all items labelled {answer} are of one group"
            raise InputError("an interval cannot be made", why, "pass items of each answer from at least two groups")


def _check_level(level: float, n: int) -> None:
    if not 0 < level < 1 or n < 1:
        raise InputError("an interval cannot be made", f"level {level}, {n} resamples", "pass a level between 0 and 1")


def _group_weights(codes: Codes, n: int, seed: int) -> Iterator[Floats]:
    """How often each group was drawn, `[b, n_groups]`, in chunks of resamples that fit in memory."""
    n_groups = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK_BYTES // (8 * len(codes)))
    for start in range(0, n, step):
        yield rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=min(step, n - start)).astype(np.float64)


def _resampled_means(values: Floats, codes: Codes, n: int, seed: int) -> Floats:
    totals, counts = np.bincount(codes, weights=values), np.bincount(codes).astype(np.float64)
    return np.concatenate([(w @ totals) / (w @ counts) for w in _group_weights(codes, n, seed)])


def _resampled_items(codes: Codes, n: int, seed: int) -> Iterator[Codes]:
    """The item indices of each resample."""
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield np.concatenate([members[group] for group in rng.integers(0, len(members), len(members))])


def _percentiles(estimate: float, resampled: Floats, level: float, codes: Codes) -> Interval:
    """The interval, over the resamples in which the statistic is defined."""
    defined = resampled[~np.isnan(resampled)]
    if defined.size < 0.9 * resampled.size:
        why = f"the statistic is undefined in {resampled.size - defined.size} of {resampled.size} resamples"
        raise InputError("an interval cannot be made", why, "pass more groups")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), len(codes), int(codes.max()) + 1)
