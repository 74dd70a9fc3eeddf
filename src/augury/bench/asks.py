"""From a task and its items to what is run: each question once for each reading, and whose activations donors give."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from augury.bench.item import Item
from augury.bench.readings import Reading
from augury.bench.task import Task

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Ask:
    """One question about one item.

    Attributes:
        item: What is read.
        window: How many positions, at most; 0: all.
        wording: Which of the task's questions.
        question: That, filled in.
    """

    item: Item
    window: int
    wording: int
    question: str

    @property
    def positions(self) -> tuple[int, ...]:
        """What is read."""
        return self.item.window(self.window)


def asks_of(task: Task, items: Sequence[Item], windows: Sequence[int], wordings: int) -> list[Ask]:
    """Every question of a task: the items that count, at each window, in the first so many wordings."""
    return [
        Ask(item, window, wording, task.question(item, wording))
        for item in items
        if task.where(item)
        for window in windows
        for wording in range(min(wordings, len(task.questions)))
    ]


@dataclass(frozen=True)
class Shared(Generic[K]):
    """Questions that are asked once, however many items ask them.

    Attributes:
        keys: What each group has in common: a reading, or a text.
        members: The asks of each group by their place, one for each question that is asked.
        of: For each ask its group and its place there.
    """

    keys: list[K]
    members: list[list[int]]
    of: list[tuple[int, int]]


def shared(keys: Sequence[K], questions: Sequence[Hashable], most: int = 24) -> Shared[K]:
    """Group asks by what they read; equal questions of one group are asked once.

    Args:
        keys: What each ask reads.
        questions: What it asks.
        most: Questions in a group; what is over makes another.
    """
    found: Shared[K] = Shared([], [], [])
    seen: dict[tuple[Hashable, Hashable], tuple[int, int]] = {}
    last: dict[K, int] = {}
    for i, (key, question) in enumerate(zip(keys, questions, strict=True)):
        if (key, question) not in seen:
            if key not in last or len(found.members[last[key]]) == most:
                last[key] = len(found.keys)
                found.keys.append(key)
                found.members.append([])
            group = last[key]
            seen[key, question] = (group, len(found.members[group]))
            found.members[group].append(i)
        found.of.append(seen[key, question])
    return found


def donors(readings: Sequence[Reading], problems: Sequence[str], lengths: Sequence[int], seed: int) -> list[int | None]:
    """For each reading another one: of another problem, with as many positions or more; None where there is none.

    Fixed by the seed, and blind to every label: problems stand in random order, readings in random order within theirs,
    and each takes the first that fits from as far on as the largest problem is long. (Donors that stand at the same
    place in their own problem would have the same label wherever items are listed in order, and leak it.)

    Args:
        readings: What was read.
        problems: The problem of each.
        lengths: How many positions of each are there.
        seed: Of the order.
    """
    rng = random.Random(f"{seed}:donors")
    of: dict[str, list[int]] = {}
    for i, problem in enumerate(problems):
        of.setdefault(problem, []).append(i)
    groups = rng.sample(list(of.values()), len(of))
    order = [i for group in groups for i in rng.sample(group, len(group))]
    shift = max(map(len, groups), default=0)
    found: list[int | None] = [None] * len(readings)
    for place, i in enumerate(order):
        candidates = (order[(place + shift + step) % len(order)] for step in range(len(order)))
        found[i] = next((j for j in candidates if _gives(i, j, readings, problems, lengths)), None)
    return found


def _gives(i: int, j: int, readings: Sequence[Reading], problems: Sequence[str], lengths: Sequence[int]) -> bool:
    return problems[i] != problems[j] and readings[i] != readings[j] and lengths[j] >= lengths[i]
