"""Paths of their own, that results on the tiny families are compared with: no code of ours that is under test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from augury.contract import Injection
from augury.lm import LanguageModel
from tests.families import FAMILIES, LEAKY, WIDTH, build, ids

ALL = [*FAMILIES, *LEAKY]
LINEAR = [family for family in ("qwen3_next", "qwen3_5", "bamba") if family in ALL]
ADD = Injection()
PROMPT, SLOTS = ids(12, seed=3), [4, 5, 6]

models: dict[str, LanguageModel] = {}


def model(family: str) -> LanguageModel:
    """The family's model, frozen, made once; tests leave it as it was."""
    if family not in models:
        models[family] = build(family)
        models[family].model.requires_grad_(False)
    return models[family]


def vectors(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)) * 3


def plain_logits(lm: LanguageModel, sequence: list[int]) -> Tensor:
    """Logits `[seq, vocab]` of one unpadded sequence, without any of augury's code."""
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0]


def plain_blocks(lm: LanguageModel, sequence: list[int]) -> list[Tensor]:
    """Every block's output `[seq, d]` for one unpadded sequence, through hooks of our own."""
    seen: list[Tensor] = []
    handles = [
        block.register_forward_hook(
            lambda _m, _a, out: seen.append((out[0] if isinstance(out, tuple) else out)[0].clone())
        )
        for block in lm.blocks
    ]
    plain_logits(lm, sequence)
    for handle in handles:
        handle.remove()
    return seen


@contextmanager
def leaves_no_hooks(lm: LanguageModel) -> Iterator[None]:
    """transformers keeps hooks of its own on a model, so the hooks after are compared with the hooks before."""
    before = _hooks(lm)
    yield
    after = _hooks(lm)
    assert not {name: hooks for name, hooks in after.items() if hooks != before[name]}


def _hooks(lm: LanguageModel) -> dict[str, list[int]]:
    return {name: [*m._forward_hooks, *m._forward_pre_hooks] for name, m in lm.model.named_modules()}


def close(a: Tensor, b: Tensor, bound: float = 1e-4) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= bound)


def fail(_hidden: Tensor) -> None:
    raise RuntimeError("inside a hook")
