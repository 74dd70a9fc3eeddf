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
from augury.lm.batch import Padded, columns_of, left_pad, length_groups
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
        question = contract.prompt.yes_no_prefix + question
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
    """A left-padded batch behind a prefix that all its rows share.

    Attributes:
        prefix: The shared token ids; they are run once. Empty where nothing is shared.
        padded: What comes after it in each row.
        slots: Columns of each row's slots in `padded`.
        vectors: `[slots, d_model]` for each row.
        labels: `[batch, keep]`, the last columns' labels, -100 where there is no loss.
    """

    prefix: tuple[int, ...]
    padded: Padded
    slots: list[list[int]]
    vectors: list[Tensor]
    labels: Tensor

    @property
    def tokens(self) -> int:
        """Tokens that go through the model, padding left out."""
        return len(self.prefix) + int(self.padded.attention_mask.sum())


def collate(lm: LanguageModel, items: Sequence[Item], share_prefix: bool) -> Batch:
    """Pad items on the left, behind the tokens that all of them begin with."""
    rows = [item.labelled.token_ids for item in items]
    shared = _shared_prefix(items) if share_prefix else 0
    padded = left_pad([row[shared:] for row in rows], lm.pad_id, lm.device)
    slots = [
        columns_of(offset - shared, item.labelled.slots) for offset, item in zip(padded.offsets, items, strict=True)
    ]
    answers = [row[item.labelled.answer_start :] for row, item in zip(rows, items, strict=True)]
    keep = max(map(len, answers))
    labels = torch.tensor([[-100] * (keep - len(a)) + list(a) for a in answers], device=lm.device)
    return Batch(rows[0][:shared], padded, slots, [item.vectors for item in items], labels)


def _shared_prefix(items: Sequence[Item]) -> int:
    """How many tokens all rows begin with, before the first slot of any."""
    rows = [item.labelled.token_ids for item in items]
    lowest, highest = min(rows), max(rows)  # what these two share, all rows between them share too
    common = next((i for i, (a, b) in enumerate(zip(lowest, highest, strict=False)) if a != b), len(lowest))
    return min(common, min(item.labelled.slots[0] for item in items))
