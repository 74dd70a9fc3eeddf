"""What a run found: each task's figures with their intervals, beside the controls, and the headline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from augury.bench.aggregate import Aggregate, aggregate
from augury.bench.agreement import Calibration, calibrations
from augury.bench.asks import Ask
from augury.bench.dose import Dose, dose_of
from augury.bench.engine import COLUMNS, ORACLE, Result
from augury.bench.item import Manifest
from augury.bench.judge import AGAIN, RIGHT, WRONG, Judged, with_judgements
from augury.bench.marks import Measure, compared, figure, marks, measures_of
from augury.bench.rubrics import rubrics
from augury.bench.task import Task, Tier
from augury.oracle.controls import NONE, SHUFFLED, TEXT_ALL, TEXT_WINDOW, UNTRAINED
from augury.stats.clusters import Figure, mean_figure
from augury.stats.combined import combined

SCHEMA = 1
LEADS = (NONE, SHUFFLED, TEXT_WINDOW, TEXT_ALL, UNTRAINED)  # what the oracle is compared with, item by item
HEADLINE: tuple[Tier, ...] = ("held in the weights", "planted state")
ADJUSTED = (-1.0, 1.0)  # an AUC of 0 is as far below chance as one of 1 is above
BREAKDOWNS = ("strength", "family", "category", "held", "contrast")

Results = Mapping[str, Sequence[Result | None]]


@dataclass(frozen=True)
class MeasureSummary:
    """One measure of a task.

    Attributes:
        measure: What is measured.
        raters: Each rater's figure at the task's own window, all wordings together; None: there is none.
        leads: How far the oracle is ahead of each control, over the items both answered.
        windows: By window, each rater's figure in the first wording, over the items that were asked at all of them.
        wordings: By wording, the oracle's figure.
        parts: By a fact's name and value, each rater's figure.
        counted: Items that count.
    """

    measure: Measure
    raters: dict[str, Figure | None]
    leads: dict[str, Figure | None]
    windows: dict[int, dict[str, Figure | None]]
    wordings: dict[str, Figure | None]
    parts: dict[str, dict[str, dict[str, Figure | None]]]
    counted: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready fields."""
        return {
            "kind": self.measure.kind,
            "chance": self.measure.chance,
            "better": self.measure.better,
            "counted": self.counted,
            "raters": _plain(self.raters),
            "leads": _plain(self.leads),
            "windows": {str(window): _plain(by) for window, by in self.windows.items()},
            "wordings": _plain(self.wordings),
            "parts": {name: {value: _plain(by) for value, by in of.items()} for name, of in self.parts.items()},
        }


