"""What a task measures: the marks of each rater's answers, and the figures over problems that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from augury.bench.asks import Ask
from augury.bench.engine import Result
from augury.bench.rubrics import SCALE_ENDS, VERDICT, Rubric, rubrics
from augury.bench.scorers import first_number, likeliest, margin, says
from augury.bench.task import YES, Task
from augury.errors import InputError
from augury.stats.clusters import Figure, auc_difference, auc_figure, mean_difference, mean_figure

Floats = NDArray[np.float64]
AUC, RATE, NATS, SCALE = "auc", "rate", "nats", "scale"
BOUNDS: dict[str, tuple[float, float] | None] = {RATE: (0.0, 1.0), SCALE: SCALE_ENDS, NATS: None}


@dataclass(frozen=True)
class Measure:
    """One thing that a task measures.

    Attributes:
        name: Its name.
        kind: `auc` (marks are margins, and labels say what is true), `rate` (marks from 0 to 1), `scale` (a judge's,
            from 1 to 5), or `nats` (losses).
        mark: From an ask and a result to a mark; None: the item does not count.
        chance: What knowing nothing gives, where that is known.
        better: 1 where more is better, -1 where less is, 0 where neither is.
    """

    name: str
    kind: str
    mark: Callable[[Task, Ask, Result], float | None]
    chance: float | None = None
    better: int = 1


def measures_of(task: Task) -> tuple[Measure, ...]:
    """What a task of this kind measures, the headline first."""
    if task.kind == "yes_no":
        return (Measure("auc", AUC, _margin, 0.5),)
    if task.kind == "choice":
        return (Measure("right", RATE, _right, 1 / len(task.choices) if task.choices else None),)
    if task.kind == "letter":
        return _against_model(_chosen, 1 / len(task.choices))
    if task.kind == "number":
        return _against_model(_numbered, None)
    if task.kind == "word":
        return (Measure("named", RATE, _named, None),)
    if task.kind == "tokens":
        return (Measure("exact", RATE, _exact, None), Measure("nats", NATS, _nats, None, -1))
    return _judged(rubrics()[task.rubric]) if task.rubric else ()


def _judged(rubric: Rubric) -> tuple[Measure, ...]:
    """What a judge gave; answers that were not judged, or could not be, do not count, and are counted elsewhere."""

    def scale(name: str) -> Callable[[Task, Ask, Result], float | None]:
        return lambda task, ask, result: float(result["given"][name]) if "given" in result else None

    def share(verdicts: Sequence[str]) -> Callable[[Task, Ask, Result], float | None]:
        return lambda task, ask, result: float(result["given"][VERDICT] in verdicts) if "given" in result else None

    if rubric.verdicts:
        return tuple(
            Measure(name, RATE, share(of), None, 1 if set(of) & set(rubric.right) else -1)
            for name, of in rubric.measures.items()
        )
    names = sorted(rubric.scales, key=lambda name: name != rubric.headline)
    return tuple(Measure(name, SCALE, scale(name)) for name in names)


def _against_model(said: Callable[[Task, Ask, Result, str], bool], chance: float | None) -> tuple[Measure, ...]:
    """Only where the model is wrong can one tell its answer from the true one: two rates."""

    def rate(fact: str) -> Callable[[Task, Ask, Result], float | None]:
        def mark(task: Task, ask: Ask, result: Result) -> float | None:
            if ask.item.facts["model_answer"] == ask.item.facts["true_answer"]:
                return None
            return float(said(task, ask, result, fact))

        return mark

    return (
        Measure("matches the model", RATE, rate("model_answer"), chance),
        Measure("matches the truth", RATE, rate("true_answer"), chance, 0),  # it inferred, and did not read
    )


def _margin(task: Task, ask: Ask, result: Result) -> float:
    return margin(result["log_probs"])


def _chosen(task: Task, ask: Ask, result: Result, fact: str) -> bool:
    return task.choices_of(ask.item)[likeliest(result["log_probs"])] == ask.item.facts[fact]


def _right(task: Task, ask: Ask, result: Result) -> float:
    return float(_chosen(task, ask, result, task.truth))


def _numbered(task: Task, ask: Ask, result: Result, fact: str) -> bool:
    return first_number(result["text"]) == float(ask.item.facts[fact])


def right(task: Task, ask: Ask, answer: str) -> bool:
    """Whether a short answer names what is true, or what is as good."""
    facts = ask.item.facts
    return says(answer, [facts[task.truth], *filter(None, facts.get("also", "").split("|"))])


def _named(task: Task, ask: Ask, result: Result) -> float:
    return float(right(task, ask, result["text"]))


def _exact(task: Task, ask: Ask, result: Result) -> float:
    return float(np.mean(result["likeliest"]))


def _nats(task: Task, ask: Ask, result: Result) -> float:
    return -float(np.mean(result["log_probs"]))


@dataclass(frozen=True, eq=False)
class Marks:
    """One rater's marks in one measure, over the asks that count for every rater that is compared.

    Attributes:
        values: `[n]`.
        labels: `[n]`, what is true, for AUCs; else None.
        problems: `[n]`, what intervals are over.
        within: `[n]`, what is compared with each other, for AUCs.
        items: How many items they are about.
    """

    values: Floats
    labels: NDArray[np.bool_] | None
    problems: NDArray[np.str_]
    within: NDArray[np.str_]
    items: int


def marks(task: Task, measure: Measure, asks: Sequence[Ask], results: Sequence[Result | None]) -> Marks | None:
    """The marks of what was answered and counts; None where nothing is left."""
    found = [
        (ask, result, mark)
        for ask, result in zip(asks, results, strict=True)
        if result is not None and (mark := measure.mark(task, ask, result)) is not None
    ]
    if not found:
        return None
    labels = [ask.item.facts[task.truth] == YES for ask, _, _ in found] if measure.kind == AUC else None
    return Marks(
        np.array([mark for _, _, mark in found]),
        None if labels is None else np.array(labels),
        np.array([ask.item.counted_by for ask, _, _ in found]),
        np.array([_within(task, ask, result) for ask, result, _ in found]),
        len({ask.item.id for ask, _, _ in found}),
    )


def _within(task: Task, ask: Ask, result: Result) -> str:
    """What an answer is compared with: those to the same wording in the same stratum, of one probe's fold."""
    return f"{ask.wording} {result.get('fold', '')} {ask.item.facts[task.stratum] if task.stratum else ''}"


