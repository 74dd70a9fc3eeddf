"""Area under the ROC curve: the chance that a random yes scores above a random no, a tie counting one half."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from augury.errors import InputError
from augury.stats.checks import Bools, Codes, Floats, as_codes, as_labels, as_scores


@dataclass(frozen=True)
class PairCounter:
    """Counts won pairs of one stratum under any item weights, sorting the scores only once.

    Attributes:
        order: The items by score, `[m]`, as indices into the whole data.
        labels: Their labels in that order, `[m]`.
        starts: Where each run of equal scores begins, `[n_runs]`.
    """

    order: Codes
    labels: Bools
    starts: Codes

    @classmethod
    def of(cls, scores: Floats, labels: Bools, items: Codes) -> PairCounter:
        """The counter of the given items."""
        order = items[np.argsort(scores[items], kind="stable")]
        ranked = scores[order]
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        return cls(order, labels[order], starts)

    def count(self, weights: Floats) -> tuple[Floats, Floats]:
        """Won pairs and all pairs, each `[b]`, for item weights `[b, n]` over the whole data."""
        ordered = weights[:, self.order]
        yes = np.add.reduceat(np.where(self.labels, ordered, 0.0), self.starts, axis=1)
        no = np.add.reduceat(np.where(self.labels, 0.0, ordered), self.starts, axis=1)
        below = np.cumsum(no, axis=1) - no
        return (yes * (below + no / 2)).sum(axis=1), yes.sum(axis=1) * no.sum(axis=1)


def pair_counters(scores: Floats, labels: Bools, strata: Codes) -> list[PairCounter]:
    """One counter for each stratum that has both answers; refused where none has."""
    members = [np.flatnonzero(strata == stratum) for stratum in range(int(strata.max()) + 1)]
    counters = [PairCounter.of(scores, labels, items) for items in members if len(set(labels[items].tolist())) == 2]
    if not counters:
        why = f"{int(labels.sum())} of {labels.size} labels are yes, and no group holds both answers"
        raise InputError("the ROC AUC is undefined", why, "pass items of both answers (within at least one group)")
    return counters


def weighted_auc(counters: list[PairCounter], weights: Floats) -> Floats:
    """AUCs `[b]` under item weights `[b, n]`; NaN where a row leaves no pair."""
    counts = [counter.count(weights) for counter in counters]
    won = np.sum([won for won, _ in counts], axis=0)
    pairs = np.sum([pairs for _, pairs in counts], axis=0)
    return np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)


def roc_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """The ROC AUC, ties counting one half (Mann and Whitney 1947).

    Args:
        scores: `[n]`, higher for yes. Infinities are allowed, NaN is not.
        labels: `[n]`, booleans or 0 and 1.

    Raises:
        InputError: Where lengths differ, a score is NaN, or only one answer occurs.
    """
    return roc_auc_by_group(scores, labels, None)


def roc_auc_by_group(scores: ArrayLike, labels: ArrayLike, groups: ArrayLike | None) -> float:
    """The mean of the AUCs within groups, weighted by their pairs: only items of one group are ever compared.

    With question wordings as groups, a wording that always scores high cannot help or harm. Groups with one answer
    only have no pairs and do not count.

    Args:
        scores: `[n]`, higher for yes.
        labels: `[n]`, booleans or 0 and 1.
        groups: `[n]`, of any kind that sorts; None for one group.

    Raises:
        InputError: Where lengths differ, a score is NaN, or no group holds both answers.
    """
    values = as_scores(scores)
    truth = as_labels(labels, values.size)
    strata = np.zeros(values.size, dtype=np.intp) if groups is None else as_codes(groups, values.size)
    return float(weighted_auc(pair_counters(values, truth, strata), np.ones((1, values.size)))[0])
