"""What a machine multiplies fast."""

from __future__ import annotations

from typing import Literal

import torch

from augury.lm.load import LanguageModel


def fast_products(lm: LanguageModel) -> Literal["bfloat16"] | None:
    """The dtype in which a float32 model's products are much faster here; None where they are not, or it is no float32.

    On a CPU only with bfloat16 instructions: without them such products are slower than float32's.
    """
    if lm.dtype != torch.float32:
        return None
    if lm.device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else None
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bfloat16" if lm.device.type == "cpu" and supported is not None and supported() else None
