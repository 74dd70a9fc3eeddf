"""Run what all rows of a batch begin with only once.

The prompts of an oracle all begin with the same system turn and header. Those tokens depend on no row, so their keys
and values are computed for one row and shared; gradients add up through the sharing exactly as if every row had run
them. Rows of unequal length then have padding in the middle, which a recurrent state or a sliding window does not
survive: whether a model does is found by trying, and nothing is shared where it does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from augury.errors import ModelError
from augury.lm.adapters import adapters_on
from augury.lm.batch import Padded, left_pad
from augury.lm.load import LanguageModel


@dataclass(frozen=True)
class SharedBatch:
    """A left-padded batch behind a prefix that all its rows share.

    Attributes:
        prefix: The shared token ids, possibly none.
        padded: What comes after it in each row.
    """

    prefix: tuple[int, ...]
    padded: Padded

    @property
    def offsets(self) -> tuple[int, ...]:
        """What to add to a position of a whole row to get its column in `padded`."""
        return tuple(offset - len(self.prefix) for offset in self.padded.offsets)

    @property
    def tokens(self) -> int:
        """Tokens that go through the model, padding left out."""
        return len(self.prefix) + int(self.padded.attention_mask.sum())


def share_prefix(lm: LanguageModel, rows: Sequence[Sequence[int]], limit: int, new_tokens: int = 0) -> SharedBatch:
    """Split off what all rows begin with, at most `limit` tokens and never a whole row.

    Args:
        lm: The model that will run them.
        rows: Token ids.
        limit: The longest prefix allowed.
        new_tokens: How many tokens will be decoded after the rows.
    """
    limit = min(limit, *(len(row) - 1 for row in rows)) if len(rows) > 1 and _may_share(lm, rows, new_tokens) else 0
    length = min(common_prefix(rows), limit)
    return SharedBatch(tuple(rows[0][:length]), left_pad([row[length:] for row in rows], lm.pad_id, lm.device))


def _may_share(lm: LanguageModel, rows: Sequence[Sequence[int]], new_tokens: int) -> bool:
    """Padding in the middle pushes tokens out of a sliding window, which counts columns."""
    lengths = [len(row) for row in rows]
    window = lm.sliding_window
    fits = window is None or max(lengths) + new_tokens <= window or len(set(lengths)) == 1
    return fits and lm.shares_prefixes


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many items all rows begin with."""
    lowest, highest = min(map(tuple, rows)), max(map(tuple, rows))  # what these two share, all between them share too
    pairs = enumerate(zip(lowest, highest, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(lowest), len(highest)))


def forward_shared(
    lm: LanguageModel,
    batch: SharedBatch,
    keep: int,
    around: AbstractContextManager[Any] | None = None,
    use_cache: bool = False,
) -> Any:
    """The model's output for a batch, with logits for the last `keep` columns (`[rows, keep, vocab]`).

    Args:
        lm: The model, with the adapters that should run already on.
        batch: The rows.
        keep: Columns of logits.
        around: Entered around the pass over `batch.padded`, not around the prefix (injection goes here).
        use_cache: Whether the output must carry the cache of everything, prefix included.
    """
    past = _prefix_cache(lm, batch) if batch.prefix else None
    with around or nullcontext():
        return lm.model(
            input_ids=batch.padded.input_ids,
            attention_mask=full_mask(batch),
            position_ids=batch.padded.position_ids + len(batch.prefix),
            past_key_values=past,
            use_cache=use_cache or past is not None,
            **({"logits_to_keep": keep} if lm.keeps_logits else {}),
        )


def full_mask(batch: SharedBatch) -> Tensor:
    """The attention mask over prefix and rows, `[rows, prefix + width]`."""
    mask = batch.padded.attention_mask
    return torch.cat([mask.new_ones(len(mask), len(batch.prefix)), mask], 1) if batch.prefix else mask


def _prefix_cache(lm: LanguageModel, batch: SharedBatch) -> Any:
    ids = torch.tensor([batch.prefix], device=lm.device)
    extra = {"logits_to_keep": 1} if lm.keeps_logits else {}
    cache = lm.model(input_ids=ids, use_cache=True, **extra).past_key_values
    return take_rows(cache, torch.zeros(len(batch.padded.offsets), dtype=torch.long, device=lm.device))


def take_rows(cache: Any, rows: Tensor) -> Any:
    """The cache with its batch rows chosen anew, repeats allowed: `rows` holds row numbers.

    Beam search's `reorder_cache` is what every kind of cache layer has, recurrent states included.

    Raises:
        ModelError: The model gave no cache.
    """
    if cache is None:
        raise ModelError(
            "This model cannot be decoded from.",
            "asked for a cache, it gave none; some hybrid models need a newer transformers for that",
            "update transformers; capturing and scoring work without a cache",
        )
    cache.reorder_cache(rows)
    return cache


def prefix_leak(lm: LanguageModel, shared: int = 5, length: int = 6, padding: int = 4) -> float:
    """How far a shared prefix with padding behind it moves the last logits, relative to their norm.

    Infinitely far where the model gives no cache.
    """
    ids = [(7 * i + 3) % min(lm.vocab_size, 997) for i in range(shared + length)]
    rows = [ids, [*ids, *ids[:padding]]]
    with torch.no_grad(), adapters_on(lm.model, lm.target_adapters):
        batch = SharedBatch(tuple(ids[:shared]), left_pad([row[shared:] for row in rows], lm.pad_id, lm.device))
        try:
            found = forward_shared(lm, batch, 1).logits[0, -1].float()
        except ModelError:  # it gives no cache, so there is nothing to share
            return math.inf
        alone = lm.logits(1, input_ids=torch.tensor([ids], device=lm.device))[0, -1].float()
    return float((found - alone).norm() / alone.norm())
