"""Does each source's loss depend on the activations? Held-out examples with real, swapped and no activations.

A falling loss may come from learning to answer without looking (Bauer et al. 2026: 1.62 nats against 1.91 for another
row's activations on questions, 2.01 against 4.84 on the lens), so the gap to the swapped ones stands beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from augury.contract import Contract
from augury.data.example import Context, Example
from augury.lm import LanguageModel, Sampling
from augury.lm.adapters import adapters_on
from augury.oracle.passes import Row, Runner, decode_rows
from augury.oracle.prompt import Prompt
from augury.oracle.reading import decoded
from augury.stats import Interval, bootstrap_interval
from augury.train.batching import Item, batches, prepare_all
from augury.train.ranks import ALONE, Ranks
from augury.train.reads import Reads
from augury.train.step import token_losses

CONDITIONS = ("real", "shuffled", "none")
SAMPLES = 4
ANSWER = 24  # tokens of a sample answer, at most


@dataclass(frozen=True)
class Sample:
    """A held-out question, its answer, and what the oracle said, with its own and with another's activations."""

    question: str
    truth: str
    answer: str
    shuffled: str


@dataclass(frozen=True)
class SourceResult:
    """Mean losses of a source's held-out examples, as in training, in nats; `gap` is shuffled - real."""

    source: str
    examples: int
    contexts: int
    real: Interval
    shuffled: Interval
    none: Interval
    gap: Interval
    samples: tuple[Sample, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def source_report(
    lm: LanguageModel,
    contract: Contract,
    adapter: str,
    examples: Sequence[Example],
    contexts: Sequence[Context],
    reads: Reads,
    *,
    samples: int = SAMPLES,
    ranks: Ranks = ALONE,
    batch_size: int = 16,
) -> SourceResult | None:
    """Measure one source; None where fewer than two contexts can be swapped.

    Args:
        lm: The base, with the oracle's adapter.
        contract: The oracle's.
        adapter: Its name.
        examples: Held-out examples of the source.
        contexts: The held-out contexts that they ask about.
        reads: The contexts' activations.
        samples: Questions that are answered in words too.
        ranks: The processes that share the examples.
        batch_size: Examples in a pass.
    """
    pairs = [(own, other) for own, other in zip(examples, swapped(examples, contexts), strict=True) if other]
    if len({content(contexts[own.context]) for own, _ in pairs}) < 2:
        return None
    rows = []
    mine = ranks.share(pairs)
    with torch.no_grad(), adapters_on(lm.model, [adapter]):
        for start in range(0, len(mine), batch_size):
            part = mine[start : start + batch_size]
            real, other = (
                prepare_all(lm, contract, {e.contexts: reads for e in side}, side) for side in zip(*part, strict=True)
            )
            found = [_losses(lm, contract, items, i == 2) for i, items in enumerate((real, other, real))]
            rows += [list(row) for row in zip(*found, strict=True)]
    values = np.array(ranks.merge(rows))
    kinds: dict[Hashable, int] = {}
    groups = [kinds.setdefault(content(contexts[own.context]), len(kinds)) for own, _ in pairs]

    def interval(weights: Sequence[float]) -> Interval:
        return bootstrap_interval(values, lambda rows: float((rows @ np.array(weights)).mean()), groups)

    return SourceResult(
        source=examples[0].source,
        examples=len(pairs),
        contexts=len(set(groups)),
        real=interval((1, 0, 0)),
        shuffled=interval((0, 1, 0)),
        none=interval((0, 0, 1)),
        gap=interval((-1, 1, 0)),
        samples=_samples(lm, contract, adapter, pairs[:: max(1, len(pairs) // max(1, samples))][:samples], reads),
    )


def swapped(examples: Sequence[Example], contexts: Sequence[Context]) -> list[Example | None]:
    """Each example about another's context: as many positions, up to the last one that is read there.

    The examples stand in a circle, and each takes the next one of another text that has room; None where none has.
    """
    count = len(examples)
    found: list[Example | None] = []
    for i, example in enumerate(examples):
        donors = (examples[(i + step) % count] for step in range(1, count))
        places = (
            (donor, _places(donor, contexts, len(example.positions)))
            for donor in donors
            if content(contexts[donor.context]) != content(contexts[example.context])
        )
        fits = next(((donor, positions) for donor, positions in places if positions), None)
        found.append(replace(example, context=fits[0].context, positions=fits[1]) if fits else None)
    return found


def content(context: Context) -> Hashable:
    """What tells contexts apart: several of a user's lines may ask about one text."""
    return context.token_ids or (context.labels.get("vectors"), context.labels.get("item"))


def _places(donor: Example, contexts: Sequence[Context], count: int) -> tuple[int, ...]:
    if len(donor.positions) >= count:
        return donor.positions[-count:]
    stop = donor.positions[-1] + 1
    has_tokens = bool(contexts[donor.context].token_ids)  # saved activations have no others than those that are asked
    return tuple(range(stop - count, stop)) if stop >= count and has_tokens else ()


def _losses(lm: LanguageModel, contract: Contract, items: Sequence[Item], nothing: bool) -> list[float]:
    found = [0.0] * len(items)
    for places, batch in batches(lm, items, share=True):
        losses = token_losses(lm, contract.injection, batch, inject_nothing=nothing).sum(1) / batch.answer_tokens
        for place, loss in zip(places, losses.tolist(), strict=True):
            found[place] = loss
    return found


def _samples(
    lm: LanguageModel,
    contract: Contract,
    adapter: str,
    pairs: Sequence[tuple[Example, Example]],
    reads: Reads,
) -> tuple[Sample, ...]:
    if not pairs:
        return ()
    answers = []
    for side in zip(*pairs, strict=True):
        items = prepare_all(lm, contract, {example.contexts: reads for example in side}, side)
        runner = Runner(lm, contract, (adapter,), contract.injection.coefficient, batch_size=len(items))
        rows = [
            Row(Prompt(i.labelled.token_ids[: i.labelled.answer_start], i.labelled.slots), i.vectors) for i in items
        ]
        texts = decode_rows(runner, rows, Sampling(max_new_tokens=ANSWER))
        answers.append([decoded(lm, [t for t in found[0] if t not in lm.end_ids]).strip() for found in texts])
    return tuple(
        Sample(own.question, own.answer, answer, other) for (own, _), answer, other in zip(pairs, *answers, strict=True)
    )
