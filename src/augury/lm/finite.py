"""Logits that are numbers: where they are not, no token follows from them."""

from __future__ import annotations

import torch
from torch import Tensor

from augury.errors import ModelError


def finite(logits: Tensor) -> Tensor:
    """The logits `[..., vocab]` themselves, or a refusal where one is NaN or infinite.

    A token that a model rules out (minus infinity) is none of these.

    Raises:
        ModelError: They are not finite.
    """
    if not bool(torch.isfinite(logits.amax(-1)).all()):
        raise ModelError(
            "The model's logits are not finite.",
            "NaN or infinity came out of it, from broken weights, a coefficient too large, or too narrow a dtype",
            "use a smaller coefficient or dtype='float32', and check the model and its adapter with `augury doctor`",
        )
    return logits
