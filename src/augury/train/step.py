"""One training step's arithmetic: the shared prefix run once, injection, loss on the answer tokens only."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from augury.contract import Injection
from augury.lm import LanguageModel
from augury.lm.shared import forward_shared
from augury.oracle.inject import injecting
from augury.train.batching import Batch


def example_losses(lm: LanguageModel, injection: Injection, batch: Batch) -> Tensor:
    """Each example's loss, `[batch]`: the sum over its labels by the number of its answer tokens, in nats.

    The end tokens count in the sum but not in the number, so that the one token of a Yes or No weighs as much as a
    token of a long answer.
    """
    return token_losses(lm, injection, batch).sum(1) / batch.answer_tokens


def token_losses(lm: LanguageModel, injection: Injection, batch: Batch, *, inject_nothing: bool = False) -> Tensor:
    """The loss of every label, `[batch, keep]`, 0 where there is none; a row's labels are its last columns."""
    keep = batch.labels.shape[1] + 1
    slots = [[] for _ in batch.slots] if inject_nothing else batch.slots
    logits = forward_shared(lm, batch.rows, keep, injecting(lm, injection, slots, batch.vectors)).logits
    return torch.nn.functional.cross_entropy(
        logits[:, -keep:-1].float().flatten(0, 1), batch.labels.flatten(), ignore_index=-100, reduction="none"
    ).view_as(batch.labels)


def precision(lm: LanguageModel, autocast: str | None) -> Any:
    """A context in which matrix products run in `autocast`'s dtype (None: in the model's own)."""
    if autocast is None:
        return nullcontext()
    return torch.autocast(lm.device.type, dtype=getattr(torch, autocast))