@dataclass(frozen=True)
class TaskSummary:
    """A task's figures; none where it is not measurable on this model, or not judged yet.

    Attributes:
        task: The task.
        manifest: Of its items.
        measures: By name, the headline first.
        asked: How many items and questions.
        judge: Of open answers that were judged: who judged, how many, how many failed, and what planted answers got.
        calibrations: Of sampled answers: how far agreement, and log-probability, say how often they are right.
        mass: How likely the oracle's answer is one of the choices it is given; None elsewhere.
    """

    task: Task
    manifest: Manifest
    measures: dict[str, MeasureSummary]
    asked: dict[str, int]
    judge: dict[str, Any] | None = None
    calibrations: tuple[Calibration, ...] = ()
    mass: float | None = None

    @property
    def headline(self) -> MeasureSummary | None:
        """The task's first measure."""
        return next(iter(self.measures.values()), None)

    @property
    def dose(self) -> Dose | None:
        """Of what is planted: the strength from which three of four pairs are told apart; None elsewhere."""
        if self.task.tier != "planted state" or self.headline is None:
            return None
        return dose_of({value: found[ORACLE] for value, found in self.headline.parts.get("strength", {}).items()})

    @property
    def guessed(self) -> float | None:
        """What of it an organism that knows nothing would seem to know."""
        values = self.manifest.counts.get("values")
        return 1 / values if values else None

    @property
    def known(self) -> float | None:
        """The share of what was asked that the organisms themselves know: the rest does not count."""
        counts = self.manifest.counts
        return counts["known"] / counts["asked"] if counts.get("asked") and "known" in counts else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready fields."""
        return {
            "about": self.task.about,
            "kind": self.task.kind,
            "tier": self.task.tier,
            "window": self.task.window,
            "items": self.manifest.model_dump(mode="json", exclude={"model"}),
            "not measurable": self.manifest.unmeasurable,
            "asked": self.asked,
            "mass": self.mass,
            **({"strength at 75%": asdict(self.dose)} if self.dose else {}),
            **(
                {"known": self.known, "known by chance": self.guessed}
                if self.task.tier == "held in the weights" or self.known is not None
                else {}
            ),
            **({"judge": self.judge, "parts": rubrics()[self.task.rubric].parts} if self.task.rubric else {}),
            **({"calibration": [found.to_dict() for found in self.calibrations]} if self.calibrations else {}),
            "measures": {name: found.to_dict() for name, found in self.measures.items()},
        }


@dataclass(frozen=True)
class Summary:
    """A whole run.

    Attributes:
        settings: What it follows from.
        tasks: In order.
        tiers: Of read-or-infer's tiers (b) and (c) the mean over its tasks, from 0 (chance) to 1; None: no figure.
        headline: The mean over both; None: one is lacking.
        aobench: AObench's aggregate beside it.
    """

    settings: dict[str, Any]
    tasks: tuple[TaskSummary, ...]
    tiers: dict[Tier, Figure | None]
    headline: Figure | None
    aobench: Aggregate

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready fields."""
        return {
            "schema_version": SCHEMA,
            **self.settings,
            "headline": None if self.headline is None else self.headline.to_dict(),
            "tiers": _plain(self.tiers),
            "aobench": self.aobench.to_dict(),
            "tasks": {found.task.name: found.to_dict() for found in self.tasks},
        }


def summary_of(settings: dict[str, Any], found: Sequence[TaskSummary]) -> Summary:
    """The tasks with the headline: the mean over its tiers of the mean over their tasks."""
    tiers = {}
    for tier in HEADLINE:
        values = [value for task in found if task.task.tier == tier and (value := adjusted(task)) is not None]
        tiers[tier] = combined(values, bounds=ADJUSTED) if values else None
    both = [value for value in tiers.values() if value is not None]
    headline = combined(both, bounds=ADJUSTED) if len(both) == len(HEADLINE) else None
    if headline is not None and any(value.low is None for value in both):  # three organisms beside thirty pairs
        headline = replace(headline, low=None, high=None, how="none")
    return Summary(settings, tuple(found), tiers, headline, aggregate(found))


def adjusted(found: TaskSummary) -> Figure | None:
    """The oracle's headline figure with chance at 0 and all right at 1."""
    measure = found.headline
    own = measure.raters.get(ORACLE) if measure else None
    if measure is None or own is None:
        return None
    return own.scaled(measure.measure.chance or 0.0, 1.0)


def task_summary(
    task: Task, manifest: Manifest, asks: Sequence[Ask], results: Results, judged: Judged | None = None
) -> TaskSummary:
    """The figures of a task's answers; of open ones only where they were judged."""
    results = with_judgements(results, judged)
    measured = measures_of(task) if task.rubric is None or judged is not None else ()
    measures = {measure.name: _measured(task, measure, asks, results) for measure in measured}
    asked = {"items": len({ask.item.id for ask in asks}), "questions": len(asks)}
    told = None if judged is None else _judge(asks, judged)
    found = calibrations(task, asks, results[ORACLE]) if task.samples else []
    mass = _mass(asks, results[ORACLE], task.window) if task.kind in ("yes_no", "choice", "letter") else None
    return TaskSummary(task, manifest, measures, asked, told, tuple(found), mass)


