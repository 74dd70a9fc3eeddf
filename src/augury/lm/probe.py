"""What a model does with padding, found by trying."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from augury.lm.adapters import adapters_on
from augury.lm.batch import left_pad
from augury.lm.hooks import StopForward, on_output, stopping

if TYPE_CHECKING:
    from augury.lm.load import LanguageModel


def padding_leak(lm: LanguageModel, length: int = 6, padding: int = 5) -> float:
    """How far padding moves the real positions at the last block, relative to their norm (0 where it does not)."""
    ids = [(7 * i + 3) % min(lm.vocab_size, 997) for i in range(length)]
    alone = last_block(lm, [ids])[0, -length:]
    padded = last_block(lm, [ids, [*ids, *ids[:padding]]])[0, -length:]
    return float((alone - padded).norm(dim=-1).max() / alone.norm(dim=-1).max())


def last_block(lm: LanguageModel, sequences: list[list[int]]) -> torch.Tensor:
    """The last block's output `[batch, width, d_model]` in float32, before the final norm."""
    batch = left_pad(sequences, lm.pad_id, lm.device)
    seen: list[torch.Tensor] = []

    def keep(hidden: torch.Tensor) -> None:
        seen.append(hidden.detach().float())
        raise StopForward

    with torch.no_grad(), adapters_on(lm.model, lm.target_adapters), stopping(), on_output(lm.blocks[-1], keep):
        lm.decoder.trunk(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        )
    return seen[0]
