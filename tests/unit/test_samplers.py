"""Position samplers: their distribution, and that nothing outside the span is ever read."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from augury.data.samplers import ending_before, sample_positions, window

DRAWS = 10_000
SAMPLERS = ("published", "contiguous", "single")


def as_likely(found: Counter, weights: dict) -> None:
    """Chi-square: these counts may come from these weights."""
    assert set(found) <= set(weights)
    total = sum(weights.values())
    expected = [found.total() * weight / total for weight in weights.values()]
    assert chisquare([found[name] for name in weights], expected).pvalue > 1e-4


@given(st.sampled_from(SAMPLERS), st.integers(0, 300), st.integers(0, 200), st.integers(1, 60), st.integers())
def test_positions_rise_inside_the_span(sampler: str, start: int, length: int, longest: int, seed: int) -> None:
    span = range(start, start + length)
    found = sample_positions(sampler, span, longest, random.Random(seed))
    assert list(found) == sorted(set(found))
    assert set(found) <= set(span)
    assert bool(found) == bool(length)
    assert found == sample_positions(sampler, span, longest, random.Random(seed))
    if sampler != "published":
        assert len(found) <= (1 if sampler == "single" else longest)
        assert not found or found == tuple(range(found[0], found[0] + len(found)))
    elif found:
        assert {span[0], span[-1]} <= set(found)


def test_single_positions_are_as_likely() -> None:
    rng = random.Random(0)
    found = Counter(sample_positions("single", range(5, 25), 1, rng) for _ in range(DRAWS))
    as_likely(found, {(position,): 1 for position in range(5, 25)})


def test_windows_have_each_length_and_place() -> None:
    rng = random.Random(0)
    found = [sample_positions("contiguous", range(20), 4, rng) for _ in range(DRAWS)]
    as_likely(Counter(map(len, found)), dict.fromkeys(range(1, 5), 1))
    as_likely(Counter(window[0] for window in found if len(window) == 3), dict.fromkeys(range(18), 1))


def test_published_positions() -> None:
    """The shares of Bauer et al. 2026, on a span so long that its ways do not meet."""
    rng, span = random.Random(0), range(1000, 11_000)
    found = [sample_positions("published", span, 1, rng) for _ in range(DRAWS)]
    first, last = span[0], span[-1]
    ways = {
        (first, last): "ends",
        (first, last - 1, last): "last two",
        (first, last - 2, last - 1, last): "last three",
    }
    as_likely(
        Counter(ways.get(p, "scattered") for p in found),
        {"ends": 20, "last two": 15, "last three": 15, "scattered": 50},
    )
    counts = [len(p) - 2 for p in found if p not in ways]
    assert 2 <= min(counts) <= 3 and 97 <= max(counts) <= 100
    edges = [2, 5, 10, 20, 50, 101]
    bins = Counter(next(i for i, edge in enumerate(edges[1:]) if count < edge) for count in counts)
    widths = {i: math.log((edges[i + 1] - 0.5) / max(2, edges[i] - 0.5)) for i in range(5)}
    widths[4] = math.log(100 / 49.5)
    as_likely(bins, widths)


def test_windows_before_the_end() -> None:
    rng = random.Random(0)
    found = [ending_before(100, 10, 5, 50, 0.5, rng) for _ in range(DRAWS)]
    as_likely(Counter(p[-1] for p in found), dict.fromkeys(range(95, 100), 1))
    share = sum(len(p) == 1 for p in found) / DRAWS
    assert share == pytest.approx(0.5 + 0.5 / 50, abs=0.02)
    as_likely(Counter(len(p) for p in found if len(p) > 1), dict.fromkeys(range(2, 51), 1))


@given(st.integers(0, 50), st.integers(1, 80), st.integers(1, 9), st.integers(1, 60), st.integers())
def test_windows_before_the_end_stay_inside(start: int, length: int, slack: int, longest: int, seed: int) -> None:
    found = ending_before(start + length, start, slack, longest, 0.3, random.Random(seed))
    assert 1 <= len(found) <= longest
    assert start <= found[0] and found[-1] < start + length


def test_a_window_that_does_not_fit() -> None:
    assert window(range(3), 4, random.Random(0)) == ()
    assert window(range(3), 3, random.Random(0)) == (0, 1, 2)