def figure(measure: Measure, found: Marks) -> Figure | None:
    """The figure of a rater's marks; None where an AUC has one answer only."""
    if measure.kind != AUC:
        return mean_figure(found.values, found.problems, BOUNDS[measure.kind])
    assert found.labels is not None
    try:
        return auc_figure(found.values, found.labels, found.problems, within=found.within)
    except InputError:
        return None


def difference(measure: Measure, one: Marks, other: Marks) -> Figure | None:
    """By how much the first rater is ahead of the second, item by item."""
    if measure.kind != AUC:
        return mean_difference(one.values, other.values, one.problems, BOUNDS[measure.kind])
    assert one.labels is not None
    try:
        return auc_difference(one.values, other.values, one.labels, one.problems, within=one.within)
    except InputError:
        return None


def compared(
    task: Task,
    measure: Measure,
    asks: Sequence[Ask],
    results: Mapping[str, Sequence[Result | None]],
    one: str,
    other: str,
) -> Figure | None:
    """`difference` over the asks that count for both raters."""

    def counts(i: int, rater: str) -> bool:
        result = results[rater][i]
        return result is not None and measure.mark(task, asks[i], result) is not None

    both = [i for i in range(len(asks)) if counts(i, one) and counts(i, other)]
    chosen = [asks[i] for i in both]
    found = [marks(task, measure, chosen, [results[rater][i] for i in both]) for rater in (one, other)]
    if found[0] is None or found[1] is None:
        return None
    return difference(measure, found[0], found[1])
