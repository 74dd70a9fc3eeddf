"""Forward passes of an oracle (or of its base) over prompts whose slots receive activations, batched by length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from augury.contract import Contract
from augury.lm import LanguageModel, Sampling
from augury.lm.adapters import adapters_on
from augury.lm.batch import columns_of
from augury.lm.finite import finite
from augury.lm.generate import Told, decode
from augury.lm.logprobs import continuation_logprobs
from augury.lm.shared import SharedBatch, forward_shared, share_prefix
from augury.oracle.inject import injecting
from augury.oracle.prompt import Prompt

Texts = list[list[int]]
RowsTold = Callable[[Mapping[int, Sequence[Sequence[int]]]], None]


@dataclass(frozen=True, eq=False)
class Row:
    """One prompt and what its slots receive.

    Attributes:
        prompt: The rendered prompt.
        vectors: `[slots, d_model]`, or None: nothing is injected and the slots stay ordinary tokens.
    """

    prompt: Prompt
    vectors: Tensor | None

    def __len__(self) -> int:
        return len(self.prompt.token_ids)


@dataclass(frozen=True, eq=False)
class Runner:
    """Who answers: a model, the adapters that are on (no others), and how slots are filled.

    Attributes:
        lm: The model the oracle runs on.
        contract: The oracle's contract.
        adapters: Exactly these are on; none for the plain base.
        coefficient: Of the injection.
        batch_size: Rows in a forward pass.
    """

    lm: LanguageModel
    contract: Contract
    adapters: tuple[str, ...]
    coefficient: float
    batch_size: int = 16

    def without_adapters(self) -> Runner:
        """The plain base, with the same injection."""
        return replace(self, adapters=())

    def groups(self, rows: Sequence[Row]) -> list[list[int]]:
        """The rows in batches that this model may run together."""
        return self.lm.groups([len(row) for row in rows], self.batch_size)

    def injection(self, rows: Sequence[Row], offsets: Sequence[int]) -> AbstractContextManager[None]:
        """Fill the slots of these rows, in a batch padded by `offsets`, during the forward pass inside."""
        pairs = zip(rows, offsets, strict=True)
        columns = [[] if row.vectors is None else columns_of(offset, row.prompt.slots) for row, offset in pairs]
        empty = torch.empty(0, self.lm.d_model)
        vectors = [empty if row.vectors is None else row.vectors for row in rows]
        return injecting(self.lm, self.contract.injection, columns, vectors, self.coefficient)


def decode_rows(
    runner: Runner,
    rows: Sequence[Row],
    sampling: Sampling,
    samples: int = 1,
    done: Callable[[int], None] | None = None,
    told: RowsTold | None = None,
) -> list[Texts]:
    """Continue each row, `samples` times from one shared prefill.

    Args:
        runner: Who answers.
        rows: The prompts.
        sampling: How tokens are chosen.
        samples: Continuations per row.
        done: Called with the number of rows that have been continued.
        told: Called after each token with the continuations so far, by the number of the row, of the rows that run
            together; what it raises ends them.

    Returns:
        For each row its continuations as token ids, the end token included where one was reached.
    """
    found: list[Texts] = [[] for _ in rows]
    lm = runner.lm
    for group in runner.groups(rows):
        members = [rows[i] for i in group]
        with adapters_on(lm.model, runner.adapters):
            batch = _batch(lm, members, sampling.max_new_tokens)
            fill = _Filling(runner, members, batch.offsets)
            texts = decode(lm, batch, sampling, samples=samples, prefill=fill, told=_of_rows(told, group, samples))
        for i, text in zip(group, texts, strict=True):
            found[i] = text
        if done is not None:
            done(len(group))
    return found


def _of_rows(told: RowsTold | None, group: Sequence[int], samples: int) -> Told | None:
    if told is None:
        return None
    return lambda texts: told({i: texts[at * samples : (at + 1) * samples] for at, i in enumerate(group)})


@dataclass(frozen=True, eq=False)
class _Filling:
    runner: Runner
    rows: list[Row]
    offsets: tuple[int, ...]

    def __call__(self) -> AbstractContextManager[None]:
        return self.runner.injection(self.rows, self.offsets)


def next_logprobs(
    runner: Runner, rows: Sequence[Row], token_ids: Sequence[int], done: Callable[[int], None] | None = None
) -> Float[Tensor, "rows tokens"]:
    """The log-probability of some tokens as each row's next: `[rows, tokens]`, float32 on the CPU."""
    found = torch.empty(len(rows), len(token_ids))
    for group, logits in _last_logits(runner, rows):
        wanted = logits[:, list(token_ids)] - logits.logsumexp(-1, keepdim=True)
        found[group] = wanted.cpu()
        if done is not None:
            done(len(group))
    return found


def _last_logits(runner: Runner, rows: Sequence[Row]) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of row numbers with the logits `[batch, vocab]` after each row, float32."""
    lm = runner.lm
    for group in runner.groups(rows):
        members = [rows[i] for i in group]
        with torch.no_grad(), adapters_on(lm.model, runner.adapters):
            batch = _batch(lm, members)
            logits = forward_shared(lm, batch, 1, runner.injection(members, batch.offsets)).logits
        yield group, finite(logits[:, -1].float())


def _batch(lm: LanguageModel, rows: Sequence[Row], new_tokens: int = 0) -> SharedBatch:
    """The rows' prompts; what all begin with before the first slot is run once."""
    limit = min(min(row.prompt.slots, default=len(row)) for row in rows)
    return share_prefix(lm, [row.prompt.token_ids for row in rows], limit, new_tokens)


def whole_logprobs(
    runner: Runner, rows: Sequence[Row], continuations: Sequence[Sequence[int]]
) -> Float[Tensor, "rows continuations"]:
    """The log-probability of each whole continuation after each row: `[rows, continuations]`, float32."""
    repeated = [row for row in rows for _ in continuations]
    wanted = [list(ids) for _ in rows for ids in continuations]

    def around(group: Sequence[int], offsets: Sequence[int]) -> Any:
        return runner.injection([repeated[i] for i in group], offsets)

    prompts = [row.prompt.token_ids for row in repeated]
    with adapters_on(runner.lm.model, runner.adapters):
        found = continuation_logprobs(runner.lm, prompts, wanted, batch_size=runner.batch_size, around=around)
    return torch.stack([tokens.sum() for tokens in found]).reshape(len(rows), len(continuations))
