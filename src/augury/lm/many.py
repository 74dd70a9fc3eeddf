"""Continue many conversations in a running batch: the place of one that has ended goes to the next.

What a conversation is given follows from the seed, its own number and the token's place alone, so neither the batch's
width nor its neighbours decide it, but for float noise.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from augury.lm.adapters import adapters_on
from augury.lm.chat import End, Transcript
from augury.lm.finite import finite
from augury.lm.generate import Running, Sampling, advance, choose, extended, keep_rows, prefilled, started
from augury.lm.load import LanguageModel, needs_model
from augury.lm.locks import alone
from augury.lm.shared import share_prefix

AT_LEAST = 8  # a width's part: so many places are filled, or given up, at once, since each time the cache is copied


def generate_many(
    lm: LanguageModel,
    conversations: Sequence[Any],
    sampling: Sampling,
    *,
    numbers: Sequence[int] | None = None,
    width: int = 96,
    end: End | None = None,
    done: Callable[[int], None] | None = None,
) -> list[Transcript]:
    """`generate` for many conversations, at most `width` of them at a time.

    Args:
        lm: The target; its own adapter stays on, every oracle adapter is off.
        conversations: Chat messages or raw texts.
        sampling: How tokens are chosen.
        numbers: What each is sampled by, beside the seed; their places in `conversations` where nothing is said.
        width: Conversations at once, at most.
        end: Of messages: `generation` (default) or `thinking`.
        done: Called as they end, with how many have.

    Returns:
        The whole transcripts; the last span of each, of role `assistant`, is what was generated.

    Raises:
        InputError: Nothing to read, no room in the model's context for that many new tokens, or another ending.
    """
    needs_model(lm)
    starts = [started(lm, item, end, sampling.max_new_tokens) for item in conversations]
    batch = _Batch(lm, [start.token_ids for start in starts], sampling, numbers or range(len(starts)))
    with alone(lm.model), adapters_on(lm.model, lm.target_adapters), torch.no_grad():
        batch.run(width, done or (lambda count: None))
    return [extended(start, text, lm) for start, text in zip(starts, batch.texts, strict=True)]


class _Batch:
    """Rows that run, rows that wait, and what each has so far."""

    def __init__(
        self, lm: LanguageModel, rows: Sequence[Sequence[int]], sampling: Sampling, numbers: Sequence[int]
    ) -> None:
        self._lm, self._rows, self._sampling, self._numbers = lm, rows, sampling, numbers
        self._waiting, self._ends = deque(range(len(rows))), set(lm.end_ids)
        self.texts: list[list[int]] = [[] for _ in rows]

    def run(self, width: int, done: Callable[[int], None]) -> None:
        state: Running | None = None
        least = max(1, width // AT_LEAST)
        while self._waiting or state is not None:
            if state is None:
                state = self._admit(width)
            elif self._waiting and width - len(state.alive) >= least and _joins(self._lm, state):
                state = _joined(state, self._admit(width - len(state.alive)))
            chosen, going = self._chosen(state)
            done(len(self._rows) - len(self._waiting) - len(going))
            if not going:
                state = None
                continue
            ended = len(state.alive) - len(going)
            if ended >= least or (ended and not self._waiting):
                state, chosen = keep_rows(state, going), chosen[going]
            advance(self._lm, state, chosen)

    def _chosen(self, state: Running) -> tuple[Int[Tensor, " rows"], list[int]]:
        """The next token of each row that runs, and the places of those that go on."""
        draw = partial(self._draw, state.alive)
        chosen = choose(finite(state.logits), self._sampling, draw)
        going = []
        for place, (row, token) in enumerate(zip(state.alive, chosen.tolist(), strict=True)):
            if not self._ended(row):
                self.texts[row].append(token)
                if not self._ended(row):
                    going.append(place)
        return chosen, going

    def _ended(self, row: int) -> bool:
        text = self.texts[row]
        return bool(text) and (text[-1] in self._ends or len(text) == self._sampling.max_new_tokens)

    def _draw(self, rows: Sequence[int], weights: Float[Tensor, "rows k"]) -> Int[Tensor, "rows 1"]:
        """By each row's own number: where it falls in the row's summed weights."""
        seeds = [f"{self._sampling.seed}:{self._numbers[row]}:{len(self.texts[row])}" for row in rows]
        summed = weights.float().cumsum(-1)
        total = summed[:, -1:]
        drawn = torch.tensor([[random.Random(seed).random()] for seed in seeds]).to(total) * total
        below = torch.nextafter(total, torch.zeros_like(total))  # rounding must not reach what has no weight
        return torch.searchsorted(summed, torch.minimum(drawn, below), right=True)

    def _admit(self, places: int) -> Running:
        """The next rows, prefilled."""
        found = [self._waiting.popleft() for _ in range(min(places, len(self._waiting)))]
        members = [self._rows[row] for row in found]
        if not self._lm.pads_cleanly:  # then only rows of one length run together, and the others wait on
            length = len(members[0])
            self._waiting.extendleft(reversed([row for row in found if len(self._rows[row]) != length]))
            found = [row for row in found if len(self._rows[row]) == length]
            members = [self._rows[row] for row in found]
        batch = share_prefix(self._lm, members, len(members[0]), self._sampling.max_new_tokens)
        return prefilled(self._lm, batch, found)


def _joins(lm: LanguageModel, state: Running) -> bool:
    """Whether rows can join behind padding: all of a model's memory is a plain cache of keys and values."""
    layers = getattr(state.cache, "layers", ())
    return lm.pads_cleanly and bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def _joined(one: Running, other: Running) -> Running:
    """Both batches as one, the narrower padded on its left; columns that no row has are left out."""
    width = max(one.mask.shape[1], other.mask.shape[1])
    mask = torch.cat([_padded(one.mask, width, -1), _padded(other.mask, width, -1)])
    first = int(mask.any(0).int().argmax())
    for mine, its in zip(one.cache.layers, other.cache.layers, strict=True):
        mine.keys = torch.cat([_padded(mine.keys, width, -2), _padded(its.keys, width, -2)])[..., first:, :]
        mine.values = torch.cat([_padded(mine.values, width, -2), _padded(its.values, width, -2)])[..., first:, :]
    return Running(
        cache=one.cache,
        logits=torch.cat([one.logits, other.logits]),
        mask=mask[:, first:],
        position=torch.cat([one.position, other.position]),
        alive=[*one.alive, *other.alive],
    )


def _padded(values: Tensor, width: int, dim: int) -> Tensor:
    """Zeros on the left of a dimension, up to a width."""
    missing = width - values.shape[dim]
    return F.pad(values, (0, 0) * (-1 - dim) + (missing, 0)) if missing else values