def _judge(asks: Sequence[Ask], judged: Judged) -> dict[str, Any]:
    """Who judged, and how far it can be trusted."""
    controls = {}
    for kind in (RIGHT, WRONG, AGAIN):
        known = [(j.expected, asks[j.place].item.problem) for j in judged.planted if j.rater == kind]
        rows = [(float(expected), problem) for expected, problem in known if expected is not None]
        figure = mean_figure([value for value, _ in rows], [problem for _, problem in rows]) if rows else None
        controls[kind] = {"as expected": figure.to_dict() if figure else None, "failed": len(known) - len(rows)}
    failed = Counter(j.rater for j in judged.answers if j.given is None)
    counts = {"answers": len(judged.answers), "failed": failed.total(), "failed by rater": dict(sorted(failed.items()))}
    return {**judged.about, **counts, "planted": controls}


def _measured(task: Task, measure: Measure, asks: Sequence[Ask], results: Results) -> MeasureSummary:
    own = [i for i, ask in enumerate(asks) if ask.window == task.window]

    def by_rater(places: Sequence[int], raters: Sequence[str] = COLUMNS) -> dict[str, Figure | None]:
        chosen = [asks[i] for i in places]
        there = {rater: [results[rater][i] for i in places] for rater in raters if rater in results}
        return {rater: _figure(task, measure, chosen, there[rater]) if rater in there else None for rater in raters}

    here = [asks[i] for i in own]
    at_own = {rater: [results[rater][i] for i in own] for rater in results}
    first = [i for i, ask in enumerate(asks) if ask.wording == 0]
    leads = {name: compared(task, measure, here, at_own, ORACLE, name) for name in LEADS}
    swept = {ask.item.id for ask in asks if ask.window != task.window}
    windows = {
        window: by_rater([i for i in first if asks[i].window == window and asks[i].item.id in swept])
        for window in sorted({ask.window for ask in asks}, key=lambda window: (window == 0, window))
    }
    wordings = {
        _worded(task, here, wording): by_rater([i for i in own if asks[i].wording == wording], (ORACLE,))[ORACLE]
        for wording in sorted({asks[i].wording for i in own})
    }
    counted = marks(task, measure, here, at_own[ORACLE])
    return MeasureSummary(
        measure,
        by_rater(own),
        leads,
        windows if len(windows) > 1 else {},
        wordings,
        {name: _parts(asks, own, name, by_rater) for name in BREAKDOWNS if name in asks[0].item.facts},
        0 if counted is None else counted.items,
    )


def _worded(task: Task, asks: Sequence[Ask], wording: int) -> str:
    """A wording as it is, or, where items fill it in, as it is asked of the first of them."""
    plain = task.questions[wording]
    if "{" not in plain:
        return plain
    return f"{wording + 1}, such as: {next(ask.question for ask in asks if ask.wording == wording)}"


def _mass(asks: Sequence[Ask], results: Sequence[Result | None], window: int) -> float | None:
    """How likely the oracle answers with one of the choices at all; None where it is not given any."""
    found = [
        sum(math.exp(value) for value in result["log_probs"])
        for ask, result in zip(asks, results, strict=True)
        if result is not None and ask.window == window and "log_probs" in result
    ]
    return fmean(found) if found else None


def _parts(
    asks: Sequence[Ask],
    own: Sequence[int],
    name: str,
    by_rater: Callable[[Sequence[int]], dict[str, Figure | None]],
) -> dict[str, dict[str, Figure | None]]:
    """Figures of the items that agree in a fact, one value after the other."""
    values = dict.fromkeys(asks[i].item.facts[name] for i in own)
    found = {value: by_rater([i for i in own if asks[i].item.facts[name] == value]) for value in sorted(values)}
    return found if any(figures[ORACLE] for figures in found.values()) else {}


def _figure(task: Task, measure: Measure, asks: Sequence[Ask], results: Sequence[Result | None]) -> Figure | None:
    found = marks(task, measure, asks, results)
    return None if found is None else figure(measure, found)


def _plain(figures: Mapping[Any, Figure | None]) -> dict[str, Any]:
    return {name: None if found is None else found.to_dict() for name, found in figures.items()}
