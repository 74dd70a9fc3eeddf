"""An adapter that learns: its parameters take gradients and its dropout is on, the base stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from augury.lm.adapters import adapter_dropouts, adapter_parameters, add_adapter
from augury.lm.load import LanguageModel
from augury.lm.recompute import recomputing


def add_learner(lm: LanguageModel, config: dict[str, object], name: str, seed: int) -> dict[str, nn.Parameter]:
    """Put a fresh adapter on the model, off; its parameters, float32 whatever the base's dtype."""
    torch.manual_seed(seed)
    add_adapter(lm, config, name)
    parameters = adapter_parameters(lm.model, name)
    for parameter in parameters.values():  # peft takes the base's dtype, in which small steps would round to nothing
        parameter.data = parameter.data.float()
    return parameters


@contextmanager
def learning(lm: LanguageModel, name: str, recompute: bool = False) -> Iterator[None]:
    """The adapter's parameters take gradients inside, and only they; its dropout is on, the base's off.

    Args:
        lm: The model.
        name: The adapter's name on it.
        recompute: Whether blocks run again in the backward pass, for memory.
    """
    parameters = adapter_parameters(lm.model, name)
    frozen = [parameter for parameter in lm.model.parameters() if parameter.requires_grad]
    dropouts = adapter_dropouts(lm.model, name)
    with recomputing(lm.blocks) if recompute else nullcontext():
        try:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            for dropout in dropouts:
                dropout.train()
            yield
        finally:
            for parameter in parameters.values():
                parameter.requires_grad_(False)
            for parameter in frozen:
                parameter.requires_grad_(True)
            for dropout in dropouts:
                dropout.eval()
