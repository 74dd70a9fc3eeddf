"""The linear probe that an oracle is measured against: nothing of a test fold is seen before it is scored.

The usual leak is to report the best setting on the test set. Here the regularisation is chosen by cross-validation
inside each training fold, the standardisation is fitted there too, and no group lies on both sides of a split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from augury.errors import AuguryError, InputError
from augury.stats.auc import pair_counters, weighted_auc
from augury.stats.checks import Bools, Codes, Floats, as_codes, as_labels
from augury.stats.intervals import Interval, auc_interval

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# Inverse strengths of the penalty on standardised features, weak signals in wide vectors to plain ones.
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_INNER_FOLDS = 3


def probe_auc(
    x: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
    *,
    within: ArrayLike | None = None,
) -> Interval:
    """The ROC AUC of a logistic regression on held-out groups, with its interval over groups.

    Items are compared only within one fold, since scores of two probes have no common scale.

    Args:
        x: `[n, d]`, one vector per item, finite.
        y: `[n]`, booleans or 0 and 1.
        groups: `[n]`, what is held out together and resampled (rollouts); None where items are independent.
        folds: Outer folds.
        seed: Of the splits and the resampling.
        within: `[n]`, groups within which items are compared (wordings), as in `roc_auc_by_group`.

    Raises:
        InputError: Where shapes do not fit, a value is not finite, or an answer has fewer groups than twice the folds.
        AuguryError: Where scikit-learn is not installed.
    """
    found = probe_scores(x, y, groups, folds, seed)
    truth = as_labels(y, len(found.scores), "y")
    codes = as_codes(groups, len(found.scores))
    return auc_interval(found.scores, truth, codes, within=_crossed(found.folds, within), seed=seed)


@dataclass(frozen=True, eq=False)
class HeldOutScores:
    """What probes say of items that they did not see.

    Attributes:
        scores: `[n]`, higher for yes; only those of one fold can be compared.
        folds: `[n]`, the fold of each.
    """

    scores: Floats
    folds: Codes


def probe_scores(
    x: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None, folds: int = 5, seed: int = 0
) -> HeldOutScores:
    """The held-out scores that `probe_auc` is made of; arguments and errors are its own."""
    need_sklearn()
    features = _as_features(x)
    truth = as_labels(y, len(features), "y")
    codes = as_codes(groups, len(features))
    _check_folds(truth, codes, folds)
    scores, fold_of = np.zeros(len(features)), np.zeros(len(features), dtype=np.intp)
    for fold, (train, test) in enumerate(_splits(truth, codes, folds, seed)):
        strength = _best_strength(features[train], truth[train], codes[train], seed)
        scores[test] = _fit(features[train], truth[train], strength).decision_function(features[test])
        fold_of[test] = fold
    return HeldOutScores(scores, fold_of)


def _best_strength(x: Floats, y: Bools, codes: Codes, seed: int) -> float:
    """The strength with the best held-out AUC inside a training fold, the strongest penalty among equals."""
    splits = list(_splits(y, codes, _INNER_FOLDS, seed))
    return max(_STRENGTHS, key=lambda strength: _inner_auc(x, y, splits, strength))


def _inner_auc(x: Floats, y: Bools, splits: list[tuple[Codes, Codes]], strength: float) -> float:
    scores, fold_of = np.zeros(len(x)), np.zeros(len(x), dtype=np.intp)
    for fold, (train, test) in enumerate(splits):
        scores[test] = _fit(x[train], y[train], strength).decision_function(x[test])
        fold_of[test] = fold
    return float(weighted_auc(pair_counters(scores, y, fold_of), np.ones((1, len(x))))[0])


def _fit(x: Floats, y: Bools, strength: float) -> Pipeline:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(x, y)


def _splits(y: Bools, codes: Codes, folds: int, seed: int) -> Iterator[tuple[Codes, Codes]]:
    """Train and test items of each fold: groups whole, answers about balanced."""
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    yield from splitter.split(np.zeros((len(y), 1)), y, codes)


def _crossed(fold_of: Codes, within: ArrayLike | None) -> Codes:
    """Strata of fold and wording together."""
    if within is None:
        return fold_of
    inner = as_codes(within, len(fold_of), "within")
    return fold_of * (int(inner.max()) + 1) + inner


def _as_features(x: ArrayLike) -> Floats:
    array = np.asarray(x, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise InputError("x cannot be used", f"the shape is {array.shape}", "pass one vector per item, [n, d]")
    if not np.isfinite(array).all():
        why = f"{int((~np.isfinite(array)).any(axis=1).sum())} of {len(array)} vectors are not finite"
        raise InputError("x cannot be used", why, "find out what made them, or leave those items out by name")
    return array


def _check_folds(y: Bools, codes: Codes, folds: int) -> None:
    if folds < 2:
        raise InputError("the probe cannot be measured", f"folds is {folds}", "pass at least two folds")
    for answer in (True, False):
        n = len(np.unique(codes[y == answer]))
        if n < 2 * folds:
            why = f"items labelled {answer} come from {n} groups, and {folds} folds need {2 * folds}"
            raise InputError("the probe cannot be measured", why, "pass more groups of each answer, or fewer folds")


def need_sklearn() -> None:
    """Tell how to install what the probe is made with.

    Raises:
        AuguryError: It is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        why = "the linear probe needs scikit-learn, which is not installed"
        raise AuguryError("the probe cannot be measured", why, "pip install 'augury[train]'") from error
