"""Intervals over problems: they hold the truth as often as they say, in simulations from a handful of problems on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augury.errors import InputError
from augury.stats import roc_auc, roc_auc_by_group, wilson
from augury.stats.clusters import auc_difference, auc_figure, mean_difference, mean_figure
from augury.stats.intervals import bootstrap_interval

DRAWS = 2000
SIZES = (9, 15, 29, 100)
ITEMS = 5


def coverage(draw: Callable[[np.random.Generator], tuple], truth: float, draws: int = DRAWS) -> float:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(draws):
        figure = draw(rng)
        held.append(figure.low <= truth <= figure.high)
    return float(np.mean(held))


def problems(count: int, items: int = ITEMS) -> np.ndarray:
    return np.repeat(np.arange(count), items)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("rate", [0.03, 0.07, 0.3, 0.5, 0.8, 0.95])
def test_rates_hold_their_level(count, rate):
    """Each problem has a rate of its own: items of one problem agree more often than chance."""

    def draw(rng):
        own = rng.beta(4 * rate, 4 * (1 - rate), count)
        return mean_figure(rng.random(count * ITEMS) < np.repeat(own, ITEMS), problems(count))

    assert 0.92 <= coverage(draw, rate) <= 0.985


@pytest.mark.parametrize("count", SIZES)
def test_marks_on_a_scale_hold_their_level_with_problems_of_unequal_size(count):
    sizes = np.arange(count) % 7 + 1
    codes = np.repeat(np.arange(count), sizes)

    def marks(rng, own):
        return np.clip(np.round(own + rng.normal(0, 0.8, len(own))), 1, 5)

    def draw(rng):
        return mean_figure(marks(rng, rng.normal(2.4, 0.7, count)[codes]), codes, (1.0, 5.0))

    rng = np.random.default_rng(1)
    assert 0.92 <= coverage(draw, float(marks(rng, rng.normal(2.4, 0.7, 10**6)).mean())) <= 0.98


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("share", [0.03, 0.07, 0.5, 0.93])
def test_marks_near_the_ends_of_a_scale_hold_their_level(count, share):
    def draw(rng):
        own = rng.beta(6 * share, 6 * (1 - share), count)
        return mean_figure(1.0 + rng.binomial(4, own), None, (1.0, 5.0))

    assert 0.92 <= coverage(draw, 1 + 4 * share) <= 0.985


@pytest.mark.parametrize("count", SIZES)
def test_shares_of_single_items_hold_their_level(count):
    assert 0.92 <= coverage(lambda rng: mean_figure(rng.random(count) < 0.4), 0.4) <= 0.98


def scored(rng, count: int, shift: float, mixed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scores with a part of the problem's own; the labels differ within problems, or between them."""
    size = count * ITEMS
    labels = np.arange(size) % 2 == 1 if mixed else problems(count) % 2 == 1
    return rng.normal(0, 1, size) + np.repeat(rng.normal(0, 0.7, count), ITEMS) + shift * labels, labels


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize(("shift", "mixed"), [(0.5, True), (1.5, True), (0.8, False)])
def test_aucs_hold_their_level(count, shift, mixed):
    def draw(rng):
        return auc_figure(*scored(rng, count, shift, mixed), problems(count))

    scores, labels = scored(np.random.default_rng(1), 60_000, shift, mixed)
    assert 0.92 <= coverage(draw, roc_auc(scores, labels)) <= 0.98


@pytest.mark.parametrize("count", SIZES)
def test_differences_hold_their_level(count):
    """Two readers of the same items: they err together, and one is better."""

    def pair(rng, size):
        shared, labels = scored(rng, size, 0.8, True)
        return shared + 0.5 * labels, shared + rng.normal(0, 1, len(shared)), labels

    def auc(rng):
        return auc_difference(*pair(rng, count), problems(count))

    def mean(rng):
        one, other, _ = pair(rng, count)
        return mean_difference(one > 0.4, other > 0.4, problems(count))

    one, other, labels = pair(np.random.default_rng(1), 60_000)
    assert 0.92 <= coverage(auc, roc_auc(one, labels) - roc_auc(other, labels)) <= 0.98
    assert 0.92 <= coverage(mean, float((one > 0.4).mean() - (other > 0.4).mean())) <= 0.98


@pytest.mark.parametrize("count", [50, 100])
def test_the_bootstrap_holds_its_level_where_it_is_used(count):
    def draw(rng):
        own = np.repeat(rng.normal(0, 1, count), ITEMS) + rng.normal(0, 1, count * ITEMS)
        return bootstrap_interval(own, groups=problems(count), n=500)

    assert 0.92 <= coverage(draw, 0.0) <= 0.98


