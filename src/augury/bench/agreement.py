"""Whether an oracle's agreement with itself says how often it is right, beside what its log-probabilities say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augury.bench.asks import Ask
from augury.bench.engine import Result
from augury.bench.marks import right
from augury.bench.task import Task
from augury.errors import InputError
from augury.oracle.consensus import consensus
from augury.stats.calibration import ReliabilityBin, ece, ece_by_chance, reliability
from augury.stats.clusters import Figure, auc_figure, mean_difference, mean_figure

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class AtLeast:
    """What is left where only answers of so much confidence are taken.

    Attributes:
        threshold: The least confidence.
        answered: How many are left.
        precision: How many of these are right; None below six problems, or where none is left.
        recall: How many of all right ones are left; None where none is right.
    """

    threshold: float
    answered: int
    precision: Figure | None
    recall: float | None


@dataclass(frozen=True)
class Calibration:
    """One kind of confidence against what is true.

    Attributes:
        confidence: `agreement` (the share of samples in the largest group) or `log-probability` (of the greedy answer,
            as the mean probability of its tokens).
        bins: Confidence against accuracy.
        ece: The mean gap between both, weighted by answers.
        ece_by_chance: What that stays below 19 times of 20 where confidence is exactly right, with as many answers.
        gap: Confidence less accuracy, over problems: above zero it is too sure.
        auc: How well it tells right answers from wrong ones; None where all are one.
        at_least: By threshold.
        n: Answers.
    """

    confidence: str
    bins: tuple[ReliabilityBin, ...]
    ece: float
    ece_by_chance: float
    gap: Figure
    auc: Figure | None
    at_least: tuple[AtLeast, ...]
    n: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready fields."""
        return asdict(self)


def calibrations(task: Task, asks: Sequence[Ask], results: Sequence[Result | None]) -> list[Calibration]:
    """Of a task's sampled answers at its own window: agreement, and beside it the log-probability of the greedy answer.

    What agrees is the largest group of samples, so it is that group's answer which is right or wrong.
    """
    rows = [
        (ask, result)
        for ask, result in zip(asks, results, strict=True)
        if ask.window == task.window and result is not None and "samples" in result
    ]
    if not rows:
        return []
    problems = np.array([ask.item.problem for ask, _ in rows])
    agreed = [consensus(result["samples"]) for _, result in rows]
    shares = np.array(
        [found.groups[0].count / len(result["samples"]) for found, (_, result) in zip(agreed, rows, strict=True)]
    )
    said = [right(task, ask, found.groups[0].text) for found, (ask, _) in zip(agreed, rows, strict=True)]
    greedy = [right(task, ask, result["text"]) for ask, result in rows]
    sure = np.array([math.exp(result["log_prob"]) for _, result in rows])
    return [
        _calibration("agreement", shares, np.array(said), problems),
        _calibration("log-probability", sure, np.array(greedy), problems),
    ]


def _calibration(
    name: str, confidence: NDArray[np.float64], correct: NDArray[np.bool_], problems: NDArray[np.str_]
) -> Calibration:
    confidence = np.clip(confidence, 0.0, 1.0)
    try:
        auc = auc_figure(confidence, correct, problems)
    except InputError:
        auc = None
    return Calibration(
        confidence=name,
        bins=reliability(confidence, correct),
        ece=ece(confidence, correct),
        ece_by_chance=ece_by_chance(confidence),
        gap=mean_difference(confidence, correct, problems, (0.0, 1.0)),
        auc=auc,
        at_least=tuple(_at_least(t, confidence, correct, problems) for t in THRESHOLDS),
        n=len(confidence),
    )


def _at_least(
    threshold: float, confidence: NDArray[np.float64], correct: NDArray[np.bool_], problems: NDArray[np.str_]
) -> AtLeast:
    left = confidence >= threshold
    precision = mean_figure(correct[left].astype(float), problems[left]) if left.any() else None
    recall = float((correct & left).sum() / correct.sum()) if correct.any() else None
    return AtLeast(threshold, int(left.sum()), precision, recall)
