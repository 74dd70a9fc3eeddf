"""Questions with given choices: scored, placed among the donors, and set beside their controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median_low
from typing import TYPE_CHECKING

from torch import Tensor

from augury.oracle.answers import Score, Unavailable
from augury.oracle.asking import split_notes
from augury.oracle.choices import Spelled, choice_logprobs, weigh
from augury.oracle.controls import Item, answering, plans, run_plans
from augury.oracle.passes import Row, Runner

if TYPE_CHECKING:
    from augury.oracle.oracle import Oracle


def score_items(
    oracle: Oracle,
    items: Sequence[Item],
    runner: Runner,
    spelled: Spelled,
    *,
    donors: int,
    controls: bool,
    done: Callable[[int], None] | None = None,
) -> list[Score]:
    """Score each item, among `donors` donors (0: none) and under all controls where asked for."""
    found = choice_logprobs(runner, [item.row for item in items], spelled, done)
    scores = [score_of(oracle, item, runner, spelled, row) for item, row in zip(items, found, strict=True)]
    if donors:
        pairs = zip(items, scores, strict=True)
        scores = [among_donors(oracle, item, runner, spelled, score, donors) for item, score in pairs]
    return with_controls(oracle, items, runner, spelled, scores, donors) if controls else scores


def with_controls(
    oracle: Oracle, items: Sequence[Item], runner: Runner, spelled: Spelled, scores: Sequence[Score], donors: int
) -> list[Score]:
    """The scores of these items, with the same question under every control."""
    results = dict(enumerate(scores))
    for some in controlled(oracle, items, runner, spelled, scores, donors):
        results |= some
    return list(results.values())


def controlled(
    oracle: Oracle,
    items: Sequence[Item],
    runner: Runner,
    spelled: Spelled,
    scores: Sequence[Score],
    donors: int,
    done: Callable[[int], None] | None = None,
    swap: bool = True,
) -> Iterator[dict[int, Score]]:
    """The scores, by number, with the controls that there are so far, whenever some have been run.

    The last of each number has them all. What `done` raises, which is called after each pass, ends it. Without `swap`
    donors are always the bank's.
    """
    who = answering(runner, oracle.reader)

    def run(whose: Runner, rows: Sequence[Row]) -> list[Tensor]:
        return list(choice_logprobs(whose, rows, spelled, done))

    def made(i: int, name: str, log_probs: Tensor) -> Score:
        return score_of(oracle, items[i], who[name], spelled, log_probs)

    def of_donors(i: int) -> Score | Unavailable:
        return median_donor(oracle, items[i], runner, spelled, donors)

    planned = plans(runner.lm, runner.contract, items, spelled.new_tokens, swap)
    for found in run_plans(planned, [range(len(items))], who, run, made, of_donors):
        yield {i: replace(scores[i], controls=controls) for i, controls in found.items()}


def score_of(oracle: Oracle, item: Item, runner: Runner, spelled: Spelled, log_probs: Tensor) -> Score:
    """A score from the log-probabilities `[choices]`."""
    weighed = weigh(log_probs)
    warned, noted = split_notes(item.notes)
    if weighed.warning is not None:
        warned = (*warned, weighed.warning)
    return Score(
        question=item.question,
        choices=spelled.choices,
        log_probs=weighed.log_probs,
        margin=weighed.margin,
        probability=weighed.probability,
        mass=weighed.mass,
        method=spelled.method,
        spellings=spelled.texts,
        source=oracle.source_of(item.acts, runner),
        warnings=warned,
        notes=noted,
    )


def among_donors(oracle: Oracle, item: Item, runner: Runner, spelled: Spelled, score: Score, donors: int) -> Score:
    """The score with its place among the donors' margins."""
    found = donor_logprobs(oracle, item, runner, spelled, donors)
    if isinstance(found, Unavailable):
        return replace(score, notes=(*score.notes, f"not checked: the place among donors ({found.reason})"))
    margins = tuple(weigh(row).margin for row in found)
    below = sum((margin < score.margin) + 0.5 * (margin == score.margin) for margin in margins)
    return replace(
        score,
        percentile=100 * below / len(margins),
        donor_median=median_low(margins),
        donor_margins=margins,
    )


def median_donor(oracle: Oracle, item: Item, runner: Runner, spelled: Spelled, donors: int) -> Score | Unavailable:
    """The score of the donor whose margin is the (lower) median: the control of a single question."""
    found = donor_logprobs(oracle, item, runner, spelled, donors)
    if isinstance(found, Unavailable):
        return found
    margins = [weigh(row).margin for row in found]
    score = score_of(oracle, item, runner, spelled, found[margins.index(median_low(margins))])
    return replace(score, donor_margins=tuple(margins))


def donor_logprobs(oracle: Oracle, item: Item, runner: Runner, spelled: Spelled, donors: int) -> Tensor | Unavailable:
    """The log-probabilities of the choices about each donor: `[donors, choices]`, remembered per question."""
    rows = oracle.donor_rows(item, donors)
    if isinstance(rows, Unavailable):
        return rows
    key = ("score", item.acts.layers, item.prompt.token_ids, runner.coefficient, spelled, donors)
    return oracle.remember(key, lambda: choice_logprobs(runner, rows, spelled))
