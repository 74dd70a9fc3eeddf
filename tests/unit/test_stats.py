"""Statistics against independent paths: scikit-learn, counting pairs by hand, and simulation."""

from __future__ import annotations

import itertools
import math
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score

from augury.errors import AuguryError, InputError
from augury.stats import (
    auc_interval,
    bootstrap_interval,
    ece,
    probe_auc,
    reliability,
    roc_auc,
    roc_auc_by_group,
    wilson,
)

# Few distinct scores, so that ties are common.
ITEMS = st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 2)), min_size=2, max_size=30)


def pairs_won(items: list[tuple[int, bool, int]]) -> tuple[float, int]:
    """Won pairs and all pairs, one by one."""
    yes = [score for score, label, _ in items if label]
    no = [score for score, label, _ in items if not label]
    won = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(yes, no))
    return won, len(yes) * len(no)


@given(ITEMS)
def test_auc_is_the_share_of_won_pairs(items: list[tuple[int, bool, int]]) -> None:
    won, pairs = pairs_won(items)
    scores, labels, _ = zip(*items, strict=True)
    if pairs == 0:
        with pytest.raises(InputError):
            roc_auc(scores, labels)
        return
    assert roc_auc(scores, labels) == pytest.approx(won / pairs)
    assert roc_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


@given(ITEMS)
def test_auc_by_group_compares_within_groups_only(items: list[tuple[int, bool, int]]) -> None:
    counts = [pairs_won([item for item in items if item[2] == group]) for group in range(3)]
    won, pairs = sum(c[0] for c in counts), sum(c[1] for c in counts)
    scores, labels, groups = zip(*items, strict=True)
    if pairs == 0:
        with pytest.raises(InputError):
            roc_auc_by_group(scores, labels, groups)
        return
    assert roc_auc_by_group(scores, labels, groups) == pytest.approx(won / pairs)


def test_a_wording_that_leans_to_yes_does_not_help() -> None:
    labels = [1, 1, 1, 0, 1, 0, 0, 0]
    wording = ["warm"] * 4 + ["cold"] * 4
    scores = [5, 5, 5, 5, 1, 1, 1, 1]  # the wording alone
    assert roc_auc(scores, labels) == pytest.approx(0.75)
    assert roc_auc_by_group(scores, labels, wording) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [([1.0, math.nan], [0, 1]), ([1.0, 2.0], [1, 1]), ([1.0], [0, 1]), ([], []), ([1.0, 2.0], [0, 2])],
)
def test_auc_refuses(scores: list[float], labels: list[int]) -> None:
    with pytest.raises(InputError):
        roc_auc(scores, labels)


def test_infinite_scores_rank() -> None:
    assert roc_auc([-math.inf, 0.0, math.inf], [0, 1, 1]) == 1.0


def test_interval_of_the_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    interval = bootstrap_interval(values)
    low, high = scipy_stats.t.interval(0.95, 399, values.mean(), scipy_stats.sem(values))
    assert interval.estimate == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.03)
    assert (interval.n, interval.n_groups) == (400, 400)


def test_fast_and_general_paths_agree() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 30, 300)
    values = rng.normal(size=300) + groups / 10
    fast = bootstrap_interval(values, groups=groups, n=4000)
    general = bootstrap_interval(values, lambda v: float(np.mean(v)), groups, n=4000)
    assert fast.estimate == pytest.approx(general.estimate)
    assert (fast.low, fast.high) == pytest.approx((general.low, general.high), abs=0.05)
    assert fast.n_groups == general.n_groups == 30


def test_columns_are_resampled_together() -> None:
    values = np.random.default_rng(2).uniform(1, 2, (50, 1)) * [[2.0, 1.0]]
    interval = bootstrap_interval(values, lambda v: float(v[:, 0].mean() / v[:, 1].mean()), n=200)
    assert (interval.low, interval.estimate, interval.high) == pytest.approx((2, 2, 2))


def test_repeating_items_within_groups_adds_no_certainty() -> None:
    values = np.random.default_rng(3).normal(size=40)
    once = bootstrap_interval(values)
    repeated = bootstrap_interval(np.repeat(values, 25), groups=np.repeat(np.arange(40), 25))
    naive = bootstrap_interval(np.repeat(values, 25))
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=0.1)
    assert naive.high - naive.low < 0.3 * (once.high - once.low)


def test_mean_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(40), 5)
    hits = 0
    for trial in range(400):
        values = np.repeat(rng.normal(size=40), 5) + rng.normal(size=200)
        interval = bootstrap_interval(values, groups=groups, n=400, seed=trial)
        hits += interval.low <= 0 <= interval.high
    assert 0.90 <= hits / 400 <= 0.98


def test_auc_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    truth = scipy_stats.norm.cdf(1 / math.sqrt(2) / math.sqrt(2))  # unit shift, within and between variance 1 each
    groups = np.repeat(np.arange(80), 4)
    hits = 0
    for trial in range(300):
        labels = np.repeat(rng.permutation(80) < 40, 4)
        scores = labels + np.repeat(rng.normal(size=80), 4) + rng.normal(size=320)
        interval = auc_interval(scores, labels, groups, n=300, seed=trial)
        hits += interval.low <= truth <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


