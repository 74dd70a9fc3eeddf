"""Does the oracle read activations? Lens loss in nats per token with real, shuffled and no activations.

The fixed protocol: held-out topics and prompts; 1 to 8 activations; k uniform on 1..8 (and, without a bar, on 1..50);
the mean over answer tokens without the end token; 95% intervals by bootstrap over rollouts. For the future lens the
target's own loss on the same tokens stands beside it, and *share read* = (ref - real) / (ref - target's own), where ref
is the smaller of none and shuffled.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augury.contract import Contract
from augury.data.example import Context, Example
from augury.data.sources.lens import lens_example
from augury.errors import InputError
from augury.lm import LanguageModel
from augury.lm.adapters import adapters_on
from augury.lm.batch import chunks
from augury.lm.chat import needs_tokenizer
from augury.lm.logprobs import continuation_logprobs
from augury.oracle.reading import default_layers
from augury.stats import Interval, bootstrap_interval
from augury.train.batching import Item, batches, prepare_all
from augury.train.ranks import ALONE, Ranks
from augury.train.reads import Reads
from augury.train.step import token_losses

CONDITIONS = ("real", "shuffled", "none")
BOOTSTRAP = 1000


@dataclass(frozen=True)
class LensResult:
    """One direction and range of k. Losses are nats per answer token; `gap` is ref - real."""

    task: str
    max_k: int
    examples: int
    rollouts: int
    real: Interval
    shuffled: Interval
    none: Interval
    gap: Interval
    target: Interval | None
    share_read: Interval | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def lens_examples(
    lm: LanguageModel, rollouts: Sequence[Context], task: str, max_k: int, count: int, seed: int = 0
) -> list[Example]:
    """`count` held-out lens examples, rollouts in turn so that each gives about as many.

    k and the window are drawn first and then a rollout that has room for them, so that long k are as frequent as short
    (up to what the longest answer has room for).
    """
    rng = random.Random(f"{seed}:{task}:{max_k}")
    decode = needs_tokenizer(lm).decode
    turn = rng.sample(list(rollouts), len(rollouts))
    longest = max((stop - start for start, stop in (rollout.assistant for rollout in turn)), default=0)
    if longest < 2:
        why = f"none of the {len(turn)} held-out rollouts is long enough"
        raise InputError(f"The {task} cannot be measured.", why, "raise max_new_tokens or heldout of the rollouts")
    found: list[Example] = []
    while len(found) < count:
        window = rng.randint(1, min(8, longest - 1))
        k = rng.randint(1, min(max_k, longest - window))
        for place, rollout in enumerate(turn):
            example = lens_example(rollout, task, k, window, rng, decode)
            if example is not None:
                found.append(example)
                turn.append(turn.pop(place))
                break
    return found


def lens_report(
    lm: LanguageModel,
    contract: Contract,
    adapter: str,
    examples: Sequence[Example],
    rollouts: Sequence[Context],
    reads: Reads,
    *,
    max_k: int,
    own: bool = True,
    batch_size: int = 24,
    progress: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> LensResult:
    """Losses of the examples under the three conditions; with `own` the target's own beside the future lens."""
    sums = lens_losses(
        lm, contract, adapter, examples, rollouts, reads, batch_size=batch_size, progress=progress, ranks=ranks
    )
    wanted = own and examples[0].task == "future_lens"
    return _result(examples, sums, target_losses(lm, examples, rollouts) if wanted else None, max_k)


