"""Forward hooks that are always taken off again, and a forward pass that stops after the deepest layer wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from augury.lm.blocks import hidden_of, with_hidden


class StopForward(Exception):
    """Raised by a hook when everything asked for has been seen; never leaves `stopping`."""


@contextmanager
def on_output(module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Call `change` with the module's hidden states `[batch, seq, d_model]`; a tensor it returns replaces them."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        changed = change(hidden_of(output))
        return None if changed is None else with_hidden(output, changed)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def on_input(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the hidden states that enter `module` (its first argument, or `hidden_states=`)."""

    def hook(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def stopping() -> Iterator[None]:
    """End a forward pass quietly where a hook raised `StopForward`."""
    with suppress(StopForward):
        yield
