"""From examples to batches: prompts as token ids, activations looked up, lengths grouped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from augury.contract import Contract
from augury.data.example import Example
from augury.data.mix import Stream
from augury.lm import LanguageModel
from augury.lm.batch import columns_of, length_groups
from augury.lm.shared import SharedBatch, share_prefix
from augury.oracle.choices import YES_NO, prefixed
from augury.oracle.prompt import Labelled, build_labelled
from augury.train.reads import Reads
from augury.train.recipe import Recipe

_UNITS = 1_000_000  # unit numbers a pool may use


@dataclass(frozen=True)
class Item:
    """An example ready for the model."""

    example: Example
    labelled: Labelled
    vectors: Tensor  # [slots, d_model]


def prepare(lm: LanguageModel, contract: Contract, layers: Sequence[int], reads: Reads, example: Example) -> Item:
    """Render an example and look its activations up."""
    question = example.question
    if example.task == "yes_no":
        question = prefixed(contract, question, YES_NO)
    answer = example.answer if example.answer_ids is None else example.answer_ids
    labelled = build_labelled(lm, contract, layers, len(example.positions), question, answer)
    return Item(example, labelled, reads.vectors(example.rollout, layers, example.positions))


def pools(recipe: Recipe, stream: Stream, first_step: int, steps: int) -> Iterator[tuple[int, list[Example]]]:
    """(step, examples of its batch) from `first_step` on; batches of one pool have similar lengths.

    A pool is a function of its number alone, so a resumed run meets the same batches.
    """
    size = recipe.optimizer.batch_size
    for pool in range(first_step // recipe.optimizer.pool, -(-steps // recipe.optimizer.pool)):
        start = pool * recipe.optimizer.pool
        mix = recipe.mix_at(start / steps)
        examples: list[Example] = []
        number = pool * _UNITS
        while len(examples) < size * recipe.optimizer.pool:
            examples.extend(stream.unit(number, mix))
            number += 1
        batches = _grouped(examples[: size * recipe.optimizer.pool], size, recipe.optimizer.seed + pool)
        for step, batch in enumerate(batches, start):
            if first_step <= step < steps:
                yield step, batch


def _grouped(examples: list[Example], size: int, seed: int) -> list[list[Example]]:
    lengths = [
        len(e.question) // 5 + len(e.positions) + (len(e.answer_ids or ()) or len(e.answer) // 4) for e in examples
    ]
    groups = length_groups(lengths, size)
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    return [[examples[i] for i in groups[place]] for place in order]


@dataclass(frozen=True)
class Batch:
    """Examples as the model takes them.

    Attributes:
        rows: The prompts with their answers.
        slots: Columns of each row's slots.
        vectors: `[slots, d_model]` for each row.
        labels: `[batch, keep]`, the last columns' labels, -100 where there is no loss.
        answer_tokens: `[batch]`, labels of each row without the end tokens that close its turn.
    """

    rows: SharedBatch
    slots: list[list[int]]
    vectors: list[Tensor]
    labels: Tensor
    answer_tokens: Tensor


def batches(lm: LanguageModel, items: Sequence[Item], share: bool) -> Iterator[tuple[list[int], Batch]]:
    """(places in `items`, batch): one batch, or one for each length where padding would leak into the rows."""
    groups: dict[int, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(0 if lm.pads_cleanly else len(item.labelled.token_ids), []).append(place)
    for places in groups.values():
        yield places, collate(lm, [items[place] for place in places], share)


def collate(lm: LanguageModel, items: Sequence[Item], share: bool) -> Batch:
    """Pad items on the left, behind the tokens that all of them begin with before any slot."""
    ids = [item.labelled.token_ids for item in items]
    rows = share_prefix(lm, ids, min(item.labelled.slots[0] for item in items) if share else 0)
    slots = [columns_of(offset, item.labelled.slots) for offset, item in zip(rows.offsets, items, strict=True)]
    answers = [row[item.labelled.answer_start :] for row, item in zip(ids, items, strict=True)]
    keep = max(map(len, answers))
    labels = torch.tensor([[-100] * (keep - len(a)) + list(a) for a in answers], device=lm.device)
    content = torch.tensor([max(1, len(a) - item.labelled.tail) for a, item in zip(answers, items, strict=True)])
    return Batch(rows, slots, [item.vectors for item in items], labels, content.to(lm.device))
