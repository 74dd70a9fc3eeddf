"""AObench's aggregate over the tasks that stand for its own: the same formula, on items of one's own target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from augury.bench.engine import ORACLE
from augury.bench.marks import AUC, SCALE
from augury.bench.rubrics import SCALE_ENDS
from augury.stats.clusters import Figure
from augury.stats.combined import combined

if TYPE_CHECKING:
    from augury.bench.summary import TaskSummary

TASKS = (
    "hallucination", "vagueness", "activation_sensitivity", "backtracking", "domain_confusion", "missing_info",
    "mmlu_prediction", "number_prediction", "sycophancy", "taboo", "personaqa",
)  # fmt: skip
MEASURES = {"hallucination": "not obviously wrong"}  # elsewhere a task's first
CHANCE = 0.5


@dataclass(frozen=True)
class Aggregate:
    """The unweighted mean over tasks, with those that it lacks.

    Attributes:
        value: The mean; None where no task has a figure.
        of: Each task's part, from 0 to 1 (an AUC below chance is below 0).
        missing: Tasks without a figure: not run, not measurable on this model, or not judged.
    """

    value: Figure | None
    of: dict[str, Figure]
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready fields."""
        value = None if self.value is None else self.value.to_dict()
        return {"value": value, "of": {n: v.to_dict() for n, v in self.of.items()}, "missing": list(self.missing)}


def aggregate(found: Sequence[TaskSummary]) -> Aggregate:
    """`(x - .5) / .5` for AUCs, `(m - 1) / 4` for scales, rates as they are; two modes of one task by their mean.

    Tasks about one set of items are taken to err together.
    """
    parts: dict[str, list[Figure]] = {}
    items: dict[str, str] = {}
    for task in found:
        value = None if task.task.aggregate is None else _part(task)
        if task.task.aggregate is not None and value is not None:
            parts.setdefault(task.task.aggregate, []).append(value)
            items.setdefault(task.task.aggregate, task.task.items)
    means = {name: combined(parts[name], [items[name]] * len(parts[name])) for name in TASKS if name in parts}
    missing = tuple(name for name in TASKS if name not in means)
    whole = combined(list(means.values()), [items[name] for name in means]) if means else None
    return Aggregate(whole, means, missing)


def _part(task: TaskSummary) -> Figure | None:
    name = MEASURES.get(str(task.task.aggregate))
    measure = task.measures.get(name) if name else task.headline
    own = measure.raters.get(ORACLE) if measure else None
    if measure is None or own is None:
        return None
    ends = {AUC: (CHANCE, 1.0), SCALE: SCALE_ENDS}
    return own.scaled(*ends.get(measure.measure.kind, (0.0, 1.0)))
