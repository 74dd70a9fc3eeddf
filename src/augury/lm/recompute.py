"""Gradient checkpointing: blocks are run again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from augury.errors import ModelError


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """Checkpoint every block inside, and nothing else: dropout of the base stays off.

    Raises:
        ModelError: This transformers checkpoints a block together with its hooks, which would then run a second time.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    if "__call__" in vars(GradientCheckpointingLayer):
        raise ModelError(
            "Gradient checkpointing cannot be used with this transformers.",
            "it runs a block's hooks again in the backward pass, when the injection is over",
            "update transformers, or leave optimizer.gradient_checkpointing out",
        )
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    before = [block.training for block in blocks]
    model.gradient_checkpointing_enable({"use_reentrant": False})  # pyright: ignore[reportCallIssue]
    try:
        for block in blocks:
            block.training = True  # a block looks at its own flag
        yield
    finally:
        for block, training in zip(blocks, before, strict=True):
            block.training = training
        model.gradient_checkpointing_disable()  # pyright: ignore[reportCallIssue]
