"""The order of a run's examples: shares, stages, every unit once before any twice, and the same after a resume."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from augury.data.mix import Order, Stage, check_stages, expected
from tests.unit.test_samplers import as_likely

UNITS = {"lens": np.arange(700), "pairs": np.repeat(np.arange(300), 2), "rare": np.arange(10)}


def stages(*shares: dict[str, float], forget: bool = False) -> list[Stage]:
    return [Stage(until=(i + 1) / len(shares), weights=weights, forget=forget) for i, weights in enumerate(shares)]


def order(weights: dict[str, float], pool: int = 100, total: int = 10_000, seed: int = 0) -> Order:
    return Order(stages(weights), UNITS, pool, total, seed)


def test_shares_are_of_examples() -> None:
    """A pair counts twice, and still gets its share and no more."""
    run = order({"lens": 0.5, "pairs": 0.4, "rare": 0.1})
    found = Counter(name for number in range(100) for name, _ in run.pool(number))
    as_likely(Counter({**found, "pairs": found["pairs"] // 2, "lens": found["lens"] // 2, "rare": found["rare"] // 2}),
              {"lens": 0.5, "pairs": 0.4, "rare": 0.1})  # fmt: skip


@given(st.integers(0, 2**32), st.integers(2, 60))
def test_every_unit_once_before_any_twice(seed: int, pool: int) -> None:
    run = order({"pairs": 1.0}, pool=2 * pool, seed=seed)
    rows = [row for number in range(-(-700 // (2 * pool))) for _, row in run.pool(number)]
    assert sorted(rows[:600]) == list(range(600))
    assert all(b == a + 1 and a % 2 == 0 for a, b in zip(rows[::2], rows[1::2], strict=True))
    assert rows[600:] != rows[: len(rows) - 600]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6))
def test_a_pool_is_a_function_of_its_number(numbers: list[int]) -> None:
    weights = {"lens": 0.5, "pairs": 0.4, "rare": 0.1}
    run = order(weights)
    assert [run.pool(number) for number in numbers] == [order(weights).pool(number) for number in numbers]


def test_stages_change_the_shares() -> None:
    run = Order(stages({"lens": 1.0}, {"lens": 0.1, "pairs": 0.9}), UNITS, 100, 2000, 0)
    assert {name for number in range(10) for name, _ in run.pool(number)} == {"lens"}
    later = Counter(name for number in range(10, 20) for name, _ in run.pool(number))
    assert later["pairs"] > 5 * later["lens"] > 0
    assert expected(stages({"lens": 1.0}, {"lens": 0.1, "pairs": 0.9}), 2000) == {"lens": 1100, "pairs": 900}


def test_a_stage_that_is_shorter_than_a_pool_is_not_passed_over() -> None:
    found = stages({"lens": 1.0}, {"lens": 0.2, "pairs": 0.8})
    drawn = [name for name, _ in Order(found, UNITS, 512, 480, 0).pool(0)[:480]]
    assert set(drawn[:240]) == {"lens"} and Counter(drawn)["pairs"] == pytest.approx(192, abs=30)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (stages({"lens": 1.0}, {"pairs": 1.0}), "forgotten"),
        (stages({"lens": 1.0}, {"lens": 0.09, "pairs": 0.91}), "forgotten"),
        (stages({"lens": 1.0}, {"lens": 0.5, "pairs": 0.5}, {"pairs": 1.0}), "forgotten"),
        (stages({"lense": 1.0}), "lense"),
        ([Stage(until=0.5, weights={"lens": 1.0})], "until"),
        ([Stage(until=1.0, weights={"lens": 1.0}), Stage(until=0.5, weights={"lens": 1.0})], "until"),
        ([], "until"),
    ],
)
def test_stages_that_make_no_sense_are_refused(found: list[Stage], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_stages(found, list(UNITS))


def test_a_tenth_is_enough_and_forgetting_can_be_said() -> None:
    check_stages(stages({"lens": 1.0}, {"lens": 0.1, "pairs": 0.9}), list(UNITS))
    check_stages(stages({"lens": 1.0}, {"pairs": 1.0}, forget=True), list(UNITS))


@pytest.mark.parametrize("wrong", [{}, {"lens": -1.0}, {"lens": 0.0}, {"lens": float("nan")}])
def test_weights_that_draw_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Stage(until=1.0, weights=wrong)


def test_a_source_that_is_weighed_at_all_gets_an_example():
    found = expected((Stage(until=1.0, weights={"a": 0.99, "b": 0.01}),), 40)
    assert found["b"] == 1 and found["a"] == 40
