"""The stream of examples: how often each length is asked, and which weights a mix refuses."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from augury.data.mix import Mix, Stream
from augury.data.rollouts import Rollout


def stream(lengths: list[int]) -> Stream:
    found = [Rollout(i, "train", tuple(range(10 + n)), (2, 6), (10, 10 + n), {}) for i, n in enumerate(lengths)]
    return Stream(found, "train", 0, lambda ids: " ".join(map(str, ids)))


@pytest.mark.parametrize("task", ["past_lens", "future_lens"])
def test_every_k_is_asked_as_often_though_most_rollouts_are_too_short_for_the_long_ones(task):
    mix = Mix(weights={task: 1.0}, long_k=1.0)
    asked = [example for i in range(3000) for example in stream([12] * 30 + [80] * 3).unit(i, mix)]
    of_length = Counter((len(example.answer_ids) - 1) // 10 for example in asked)
    assert sorted(of_length) == [0, 1, 2, 3, 4]
    assert min(of_length.values()) > 0.17 * len(asked) and max(of_length.values()) < 0.23 * len(asked)


def test_short_k_take_all_rollouts_alike():
    mix = Mix(weights={"past_lens": 1.0}, long_k=0.0)
    asked = Counter(stream([20, 20, 80, 80]).unit(i, mix)[0].rollout for i in range(2000))
    assert min(asked.values()) > 430 and max(asked.values()) < 570


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": {"past": 1.0}},
        {"weights": {"open": 0.0}},
        {"weights": {"open": 1.0, "yes_no": -1.0}},
        {"weights": {"open": 1.0}, "yes_no": {"mood": 1.0}},
        {"weights": {"open": 1.0}, "open": {"near_topic": 1.0}},
        {"weights": {"open": 1.0}, "windows": 3},
        {"weights": {"open": float("nan")}},
        {"weights": {"open": float("inf")}},
        {"weights": {"open": 1.0}, "max_window": 0},
        {"weights": {"open": 1.0}, "lens_window": 0},
        {"weights": {"open": 1.0}, "single": 1.5},
    ],
)
def test_a_mix_of_what_is_not_known_is_refused(wrong):
    with pytest.raises(ValidationError):
        Mix.model_validate(wrong)


def test_with_a_window_of_one_every_question_reads_one_activation():
    mix = Mix(weights={"open": 1.0}, open={"speaker": 1.0}, max_window=1, single=0.0)
    assert {len(stream([20]).unit(i, mix)[0].positions) for i in range(50)} == {1}
