"""What a run keeps of its answers: blocks as they are made, and one line for each answer when a task is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from augury.bench.asks import Ask
from augury.bench.engine import RATERS, Block, Result
from augury.bench.task import Task
from augury.errors import FormatError
from augury.files import write_text

Results = Mapping[str, Sequence[Result | None]]


def kept_in(folder: Path) -> Callable[[str, int, Callable[[], Block]], Block]:
    """Blocks of results as files: what an interrupted run wrote is read, the rest is made."""

    def kept(name: str, number: int, make: Callable[[], Block]) -> Block:
        path = folder / f"{name}-{number:05d}.json"
        if not path.exists():
            write_text(path, json.dumps(make(), ensure_ascii=False))
        return json.loads(path.read_text(encoding="utf-8"))

    return kept


def write_answers(path: Path, task: Task, asks: Sequence[Ask], results: Results, work: Mapping[str, int]) -> None:
    """A line about the task, then one for each answer."""
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in _lines(task, asks, results, work)))


def _lines(
    task: Task, asks: Sequence[Ask], results: Results, work: Mapping[str, int]
) -> Iterator[Mapping[str, object]]:
    yield {"task": task.name, "work": work}
    for i, ask in enumerate(asks):
        about = {"item": ask.item.id, "problem": ask.item.problem, "window": ask.window, "wording": ask.wording}
        for rater, found in results.items():
            yield {**about, "rater": rater, "question": ask.question, **(found[i] or {"unavailable": True})}


def read_answers(path: Path, asks: Sequence[Ask]) -> tuple[dict[str, list[Result | None]], dict[str, int]]:
    """The results of each rater, one for each ask, and what was run.

    Raises:
        FormatError: The answers are to other questions.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found: dict[str, list[Result | None]] = {}
    for row in rows[1:]:
        given = {name: row[name] for name in ("log_probs", "likeliest", "text") if name in row}
        found.setdefault(row["rater"], []).append(given or None)
    asked = [(ask.item.id, ask.window, ask.wording) for ask in asks]
    first = [(row["item"], row["window"], row["wording"]) for row in rows[1:] if row["rater"] == RATERS[0]]
    if first != asked or any(len(results) != len(asks) for results in found.values()):
        why = f"it has answers to {len(first)} questions, and {len(asks)} are asked; or they are others"
        raise FormatError(f"{path} does not answer this run's questions.", why, "remove it: it is made again")
    return found, rows[0]["work"]
