"""Hashes by which a contract names a tokenizer, a chat template and a base's weights."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from augury.lm.blocks import Decoder
from augury.lm.tuners import base_parameters


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 over the sorted (token, id) pairs and the special ids: equal for equal tokenizers, whatever the file."""
    digest = hashlib.sha256()
    for token, i in sorted(tokenizer.get_vocab().items()):
        digest.update(f"{token}\0{i}\n".encode())
    digest.update(str(sorted(set(tokenizer.all_special_ids))).encode())
    return digest.hexdigest()


def chat_template_hash(tokenizer: Any) -> str | None:
    """SHA-256 of the chat template's text, or None where there is none."""
    template = getattr(tokenizer, "chat_template", None)
    return hashlib.sha256(str(template).encode()).hexdigest() if template else None


def weights_fingerprint(decoder: Decoder, samples: int = 64) -> str:
    """SHA-256 over sampled base weights of every block, rounded to bfloat16: equal for float32 and bfloat16.

    Adapter tensors are left out: the fingerprint names the base whatever hangs on it. Weights that were cast to
    float16 give another one, because they were rounded twice: `load_model(name, dtype="float16")` takes it from the
    files instead, and for a model object that is float16 already nothing better is known.
    """
    digest = hashlib.sha256()
    for index, block in enumerate(decoder.blocks):
        for name, parameter in sorted(base_parameters(block), key=lambda pair: pair[0]):
            if "lora_" in name or parameter.is_meta:
                continue
            flat = parameter.detach().reshape(-1)
            values = flat[:: max(1, flat.numel() // samples)][:samples].to("cpu", torch.bfloat16)
            digest.update(f"{index}.{name}{tuple(parameter.shape)}".encode())
            digest.update(values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()
