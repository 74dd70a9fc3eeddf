"""One training step's arithmetic: the shared prefix run once, injection, loss on the answer tokens only."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from augury.contract import Injection
from augury.lm import LanguageModel
from augury.lm.batch import Padded
from augury.oracle.inject import injecting
from augury.train.batching import Batch


def example_losses(lm: LanguageModel, injection: Injection, batch: Batch) -> Tensor:
    """Mean loss over each example's answer tokens, `[batch]`, in nats.

    The tokens that all rows begin with depend on the adapter but on no row, so they are run once and their keys and
    values are shared; gradients add up through the sharing exactly as if every row had run them.
    """
    losses = token_losses(lm, injection, batch)
    return losses.sum(1) / (batch.labels != -100).sum(1)


def token_losses(lm: LanguageModel, injection: Injection, batch: Batch, *, inject_nothing: bool = False) -> Tensor:
    """The loss of every label, `[batch, keep]`, 0 where there is none; the row's labels are its last columns."""
    keep = batch.labels.shape[1] + 1
    past = _prefix_cache(lm, batch) if batch.prefix else None
    slots = [[] for _ in batch.slots] if inject_nothing else batch.slots
    with injecting(lm, injection, slots, batch.vectors):
        logits = _forward(lm, batch, past, keep)
    return torch.nn.functional.cross_entropy(
        logits[:, -keep:-1].float().flatten(0, 1), batch.labels.flatten(), ignore_index=-100, reduction="none"
    ).view_as(batch.labels)


def _prefix_cache(lm: LanguageModel, batch: Batch) -> Any:
    ids = torch.tensor([batch.prefix], device=lm.device)
    extra = {"logits_to_keep": 1} if lm.keeps_logits else {}
    cache = lm.model(input_ids=ids, use_cache=True, **extra).past_key_values
    cache.batch_repeat_interleave(len(batch.slots))
    return cache


def _forward(lm: LanguageModel, batch: Batch, past: Any, keep: int) -> Tensor:
    padded, length = batch.padded, len(batch.prefix)
    if past is None:
        return lm.logits(keep, **_inputs(padded, padded.attention_mask, 0))
    seen = padded.attention_mask.new_ones(len(batch.slots), length)
    inputs = _inputs(padded, torch.cat([seen, padded.attention_mask], 1), length)
    extra = {"logits_to_keep": keep} if lm.keeps_logits else {}
    return lm.model(**inputs, past_key_values=past, use_cache=True, **extra).logits[:, -keep:]


def _inputs(padded: Padded, mask: Tensor, shift: int) -> dict[str, Tensor]:
    return {"input_ids": padded.input_ids, "attention_mask": mask, "position_ids": padded.position_ids + shift}


def precision(lm: LanguageModel, autocast: str | None) -> Any:
    """A context in which matrix products run in `autocast`'s dtype (None: in the model's own)."""
    if autocast is None:
        return nullcontext()
    return torch.autocast(lm.device.type, dtype=getattr(torch, autocast))