def test_where_no_spread_was_seen_an_interval_has_width_all_the_same():
    ones, zeros = np.ones(8), np.zeros(8)
    found = mean_difference(ones, zeros, bounds=(0.0, 1.0))
    assert found.estimate == 1 and 0 < found.low < 0.7 and found.high == 1
    scale = mean_figure(ones, None, (1.0, 5.0))
    assert (scale.estimate, scale.low) == (1, 1) and 1.5 < scale.high < 3.5
    middle = mean_figure(3 * ones, None, (1.0, 5.0))
    assert middle.low < 2.5 and middle.high > 3.5
    same = mean_difference(ones, ones, bounds=(0.0, 1.0))
    assert (same.low, same.high) == (0, 0), "what is equal in every item does not differ"
    labels = np.arange(16) % 2 == 1
    won = auc_difference(labels * 1.0, 1.0 - labels, labels, np.arange(16))
    assert won.estimate == 1 and won.low < 0.9


def test_the_score_interval_is_wilsons_at_the_effective_number_with_t():
    from scipy.stats import t

    values = np.array([0.2, 0.4, 0.1, 0.0, 0.6, 0.3, 0.2, 0.5])
    found = mean_figure(values)
    p, spread = values.mean(), values.var(ddof=1) / 8
    n, z = p * (1 - p) / spread, t.ppf(0.975, 7)
    roots = np.roots([1 + z**2 / n, -(2 * p + z**2 / n), p**2])  # (p - x)^2 = z^2 x (1 - x) / n
    assert found.how == "score" and sorted(roots) == pytest.approx([found.low, found.high])


@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(-3, 3), st.booleans()), min_size=12, max_size=60),
    st.randoms(use_true_random=False),
)
def test_the_jackknife_is_what_a_plain_loop_makes(rows, random):
    codes, scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    wordings = np.array([random.randrange(2) for _ in rows])
    try:
        whole = roc_auc_by_group(scores, labels, wordings)
        found = auc_figure(scores, labels, codes, within=wordings)
        without = [
            roc_auc_by_group(scores[codes != c], labels[codes != c], wordings[codes != c]) for c in np.unique(codes)
        ]
    except InputError:
        return
    assert found.estimate == pytest.approx(whole)
    if found.how == "jackknife" and found.low not in (0, None):
        count = len(without)
        spread = np.sqrt((count - 1) / count * np.sum((np.array(without) - np.mean(without)) ** 2))
        quantile = {6: 2.5706, 7: 2.4469, 8: 2.3646, 9: 2.3060, 10: 2.2622}[count]
        assert found.low == pytest.approx(max(whole - quantile * spread, 0), abs=1e-4)


def test_a_mean_is_over_problems_and_by_hand():
    found = mean_figure([1, 1, 1, 1, 0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 1, 2, 3, 3, 4, 5])
    means = np.array([1, 0, 1, 0, 1, 0])
    assert found.estimate == means.mean() and found.how == "wilson" and (found.n, found.clusters) == (10, 6)
    assert (found.low, found.high) == (wilson(3, 6).low, wilson(3, 6).high)
    found = mean_figure([0.2, 0.4, 0.6, 0.8, 0.5, 0.5], bounds=None)
    half = 2.5706 * np.std([0.2, 0.4, 0.6, 0.8, 0.5, 0.5], ddof=1) / np.sqrt(6)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-4) and found.how == "t"


def test_there_is_no_interval_below_six_problems():
    assert mean_figure([0, 1, 1, 0, 1]).low is None and mean_figure([0, 1, 1, 0, 1]).how == "none"
    five = np.repeat(np.arange(5), 4)
    assert auc_figure(np.arange(20), np.arange(20) % 2, five).how == "none"
    assert mean_figure([0, 1, 1, 0, 1, 1]).low is not None
    lonely = [True, *[False] * 9]  # without the one problem that has a yes there is no AUC
    assert auc_figure(np.arange(10), lonely).how == "none"


def test_what_was_always_right_is_not_certain():
    assert mean_figure(np.ones(40), np.repeat(np.arange(8), 5)).low == wilson(8, 8).low
    found = auc_figure(np.arange(20), np.arange(20) >= 10)
    assert found.estimate == 1 and found.low == wilson(10, 10).low < 0.8 and found.high == 1
    found = auc_figure(-np.arange(20), np.arange(20) >= 10)
    assert found.estimate == 0 and found.low == 0 and found.high == wilson(0, 10).high


def test_a_difference_of_a_thing_with_itself_is_zero():
    scores, labels = scored(np.random.default_rng(0), 12, 1.0, True)
    same = auc_difference(scores, scores, labels, problems(12))
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    swapped = auc_difference(scores, -scores, labels, problems(12))
    assert swapped.estimate == pytest.approx(2 * roc_auc(scores, labels) - 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_figure([]),
        lambda: mean_figure([0.5, float("nan")]),
        lambda: mean_figure([2.0]),
        lambda: mean_figure([1, 0], [1]),
        lambda: mean_difference([1, 0], [1]),
        lambda: auc_difference([1, 0], [1], [1, 0]),
        lambda: mean_figure(np.arange(8) / 8, level=1.5),
    ],
)
def test_what_means_nothing_is_refused(call):
    with pytest.raises(InputError):
        call()
