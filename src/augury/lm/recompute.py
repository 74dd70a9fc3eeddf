"""Gradient checkpointing: blocks are run again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from augury.errors import ModelError

_CACHES = ("past_key_values", "past_key_value", "layer_past")  # what different blocks call it


@contextmanager
def recomputing(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Checkpoint every block's forward inside, and nothing else: dropout of the base stays off.

    The forward is checkpointed and not the call, as older transformers have it: hooks would run a second time in the
    backward pass, when the injection is over.

    Raises:
        ModelError: A pass inside goes on from a cache.
    """
    with ExitStack() as undo:
        for block in blocks:
            undo.callback(_put_back, block, vars(block).get("forward"))
            block.forward = partial(_checkpointed, block.forward)
        yield


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The forward without a cache: the second run would write into it again. Without gradients there is none."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    for name in _CACHES:
        cache = kwargs.get(name)
        if cache is None:
            continue
        if cache.get_seq_length():
            raise ModelError(
                "A pass that goes on from a cache cannot be checkpointed.",
                "its blocks are run again in the backward pass, and would write into the cache twice",
                "run the whole rows, or leave gradient checkpointing out",
            )
        kwargs[name] = None
    if "use_cache" in kwargs:
        kwargs["use_cache"] = False
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _put_back(block: nn.Module, own: Callable[..., Any] | None) -> None:
    """The forward of the block's class, or the one that somebody had put over it."""
    if own is None:
        del block.forward
    else:
        block.forward = own