def test_auc_interval_agrees_with_resampling_by_hand() -> None:
    rng = np.random.default_rng(6)
    labels = rng.random(150) < 0.4
    groups, within = rng.integers(0, 25, 150), rng.integers(0, 3, 150)
    scores = np.round(labels + rng.normal(size=150), 1)
    interval = auc_interval(scores, labels, groups, within=within, n=3000)
    members = [np.flatnonzero(groups == g) for g in range(25)]
    drawn = [np.concatenate([members[g] for g in rng.integers(0, 25, 25)]) for _ in range(1500)]
    by_hand = [roc_auc_by_group(scores[i], labels[i], within[i]) for i in drawn]
    assert interval.estimate == pytest.approx(roc_auc_by_group(scores, labels, within))
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])), abs=0.015)


def test_auc_interval_is_fast_and_repeats() -> None:
    rng = np.random.default_rng(7)
    labels = np.arange(2000) < 1000
    scores = labels + rng.normal(size=2000)
    start = time.perf_counter()
    first = auc_interval(scores, labels, rng.integers(0, 300, 2000), n=1000)
    assert time.perf_counter() - start < 10
    assert first.low < scipy_stats.norm.cdf(1 / math.sqrt(2)) < first.high
    assert auc_interval(scores, labels, n=100, seed=1) == auc_interval(scores, labels, n=100, seed=1)
    assert auc_interval(scores, labels, n=100, seed=1) != auc_interval(scores, labels, n=100, seed=2)


@pytest.mark.parametrize(
    ("labels", "groups"),
    [([0, 1, 0, 1], ["a"] * 4), ([1, 1, 0, 0], ["a", "a", "b", "c"]), ([0, 1, 0, 1], ["a", "b"])],
)
def test_auc_interval_refuses(labels: list[int], groups: list[str]) -> None:
    with pytest.raises(InputError):
        auc_interval([1.0, 2.0, 3.0, 4.0], labels, groups)


@pytest.mark.parametrize("kwargs", [{"level": 1.0}, {"n": 0}, {"groups": [1, 1, 1]}, {"groups": [1, 2]}])
def test_bootstrap_refuses(kwargs: dict[str, object]) -> None:
    with pytest.raises(InputError):
        bootstrap_interval([1.0, 2.0, 3.0], **kwargs)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        bootstrap_interval([1.0, math.inf])


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    k, n = counts
    expected = scipy_stats.binomtest(k, n).proportion_ci(method="wilson")
    interval = wilson(k, n)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert interval.low <= k / n <= interval.high


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses(k: int, n: int) -> None:
    with pytest.raises(InputError):
        wilson(k, n)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 12))
def test_ece_is_the_sum_over_bins(items: list[tuple[float, bool]], bins: int) -> None:
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for b in range(bins):
        last = b == bins - 1
        inside = [(c, r) for c, r in items if edges[b] <= c and (c < edges[b + 1] or last)]
        total += abs(sum(c for c, _ in inside) - sum(r for _, r in inside))
    confidence, correct = zip(*items, strict=True)
    assert ece(confidence, correct, bins) == pytest.approx(total / len(items))
    assert sum(row.n for row in reliability(confidence, correct, bins)) == len(items)


def test_reliability_knows_the_calibrated_from_the_sure() -> None:
    rng = np.random.default_rng(8)
    confidence = rng.random(20_000)
    correct = rng.random(20_000) < confidence
    assert ece(confidence, correct) < 0.02
    assert ece(np.ones(20_000), correct) == pytest.approx(1 - correct.mean())
    with pytest.raises(InputError):
        ece([1.2], [True])


def clustered(seed: int, signal: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors that are nearly the same throughout a group, labelled by group: a leak across groups would shine."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(60), 4)
    labels = np.repeat(rng.permutation(60) < 30, 4)
    x = np.repeat(rng.normal(size=(60, 20)), 4, axis=0) + 0.1 * rng.normal(size=(240, 20))
    x[:, 3] += signal * labels
    return x * 100 + 7, labels, groups


def test_probe_finds_what_is_there() -> None:
    found = probe_auc(*clustered(0, signal=4.0))
    assert found.low > 0.85
    assert (found.n, found.n_groups) == (240, 60)
    assert found.low <= found.estimate <= found.high


def test_probe_finds_nothing_in_random_labels() -> None:
    found = [probe_auc(*clustered(seed, signal=0.0), folds=4, seed=seed) for seed in range(6)]
    assert sum(f.low <= 0.5 <= f.high for f in found) >= 5
    assert 0.4 < np.mean([f.estimate for f in found]) < 0.6


def test_probe_without_groups_would_have_leaked() -> None:
    """The check above can fail: with groups hidden from the probe, the same random labels are read well."""
    x, labels, _ = clustered(1, signal=0.0)
    assert probe_auc(x, labels, folds=4).estimate > 0.7


def test_probe_refuses() -> None:
    x, labels, groups = clustered(0, signal=1.0)
    with pytest.raises(InputError, match="not finite"):
        probe_auc(np.where(x > 300, np.nan, x), labels, groups)
    with pytest.raises(InputError, match="shape"):
        probe_auc(x[0], labels, groups)
    with pytest.raises(InputError, match="groups"):
        probe_auc(x, labels, groups // 10)


def test_probe_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(AuguryError, match=r"pip install 'augury\[train\]'"):
        probe_auc(*clustered(0, signal=1.0))