def lens_losses(
    lm: LanguageModel,
    contract: Contract,
    adapter: str,
    examples: Sequence[Example],
    rollouts: Sequence[Context],
    reads: Reads,
    *,
    batch_size: int = 24,
    progress: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> np.ndarray:
    """The summed loss of each example's answer tokens, in nats, `[n, 3]`: real, shuffled, none."""
    layers = default_layers(contract)
    asked = [replace(example, layers=layers) for example in examples]
    items = prepare_all(lm, contract, {example.contexts: reads for example in asked}, asked)
    donors = shuffled_items(items, rollouts, reads, layers)
    order = sorted(range(len(items)), key=lambda i: -len(items[i].labelled.token_ids))
    mine, rows = ranks.share(order), []
    with torch.no_grad(), adapters_on(lm.model, [adapter]):
        for part in chunks(len(mine), batch_size):
            places = [mine[i] for i in part]
            found = [
                _answer_losses(lm, contract, [source[i] for i in places], name == "none")
                for name, source in zip(CONDITIONS, (items, donors, items), strict=True)
            ]
            rows += zip(*found, strict=True)
            if progress is not None:
                progress(part.stop, len(mine))
    sums = np.zeros((len(items), len(CONDITIONS)))
    sums[order] = ranks.merge(rows)
    return sums


def _answer_losses(lm: LanguageModel, contract: Contract, items: Sequence[Item], nothing: bool) -> list[float]:
    """The summed loss of each item's answer tokens, end tokens left out."""
    summed = [0.0] * len(items)
    for places, batch in batches(lm, items, share=True):
        losses = token_losses(lm, contract.injection, batch, inject_nothing=nothing)
        for place, row in zip(places, losses, strict=True):
            item = items[place]
            labels = len(item.labelled.token_ids) - item.labelled.answer_start
            start = len(row) - labels
            summed[place] = float(row[start : start + len(item.example.answer_ids or ())].sum())
    return summed


def shuffled_items(
    items: Sequence[Item], rollouts: Sequence[Context], reads: Reads, layers: Sequence[int], seed: int = 0
) -> list[Item]:
    """The same items with another rollout's activations, as many and from the same layers and place.

    One fixed derangement: the rollouts stand in a circle, and each is given the next one that is long enough and of
    another topic, read at the same distance from its answer's start (or as near to it as its answer reaches). Where
    the question is whose turn it is, that distance would give the answer away: there a coin chooses the donor's turn.
    """
    coin = random.Random(seed)
    circle = random.Random(seed).sample(list(rollouts), len(rollouts))
    places = {rollout.number: place for place, rollout in enumerate(circle)}
    donors = []
    for item in items:
        place = places[item.example.context]
        turn = coin.choice(("user", "assistant")) if item.example.kind == "speaker" else None
        donor, positions = _donor(item.example.positions, circle[place], circle[place + 1 :] + circle[:place], turn)
        donors.append(replace(item.example, context=donor, positions=tuple(positions), layers=tuple(layers)))
    reads.prefetch(donors)
    return [
        Item(item.example, item.labelled, reads.vectors(donor.context, layers, donor.positions))
        for item, donor in zip(items, donors, strict=True)
    ]


def _donor(positions: Sequence[int], own: Context, others: Sequence[Context], turn: str | None) -> tuple[int, range]:
    """The first rollout that will do, by its id, and the positions to read of it: in `turn`, or at the same place."""
    topic, n = own.labels.get("topic"), len(positions)
    for other in others:
        first, stop = positions[0] - own.assistant[0] + other.assistant[0], other.assistant[1]
        if turn == "user":
            first, stop = other.user
        elif turn == "assistant" or positions[0] >= own.assistant[0]:
            first = max(other.assistant[0], min(first, stop - n))
        fits = other.user[0] <= first and first + n <= stop
        if fits and (topic is None or other.labels.get("topic") != topic):
            return other.number, range(first, first + n)
    raise InputError(
        "The control `shuffled` cannot be made.",
        f"no held-out rollout of another topic than {own.number}'s has room for {n} activations at the same place",
        "raise heldout of the rollouts",
    )


def target_losses(lm: LanguageModel, examples: Sequence[Example], rollouts: Sequence[Context]) -> np.ndarray:
    """The target's own summed loss on each future-lens answer, from the whole text before it."""
    by_id = {rollout.number: rollout for rollout in rollouts}
    used = [by_id[i] for i in dict.fromkeys(example.context for example in examples)]
    with adapters_on(lm.model, lm.target_adapters):
        found = continuation_logprobs(
            lm,
            [r.token_ids[: r.assistant[0]] for r in used],
            [r.token_ids[r.assistant[0] :] for r in used],
        )
    by_rollout: dict[int, Tensor] = {r.number: values for r, values in zip(used, found, strict=True)}
    sums = []
    for example in examples:
        start = example.positions[-1] + 1 - by_id[example.context].assistant[0]
        sums.append(-float(by_rollout[example.context][start : start + len(example.answer_ids or ())].sum()))
    return np.array(sums)


def _result(examples: Sequence[Example], sums: np.ndarray, own: np.ndarray | None, max_k: int) -> LensResult:
    tokens = np.array([len(example.answer_ids or ()) for example in examples], dtype=float)
    groups = [example.context for example in examples]
    columns = np.column_stack([sums, tokens] if own is None else [sums, tokens, own])

    def interval(statistic: Callable[[np.ndarray], float]) -> Interval:
        return bootstrap_interval(columns, statistic, groups, n=BOOTSTRAP)

    def loss(column: int) -> Callable[[np.ndarray], float]:
        return lambda values: float(values[:, column].sum() / values[:, 3].sum())

    def reference(values: np.ndarray) -> float:
        return min(loss(1)(values), loss(2)(values))

    return LensResult(
        task=examples[0].task,
        max_k=max_k,
        examples=len(examples),
        rollouts=len(set(groups)),
        real=interval(loss(0)),
        shuffled=interval(loss(1)),
        none=interval(loss(2)),
        gap=interval(lambda values: reference(values) - loss(0)(values)),
        target=None if own is None else interval(loss(4)),
        share_read=None
        if own is None
        else interval(lambda v: (reference(v) - loss(0)(v)) / (reference(v) - loss(4)(v))),
    )
