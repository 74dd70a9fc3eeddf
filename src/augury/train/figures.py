"""Held-out figures of an oracle, kept example by example, so that two oracles can be compared pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from augury.contract import Contract
from augury.errors import InputError
from augury.lm.chat import needs_tokenizer
from augury.stats import Interval, bootstrap_interval
from augury.train.lens_report import lens_examples, lens_losses
from augury.train.prepare import Prepared
from augury.train.question_report import yes_no_examples, yes_no_margins
from augury.train.topic_report import ask_topics

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class FigureSize:
    """How many examples stand behind each figure."""

    lens: int = 300
    pairs: int = 200
    topics: int = 150


@dataclass(frozen=True)
class Figure:
    """One figure of one oracle: a ratio of sums over examples.

    Attributes:
        rows: `[n, 3]`: the number of the context, the numerator and the denominator of each example.
        better: 1 where more is better, -1 where less is.
        chance: What knowing nothing gives, where that is known.
    """

    rows: tuple[tuple[float, float, float], ...]
    better: int
    chance: float | None = None

    def interval(self) -> Interval:
        """The ratio, with its interval over contexts."""
        found = np.array(self.rows)
        return bootstrap_interval(found[:, 1:], _ratio, found[:, 0])

    def minus(self, other: Figure) -> Interval:
        """By how much it is larger than the same figure of another oracle, example by example.

        Raises:
            InputError: They were not measured on the same examples.
        """
        own, base = np.array(self.rows), np.array(other.rows)
        if own.shape != base.shape or not np.array_equal(own[:, 0], base[:, 0]):
            raise InputError(
                "Two figures cannot be compared.",
                "they were not measured on the same examples",
                "measure both again with one data set and one size",
            )
        both = np.column_stack([own[:, 1:], base[:, 1:]])
        return bootstrap_interval(both, lambda rows: _ratio(rows[:, :2]) - _ratio(rows[:, 2:]), own[:, 0])


def _ratio(rows: Rows) -> float:
    return float(rows[:, 0].sum() / rows[:, 1].sum())


def measure(prepared: Prepared, contract: Contract, adapter: str, size: FigureSize) -> dict[str, Figure]:
    """Lens losses and gaps, topic questions in pairs, and the topic named in the oracle's own words.

    Raises:
        InputError: No set answers the bank's held-out prompts.
    """
    bank = prepared.bank
    if bank is None:
        raise InputError(
            "The figures cannot be measured.",
            "no set of contexts answers the held-out prompts of the bank",
            "give the recipe a set of type rollouts with prompts: bank and heldout above 0",
        )
    lm, rollouts, reads = prepared.lm, bank.rollouts["heldout"], bank.reads["heldout"]
    found: dict[str, Figure] = {}
    for task in ("past_lens", "future_lens"):
        examples = lens_examples(lm, rollouts, task, 8, size.lens)
        sums = lens_losses(lm, contract, adapter, examples, rollouts, reads)
        tokens = [len(example.answer_ids or ()) for example in examples]
        contexts = [example.context for example in examples]
        name = task.replace("_", " ")
        found[f"{name}: loss"] = Figure(_rows(contexts, sums[:, 0], tokens), -1)
        found[f"{name}: shuffled - real"] = Figure(_rows(contexts, sums[:, 1] - sums[:, 0], tokens), 1, 0.0)
    for window in (1, 10):
        asked = yes_no_examples(rollouts, {"topic": size.pairs}, window, needs_tokenizer(lm).decode)
        margins = yes_no_margins(lm, contract, adapter, asked, reads)
        right = [float(yes > no) + 0.5 * (yes == no) for yes, no in zip(margins[::2], margins[1::2], strict=True)]
        contexts = [example.context for example in asked[::2]]
        found[f"topic pairs right at {window}"] = Figure(_rows(contexts, right, [1] * len(right)), 1, 0.5)
    topics = ask_topics(lm, contract, adapter, rollouts, reads, window=10, count=size.topics)
    hits = topics.hits(topics.answers)
    contexts = [example.context for example in topics.examples]
    found["topic named at 10"] = Figure(_rows(contexts, hits, [1] * len(hits)), 1, 0.0)
    return found


def _rows(
    contexts: Sequence[int], above: Sequence[float] | Rows, below: Sequence[float]
) -> tuple[tuple[float, float, float], ...]:
    return tuple((float(c), float(a), float(b)) for c, a, b in zip(contexts, above, below, strict=True))


def to_json(figures: Mapping[str, Figure]) -> dict[str, object]:
    """What `from_json` reads."""
    return {
        name: {"rows": figure.rows, "better": figure.better, "chance": figure.chance}
        for name, figure in figures.items()
    }


def from_json(found: Mapping[str, dict]) -> dict[str, Figure]:
    """Figures as `to_json` wrote them."""
    return {
        name: Figure(tuple(map(tuple, row["rows"])), row["better"], row["chance"])  # type: ignore[arg-type]
        for name, row in found.items()
    }
