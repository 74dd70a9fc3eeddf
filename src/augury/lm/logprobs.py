"""Teacher-forced log-probabilities of given text."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from augury.lm.batch import left_pad
from augury.lm.finite import finite
from augury.lm.load import LanguageModel


def label_logprobs(logits: Float[Tensor, "n vocab"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The log-probability of each label, in float32."""
    logits = logits.float()
    return logits.gather(-1, labels[:, None])[:, 0] - logits.logsumexp(-1)


def continuation_logprobs(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    *,
    batch_size: int = 16,
    around: Any = None,
) -> list[Tensor]:
    """Log-probabilities of each continuation's tokens after its prompt.

    Args:
        lm: The model, with the adapters that should score already on.
        prompts: Token ids, at least one each.
        continuations: Token ids, at least one each.
        batch_size: Rows a forward pass.
        around: `around(rows, offsets)` gives a context for one batch's forward pass (injection goes there).

    Returns:
        For each row a float32 tensor `[len(continuation)]` on the CPU.
    """
    sequences = [list(p) + list(c) for p, c in zip(prompts, continuations, strict=True)]
    found: list[Tensor] = [torch.empty(0)] * len(sequences)
    for rows in lm.groups([len(s) for s in sequences], batch_size):
        batch = left_pad([sequences[row] for row in rows], lm.pad_id, lm.device)
        keep = max(len(continuations[row]) for row in rows) + 1
        context: AbstractContextManager[Any] = around(rows, batch.offsets) if around is not None else nullcontext()
        with torch.no_grad(), context:
            logits = lm.logits(
                keep=keep,
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
            )
        for i, row in enumerate(rows):
            labels = torch.tensor(continuations[row], device=logits.device)
            found[row] = label_logprobs(finite(logits[i, -len(labels) - 1 : -1]), labels).cpu()
    return found
