"""Two runs side by side: the oracles' figures, and their difference item by item where both were asked the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augury.bench.asks import Ask
from augury.bench.conclude import ANSWERS, ITEMS, JUDGED, settings_of, tasks_of
from augury.bench.engine import ORACLE, Result
from augury.bench.item import read_items
from augury.bench.judge import read_judged, with_judgements
from augury.bench.kept import answers_of
from augury.bench.marks import Measure, compared, figure, marks, measures_of
from augury.bench.task import Registry, Task
from augury.bench.tasks import REGISTRY
from augury.errors import InputError
from augury.stats.clusters import Figure


@dataclass(frozen=True)
class Compared:
    """One measure of one task in two runs.

    Attributes:
        task: The task.
        measure: The measure's name.
        better: 1 where more is better, -1 where less is.
        one: The first run's oracle.
        other: The second's.
        difference: The second less the first, over the questions that both answered; None: they have none in common,
            or read other targets or organisms, or were judged by others.
        items: How many items that rests on.
    """

    task: str
    measure: str
    better: int
    one: Figure | None
    other: Figure | None
    difference: Figure | None
    items: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready fields."""
        figures = {"one": self.one, "other": self.other, "difference": self.difference}
        plain = {name: found.to_dict() if found else None for name, found in figures.items()}
        return {"task": self.task, "measure": self.measure, "better": self.better, "items": self.items, **plain}


def oracle_of(run: Path) -> str:
    """The name of a run's oracle.

    Raises:
        NotFoundError: It is no run's folder.
    """
    return settings_of(run)["oracle"]["name"]


def compare(one: Path, other: Path, registry: Registry = REGISTRY) -> list[Compared]:
    """Every task that both runs answered.

    Raises:
        NotFoundError: One of them is no run's folder.
        InputError: They have no task in common.
    """
    for run in (one, other):
        oracle_of(run)
    there = [{path.stem for path in (run / ANSWERS).glob("*.jsonl")} for run in (one, other)]
    settings = [settings_of(run) for run in (one, other)]
    tasks = [{task.name: task for task in tasks_of(found, registry)} for found in settings]
    names = [name for name in registry.tasks if name in there[0] & there[1]]
    if not names:
        why = f"no task has answers in both {one} and {other}"
        raise InputError("There is nothing to compare.", why, "run the same tasks for both oracles")
    return [row for name in names for row in _task(tasks[0][name], tasks[1][name], one, other)]


def _task(task: Task, again: Task, one: Path, other: Path) -> list[Compared]:
    first, second = _asked(task, one), _asked(again, other)
    if task.rubric is not None and None in (first.judge, second.judge):
        return []  # open answers that were not judged have nothing to compare
    same = first.about == second.about and first.judge == second.judge
    pairs = _paired(first, second) if same else []
    return [_measured(task, measure, first, second, pairs) for measure in measures_of(task)]


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a run's oracle was asked at the task's own window, and what an answer to it depends on beside the oracle.

    Attributes:
        asks: The questions.
        results: Its answers, with what a judge gave them.
        about: Whose activations were read: the target, and its organisms.
        judge: Of open answers who judged, by which prompts; None: nobody.
    """

    asks: list[Ask]
    results: list[Result | None]
    about: tuple[object, ...]
    judge: tuple[object, ...] | None


def _asked(task: Task, run: Path) -> _Asked:
    found = read_items(run / ITEMS / f"{task.items}.jsonl")
    asks, results = answers_of(run / ANSWERS / f"{task.name}.jsonl", found.items)
    judged = read_judged(run / JUDGED / f"{task.name}.jsonl", asks) if task.rubric else None
    answers = with_judgements(results, judged)[ORACLE]
    kept = [(ask, result) for ask, result in zip(asks, answers, strict=True) if ask.window == task.window]
    about = (settings_of(run)["model"], found.manifest.organisms)
    judge = (judged.about["model"], judged.about["version"]) if judged else None
    return _Asked([ask for ask, _ in kept], [result for _, result in kept], about, judge)


def _paired(one: _Asked, other: _Asked) -> list[tuple[Ask, Result | None, Result | None]]:
    """Equal questions about equal items."""
    known = {(ask.item.id, ask.wording): (ask, result) for ask, result in zip(other.asks, other.results, strict=True)}
    found = []
    for ask, result in zip(one.asks, one.results, strict=True):
        again = known.get((ask.item.id, ask.wording))
        if again is not None and again[0] == ask:
            found.append((ask, result, again[1]))
    return found


def _measured(
    task: Task,
    measure: Measure,
    one: _Asked,
    other: _Asked,
    pairs: Sequence[tuple[Ask, Result | None, Result | None]],
) -> Compared:
    asks = [ask for ask, _, _ in pairs]
    results = {"one": [result for _, result, _ in pairs], "other": [result for _, _, result in pairs]}
    difference = compared(task, measure, asks, results, "other", "one") if pairs else None
    found = [marks(task, measure, asked.asks, asked.results) for asked in (one, other)]
    figures = [None if own is None else figure(measure, own) for own in found]
    items = len({ask.item.id for ask in asks})
    return Compared(task.name, measure.name, measure.better, figures[0], figures[1], difference, items)
