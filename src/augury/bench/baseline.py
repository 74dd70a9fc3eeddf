"""The linear probe beside an oracle: on the same activations, trained on items of other problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from augury.bench.asks import Ask
from augury.bench.engine import DIGITS, Result
from augury.bench.item import Item
from augury.bench.readings import Reading, Taken
from augury.bench.task import YES, Task
from augury.errors import InputError
from augury.stats.probe import probe_scores

FOLDS = 5
LEAST_TRAINING = 200  # items that each fold's probe is trained on


def probe_items(task: Task, items: Sequence[Item]) -> list[list[Item]]:
    """What probes can be trained on: one group of items for each thing that is asked; none where there are too few.

    A probe knows nothing of the question: where this differs from item to item, each question has a probe of its own.
    """
    if task.kind != "yes_no":
        return []
    groups: dict[str, list[Item]] = {}
    for item in items:
        if task.where(item):
            groups.setdefault(task.question(item, 0), []).append(item)
    enough = [group for group in groups.values() if len(group) * (FOLDS - 1) // FOLDS >= LEAST_TRAINING]
    return enough if len(enough) == len(groups) else []


def probed(
    task: Task, groups: Sequence[Sequence[Item]], asks: Sequence[Ask], taken: Mapping[Reading, Taken], seed: int
) -> list[Result | None] | None:
    """The probe's score of each ask at the task's own window, by nested cross-validation over problems.

    Args:
        task: The task.
        groups: From `probe_items`.
        asks: What the oracle is asked.
        taken: The activations of all these items.
        seed: Of the splits.

    Returns:
        One result for each ask (None at other windows), or None where the problems are too few.
    """
    told: dict[str, Result] = {}
    for group in groups:
        x = np.stack([_feature(taken[Reading.of(item)], item.window(task.window)) for item in group])
        truth = [item.facts[task.truth] == YES for item in group]
        try:
            found = probe_scores(x, truth, [item.problem for item in group], FOLDS, seed)
        except InputError:  # too few problems of one answer
            return None
        for item, score, fold in zip(group, found.scores, found.folds, strict=True):
            told[item.id] = {"log_probs": [round(float(score), DIGITS), 0.0], "fold": int(fold)}
    return [told.get(ask.item.id) if ask.window == task.window else None for ask in asks] if told else None


def _feature(taken: Taken, positions: Sequence[int]) -> NDArray[np.float32]:
    """The mean over positions of each activation at unit length, layer after layer: `[layers * d_model]`."""
    rows = taken.at(positions).reshape(taken.vectors.shape[0], len(positions), -1)
    return torch.nn.functional.normalize(rows, dim=-1).mean(1).flatten().numpy()
