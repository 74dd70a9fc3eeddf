"""Two runs side by side: the oracles' figures, and their difference item by item where both were asked the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augury.bench.asks import Ask
from augury.bench.conclude import ANSWERS, ITEMS, settings_of
from augury.bench.engine import ORACLE, Result
from augury.bench.item import read_items
from augury.bench.kept import answers_of
from augury.bench.marks import Measure, compared, figure, marks, measures_of
from augury.bench.task import Registry, Task
from augury.bench.tasks import REGISTRY
from augury.errors import InputError
from augury.stats.clusters import Figure

Asked = tuple[list[Ask], list[Result | None]]


@dataclass(frozen=True)
class Compared:
    """One measure of one task in two runs.

    Attributes:
        task: The task.
        measure: The measure's name.
        better: 1 where more is better, -1 where less is.
        one: The first run's oracle.
        other: The second's.
        difference: The second less the first, over the questions that both answered; None: they have none in common.
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
    names = [name for name in registry.tasks if name in there[0] & there[1]]
    if not names:
        why = f"no task has answers in both {one} and {other}"
        raise InputError("There is nothing to compare.", why, "run the same tasks for both oracles")
    return [row for name in names for row in _task(registry.tasks[name], one, other)]


def _task(task: Task, one: Path, other: Path) -> list[Compared]:
    first, second = (_asked(task, run) for run in (one, other))
    pairs = _paired(first, second)
    return [_measured(task, measure, first, second, pairs) for measure in measures_of(task)]


def _asked(task: Task, run: Path) -> Asked:
    """What the run's oracle was asked at the task's own window."""
    found = read_items(run / ITEMS / f"{task.items}.jsonl")
    asks, results = answers_of(run / ANSWERS / f"{task.name}.jsonl", found.items)
    kept = [(ask, result) for ask, result in zip(asks, results[ORACLE], strict=True) if ask.window == task.window]
    return [ask for ask, _ in kept], [result for _, result in kept]


def _paired(one: Asked, other: Asked) -> list[tuple[Ask, Result | None, Result | None]]:
    """Equal questions about equal items."""
    known = {(ask.item.id, ask.wording): (ask, result) for ask, result in zip(*other, strict=True)}
    found = []
    for ask, result in zip(*one, strict=True):
        again = known.get((ask.item.id, ask.wording))
        if again is not None and again[0] == ask:
            found.append((ask, result, again[1]))
    return found


def _measured(
    task: Task,
    measure: Measure,
    one: Asked,
    other: Asked,
    pairs: Sequence[tuple[Ask, Result | None, Result | None]],
) -> Compared:
    asks = [ask for ask, _, _ in pairs]
    results = {"one": [result for _, result, _ in pairs], "other": [result for _, _, result in pairs]}
    difference = compared(task, measure, asks, results, "other", "one") if pairs else None
    figures = [None if (m := marks(task, measure, *asked)) is None else figure(measure, m) for asked in (one, other)]
    items = len({ask.item.id for ask in asks})
    return Compared(task.name, measure.name, measure.better, figures[0], figures[1], difference, items)
