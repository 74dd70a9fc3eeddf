"""From examples to batches: prompts as token ids, activations looked up, lengths grouped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from augury.contract import Contract
from augury.data.example import Example
from augury.data.mix import Order
from augury.lm import LanguageModel
from augury.lm.batch import columns_of, length_groups
from augury.lm.packed import Packed, pack, packs
from augury.lm.shared import SharedBatch, share_prefix
from augury.oracle.choices import YES_NO, prefixed
from augury.oracle.controls import reader_text
from augury.oracle.prompt import Labelled, build_labelled, label_text
from augury.train.reads import Reads
from augury.train.recipe import Recipe


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from.

    Attributes:
        examples: Each source's examples.
        order: Which of them come when.
        reads: The activations of each set of contexts.
    """

    examples: Mapping[str, Sequence[Example]]
    order: Order
    reads: Mapping[str, Reads]


@dataclass(frozen=True)
class Item:
    """An example ready for the model."""

    example: Example
    labelled: Labelled
    vectors: Tensor  # [slots, d_model]


def prepare(lm: LanguageModel, contract: Contract, reads: Reads, example: Example) -> Item:
    """Render an example and look its activations up."""
    question = example.question
    if example.task == "yes_no":
        question = prefixed(contract, question, YES_NO)
    answer = example.answer if example.answer_ids is None else example.answer_ids
    text = reads.text(example)
    if text is None:
        labelled = build_labelled(lm, contract, example.layers, len(example.positions), question, answer)
    else:
        labelled = label_text(lm, contract, reader_text(text, question), answer)
    return Item(example, labelled, reads.vectors(example.context, example.layers, example.positions))


def prepare_all(
    lm: LanguageModel, contract: Contract, reads: Mapping[str, Reads], examples: Sequence[Example]
) -> list[Item]:
    """The same for many, each context captured once where that is done only now."""
    for name, found in reads.items():
        found.prefetch([example for example in examples if example.contexts == name])
    return [prepare(lm, contract, reads[example.contexts], example) for example in examples]


def pools(recipe: Recipe, data: TrainingData, first_step: int, steps: int) -> Iterator[tuple[int, list[Example]]]:
    """(step, examples of its batch) from `first_step` on; batches of one pool have similar lengths.

    A pool is a function of its number alone, so a resumed run meets the same batches.
    """
    settings = recipe.optimizer
    for pool in range(first_step // settings.pool, -(-steps // settings.pool)):
        examples = [data.examples[source][row] for source, row in data.order.pool(pool)]
        batches = _grouped(examples, settings.batch_size, settings.seed + pool)
        for step, batch in enumerate(batches, pool * settings.pool):
            if first_step <= step < steps:
                yield step, batch


def _grouped(examples: list[Example], size: int, seed: int) -> list[list[Example]]:
    lengths = [
        len(e.question) // 5 + len(e.positions) * len(e.layers) + (len(e.answer_ids or ()) or len(e.answer) // 4)
        for e in examples
    ]
    groups = length_groups(lengths, size)
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    return [[examples[i] for i in groups[place]] for place in order]


@dataclass(frozen=True)
class Batch:
    """Examples as the model takes them.

    Attributes:
        rows: The prompts with their answers.
        slots: Columns of each example's slots.
        vectors: `[slots, d_model]` for each example.
        labels: `[batch, keep]`, the last columns' labels, -100 where there is no loss.
        answer_tokens: `[batch]`, labels of each row without the end tokens that close its turn.
    """

    rows: SharedBatch | Packed
    slots: list[list[int]]
    vectors: list[Tensor]
    labels: Tensor
    answer_tokens: Tensor


def batches(
    lm: LanguageModel, items: Sequence[Item], share: bool, most: int = 8192
) -> Iterator[tuple[list[int], Batch]]:
    """(places in `items`, batch): passes of at most `most` tokens, padding counted; a longer item goes alone.

    Where padding would leak into the rows, each pass has rows of one length.
    """
    lengths = [len(item.labelled.token_ids) for item in items]
    for places in _passes(lengths, most, equal=not lm.pads_cleanly):
        yield places, collate(lm, [items[place] for place in places], share)


def _passes(lengths: Sequence[int], most: int, equal: bool) -> list[list[int]]:
    """Places, longest first, cut where the next one would not fit any more."""
    found: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[found[-1][0]] if found else 0
        fits = found and longest * (len(found[-1]) + 1) <= most and (not equal or longest == lengths[place])
        if fits:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def _free(labelled: Labelled) -> int:
    """How many tokens of a prompt come before its first slot, or before its answer where it has none."""
    return labelled.slots[0] if labelled.slots else labelled.answer_start - 1


def collate(lm: LanguageModel, items: Sequence[Item], share: bool) -> Batch:
    """Lay items one behind the other, or pad them on the left, behind what all begin with before any slot."""
    ids = [item.labelled.token_ids for item in items]
    limit = min(_free(item.labelled) for item in items) if share else 0
    rows = pack(lm, ids, limit) if share and packs(lm, max(map(len, ids))) else share_prefix(lm, ids, limit)
    slots = [columns_of(offset, item.labelled.slots) for offset, item in zip(rows.offsets, items, strict=True)]
    answers = [row[item.labelled.answer_start :] for row, item in zip(ids, items, strict=True)]
    keep = max(map(len, answers))
    labels = torch.tensor([[-100] * (keep - len(a)) + list(a) for a in answers], device=lm.device)
    content = torch.tensor([max(1, len(a) - item.labelled.tail) for a, item in zip(answers, items, strict=True)])
    return Batch(rows, slots, [item.vectors for item in items], labels, content.to(lm.device))
