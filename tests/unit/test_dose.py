"""Thresholds on straight lines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augury.errors import InputError
from augury.stats.dose import rising, threshold


def test_by_hand():
    assert threshold([0, 1], [0.5, 1.0], 0.75) == 0.5
    assert threshold([0, 0.1, 0.2], [0.5, 0.7, 0.8], 0.75) == pytest.approx(0.15)
    assert threshold([0, 1], [0.5, 0.74], 0.75) is None
    assert threshold([0.2, 1], [0.8, 0.9], 0.75) == 0.2
    assert threshold([0, 1, 2, 3], [0.5, 0.8, 0.6, 0.9], 0.7) == pytest.approx(2 / 3), "the least dose"


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=2, max_size=8), st.floats(0.05, 0.95))
def test_the_line_is_at_the_level_there(steps, level):
    doses = np.cumsum([dose for dose, _ in steps]).tolist()
    responses = [response for _, response in steps]
    found = threshold(doses, responses, level)
    if found is None:
        assert max(responses) < level
    elif responses[0] < level:
        assert np.interp(found, doses, responses) == pytest.approx(level, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=9))
def test_the_rising_curve_is_isotonic_regressions(rows):
    from sklearn.isotonic import IsotonicRegression

    responses, weights = [response for response, _ in rows], [float(weight) for _, weight in rows]
    wanted = IsotonicRegression().fit_transform(np.arange(len(rows)), responses, sample_weight=weights)
    assert rising(responses, weights) == pytest.approx(wanted.tolist())
    assert rising(sorted(responses)) == sorted(responses)


@pytest.mark.parametrize(("doses", "responses"), [([], []), ([1], [1, 2]), ([1, 1], [0, 1]), ([2, 1], [0, 1])])
def test_misuse(doses, responses):
    with pytest.raises(InputError):
        threshold(doses, responses, 0.5)
