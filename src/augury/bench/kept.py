"""What a run keeps of its answers: blocks as they are made, and one line for each answer when a task is done."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from augury.bench.asks import Ask
from augury.bench.engine import Block, Result
from augury.bench.item import Item
from augury.bench.task import Task
from augury.errors import FormatError
from augury.files import write_text

Results = Mapping[str, Sequence[Result | None]]
FIELDS = ("log_probs", "likeliest", "text", "samples", "log_prob", "fold")  # of a result


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
        told = {"question": ask.question, "truth": ask.item.facts.get(task.truth), "read": _range(ask.positions)}
        state = {name: value for name, value in asdict(ask.item.state).items() if value}
        for rater, found in results.items():
            row = found[i] or {"unavailable": True}
            yield {**about, "rater": rater, **told, **({"state": state} if state else {}), **row, **_mass(task, row)}


def _range(positions: Sequence[int]) -> list[int]:
    """The first and the one behind the last."""
    return [positions[0], positions[-1] + 1]


def _mass(task: Task, row: Mapping[str, Any]) -> dict[str, float]:
    """Of choices, how likely it is that one of them is answered at all."""
    if task.kind not in ("yes_no", "choice", "letter") or "log_probs" not in row:
        return {}
    return {"mass": round(sum(math.exp(value) for value in row["log_probs"]), 6)}


def answers_of(path: Path, items: Sequence[Item]) -> tuple[list[Ask], dict[str, list[Result | None]]]:
    """What a file's answers are to, and the results of each rater, one for each.

    Raises:
        FormatError: An answer is about an item that there is not, or raters answered different questions.
    """
    known = {item.id: item for item in items}
    asks: dict[str, list[Ask]] = {}
    found: dict[str, list[Result | None]] = {}
    for row in (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]):
        if row["item"] not in known:
            raise _other(path, f"there is no item {row['item']!r}")
        asks.setdefault(row["rater"], []).append(
            Ask(known[row["item"]], row["window"], row["wording"], row["question"])
        )
        given = {name: row[name] for name in FIELDS if name in row}
        found.setdefault(row["rater"], []).append(given or None)
    first = next(iter(asks.values()), [])
    if any(own != first for own in asks.values()):
        raise _other(path, "its raters were asked different questions")
    return first, found


def read_answers(path: Path, asks: Sequence[Ask]) -> dict[str, list[Result | None]]:
    """The results of each rater, one for each ask.

    Raises:
        FormatError: The answers are to other questions.
    """
    asked, found = answers_of(path, [ask.item for ask in asks])
    if asked != list(asks):
        raise _other(path, f"it has answers to {len(asked)} questions, and {len(asks)} are asked; or they are others")
    return found


def _other(path: Path, why: str) -> FormatError:
    return FormatError(f"{path} does not answer this run's questions.", why, "remove it: it is made again")
