"""Means of several figures: they hold the truth as often as they say, whatever number of problems each has."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from augury.errors import InputError
from augury.stats.clusters import Figure, auc_figure, mean_figure
from augury.stats.combined import combined

DRAWS = 2000


def coverage(draw, truth: float) -> float:
    rng = np.random.default_rng(0)
    found = [draw(rng) for _ in range(DRAWS)]
    return float(np.mean([one.low <= truth <= one.high for one in found]))


@pytest.mark.parametrize("sizes", [(3, 3, 3), (3, 3, 4, 3), (9, 6), (15, 6), (29, 100), (9, 9, 9, 9)])
@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_means_of_figures_of_few_problems_hold_their_level(sizes, shift):
    """Each problem scores a truth and falsehoods of its own, with a lean of its own: as organisms do."""
    items = 4

    def figure(rng, count):
        labels = np.tile([True] * items + [False] * items, count)
        codes = np.repeat(np.arange(count), 2 * items)
        own = rng.normal(0, 0.7, count)[codes] + (rng.normal(shift, 0.4, count)[codes]) * labels
        return auc_figure(own + rng.normal(0, 1, codes.size), labels, codes)

    def draw(rng):
        return combined([figure(rng, count) for count in sizes])

    rng = np.random.default_rng(1)
    truth = float(np.mean([figure(rng, count).estimate for _ in range(2000) for count in sizes]))
    assert 0.92 <= coverage(draw, truth) <= 0.99


def test_figures_that_share_problems_are_taken_to_err_together():
    """The worst case: the mean of a figure with itself is as sure as the figure, and no surer."""

    def draw(rng):
        values = np.repeat(rng.normal(2.0, 1.0, 9), 3)
        one = mean_figure(values, np.repeat(np.arange(9), 3), None)
        return combined([one, one], ["here", "here"])

    assert 0.935 <= coverage(draw, 2.0) <= 0.965
    one = mean_figure([0.0, 1.0, 2.0, 3.0, 1.0, 1.0], bounds=None)
    same, apart = combined([one, one], ["a", "a"]), combined([one, one])
    assert (same.low, same.high) == pytest.approx((one.low, one.high)) and same.clusters == 6
    assert apart.high - apart.low < 0.72 * (one.high - one.low) and apart.clusters == 12


def test_by_hand():
    """Satterthwaite's degrees of freedom for two variances, and the interval that follows."""
    one, other = (Figure(e, None, None, 8, 4, "none", s, 3.0) for e, s in ((0.4, 0.1), (0.8, 0.2)))
    found = combined([one, other])
    assert found.estimate == pytest.approx(0.6) and found.error == pytest.approx((0.05**0.5) / 2)
    freedom = 0.05**2 / (0.01**2 / 5 + 0.04**2 / 5) - 2
    assert found.freedom == pytest.approx(freedom)
    assert found.high - found.estimate == pytest.approx(stdtrit(freedom, 0.975) * found.error)
    assert combined([one, other], bounds=(0.0, 1.0)).high <= 1.0


def test_what_has_no_error_or_too_few_problems_has_no_interval():
    bare, few = Figure(0.5, None, None, 4, 1, "none"), Figure(0.5, None, None, 4, 2, "none", 0.1, 1.0)
    assert combined([bare, few, few, few]).how == "none"
    two = combined([few, few])
    assert two.low is None and two.error == pytest.approx(0.1 / 2**0.5), "but the error is there for a mean of more"
    assert combined([two, two]).low is not None or combined([two, two]).clusters < 6
    with pytest.raises(InputError, match="no figures"):
        combined([])


def test_a_figure_on_another_scale():
    one = Figure(0.75, 0.6, 0.9, 10, 8, "jackknife", 0.05, 7.0)
    found = one.scaled(0.5, 1.0)
    assert (found.estimate, found.low, found.high, found.error) == pytest.approx((0.5, 0.2, 0.8, 0.1))
    assert Figure(0.75, None, None, 4, 3, "none").scaled(0.5, 1.0).low is None


def test_what_was_always_right_is_as_uncertain_in_a_mean():
    """No spread was seen, which is not the same as none."""
    sure = mean_figure([1.0] * 9)
    assert sure.error == pytest.approx((1.0 - sure.low) / stdtrit(8, 0.975))
    assert combined([sure, sure]).low < 1.0
