"""From what a run keeps to its summary and its report: without a model, so that answers can be judged again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from augury.bench.asks import Ask
from augury.bench.build import too_few
from augury.bench.engine import Result
from augury.bench.item import ItemSet, read_items
from augury.bench.judge import Judged, JudgeSettings, judge_task, read_judged, write_judged
from augury.bench.kept import read_answers
from augury.bench.page import page
from augury.bench.profile import Profile
from augury.bench.summary import Summary, TaskSummary, summary_of, task_summary
from augury.bench.task import Registry, Task, fitted, trained_window
from augury.data.endpoint import open_endpoint
from augury.errors import InputError, NotFoundError
from augury.files import write_text

SETTINGS, ANSWERS, ITEMS, JUDGED, SINGLE, SUMMARY, PAGE = (
    "bench.json", "answers", "items", "judged", "single", "summary.json", "report.html",
)  # fmt: skip
REPLIES = "replies.jsonl"
Told = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Answered:
    """A task with what was answered; `unmeasurable` says why there is nothing of it, where there is not."""

    task: Task
    items: ItemSet
    asks: list[Ask]
    results: dict[str, list[Result | None]]
    judged: Judged | None
    unmeasurable: str | None = None


def settings_of(out: Path) -> dict[str, Any]:
    """What a run follows from.

    Raises:
        NotFoundError: It is no run's folder.
    """
    path = out / SETTINGS
    if not path.is_file():
        why = f"{path} does not exist"
        raise NotFoundError(f"{out} is no run of the bench.", why, "name a folder that `augury bench run -o` made")
    return json.loads(path.read_text(encoding="utf-8"))


def tasks_of(settings: Mapping[str, Any], registry: Registry) -> list[Task]:
    """A run's tasks, each at a window that its oracle was trained on."""
    most = trained_window(settings["oracle"]["contract"])
    return [fitted(task, most) for task in registry.chosen(settings["tasks"])]


def answered(out: Path, registry: Registry) -> Iterator[Answered]:
    """A run's tasks, one after the other.

    Raises:
        NotFoundError: It is no run's folder.
        InputError: A task was not asked yet, or is not known.
    """
    settings = settings_of(out)
    profile = TypeAdapter(Profile).validate_python(settings["profile"])
    for task in tasks_of(settings, registry):
        found = read_items(out / ITEMS / f"{task.items}.jsonl")
        path = out / ANSWERS / f"{task.name}.jsonl"
        why = unmeasurable(task, found, registry)
        if why is not None:
            yield Answered(task, found, [], {}, None, why)
            continue
        if not path.is_file():
            why, instead = f"{task.name} has no answers yet", "go on with `augury bench run ... -o` this folder"
            raise InputError(f"{out} is not finished.", why, instead)
        asks = profile.asks(task, found.items)
        judged = read_judged(out / JUDGED / f"{task.name}.jsonl", asks)
        yield Answered(task, found, asks, dict(read_answers(path, asks)), judged)


def unmeasurable(task: Task, found: ItemSet, registry: Registry) -> str | None:
    """Why a task is not asked; None: it is."""
    return found.manifest.unmeasurable or too_few(task, found, registry.items[task.items])


def conclude(out: Path, registry: Registry) -> Summary:
    """Sum up what a run keeps, and write its report.

    Raises:
        NotFoundError: It is no run's folder.
        InputError: It is not finished.
    """
    settings = settings_of(out)
    found: list[TaskSummary] = []
    single: dict[str, list[dict[str, Any]]] = {}
    for one in answered(out, registry):
        if one.unmeasurable is not None:
            manifest = one.items.manifest.model_copy(update={"unmeasurable": one.unmeasurable})
            found.append(TaskSummary(one.task, manifest, {}, {}))
            continue
        found.append(task_summary(one.task, one.items.manifest, one.asks, one.results, one.judged))
        single[one.task.name] = _single(out, one)
    summary = summary_of(settings, found)
    write_text(out / SUMMARY, json.dumps(summary.to_dict(), indent=1) + "\n")
    write_text(out / PAGE, page(summary.to_dict(), {name: rows for name, rows in single.items() if rows}))
    return summary


def _single(out: Path, one: Answered) -> list[dict[str, Any]]:
    """Single answers to look at, with what the judge gave them."""
    path = out / SINGLE / f"{one.task.name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    given: dict[tuple[str, str, str], str] = {}
    for judgement in one.judged.answers if one.judged else ():
        ask = one.asks[judgement.place]
        told = "not judged" if judgement.given is None else ", ".join(map(str, judgement.given.values()))
        given[ask.item.id, ask.question, judgement.rater] = told
    for row in rows:
        for rater, said in row["answers"].items():
            told = given.get((row["item"], row["question"], rater))
            row["answers"][rater] = f"{said} [{told}]" if told else said
    return rows


def judge_run(out: Path, settings: JudgeSettings, registry: Registry, told: Told) -> Summary:
    """Judge a run's open answers, and sum up again; what was judged before is replaced when its task is done.

    Raises:
        NotFoundError: It is no run's folder.
        InputError: It is not finished, or has no open answers.
        NetworkError: The endpoint gives no reply; the replies so far are kept and not asked for again.
    """
    opened = [one for one in answered(out, registry) if one.task.rubric and one.results]
    if not opened:
        why = "none of its tasks has open answers"
        raise InputError(f"There is nothing to judge in {out}.", why, "see `augury bench tasks` for tasks of kind open")
    (out / JUDGED).mkdir(exist_ok=True)
    with open_endpoint(settings, out / JUDGED / REPLIES) as endpoint:
        for one in opened:
            name = one.task.name
            progress = partial(told, f"judging {name}")
            found = judge_task(one.task, one.asks, one.results, endpoint, progress)
            write_judged(out / JUDGED / f"{name}.jsonl", one.task, one.asks, found)
    return conclude(out, registry)
