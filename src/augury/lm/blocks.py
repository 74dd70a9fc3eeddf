"""Find a causal LM's decoder blocks by its structure, never by its family's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from augury.errors import ModelError


@dataclass(frozen=True)
class Decoder:
    """The text decoder of a model: its stack of blocks and the module that runs them.

    Attributes:
        path: Where the block list stands in the model, for example `model.layers`.
        blocks: The decoder blocks, in order.
        trunk: The module that embeds token ids and runs the blocks (no LM head).
    """

    path: str
    blocks: tuple[nn.Module, ...]
    trunk: nn.Module


def find_decoder(model: nn.Module, path: str | None = None) -> Decoder:
    """Find the one module list that is as long as `num_hidden_layers` and stands beside the token embedding.

    Args:
        model: A Hugging Face causal LM, a multimodal wrapper of one, or a PEFT model around either.
        path: The block list's dotted name, where the search finds none or several.

    Raises:
        ModelError: No such list, or more than one; the message names what exists.
    """
    n_layers = text_config(model).num_hidden_layers
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    if path is not None:
        if path not in lists:
            raise ModelError(
                f"The model has no block list '{path}'.", _listing(lists), "name one of these in `blocks=`"
            )
        return _decoder(model, path)
    embedding = model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    found = [
        name
        for name, module in lists.items()
        if len(module) == n_layers and any(child is embedding for child in _parent(model, name).children())
    ]
    if len(found) != 1:
        raise ModelError(
            f"The decoder blocks of {type(model).__name__} could not be told apart.",
            f"{len(found)} module lists of {n_layers} blocks stand beside the token embedding; {_listing(lists)}",
            "name the right one: `load_model(..., blocks='model.layers')`",
        )
    return _decoder(model, found[0])


def text_config(model: nn.Module) -> Any:
    """The configuration of the text decoder, also inside a multimodal wrapper."""
    config: Any = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def hidden_of(output: Any) -> Tensor:
    """The residual stream `[batch, seq, d_model]` in a block's output (a tensor, or a tuple that starts with it)."""
    hidden = output[0] if isinstance(output, (tuple, list)) else output
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        raise ModelError(
            "A decoder block returned no hidden states.",
            f"it returned {type(hidden).__name__}, not a tensor [batch, seq, d_model]",
            "check `blocks=`: these are not the model's decoder blocks",
        )
    return hidden


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """The same block output with its residual stream replaced by `hidden`."""
    if isinstance(output, tuple):
        return (hidden, *output[1:])
    return [hidden, *output[1:]] if isinstance(output, list) else hidden


def _parent(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _decoder(model: nn.Module, path: str) -> Decoder:
    blocks = model.get_submodule(path)
    assert isinstance(blocks, nn.ModuleList)
    return Decoder(path, tuple(blocks), _parent(model, path))


def _listing(lists: dict[str, nn.ModuleList]) -> str:
    named = ", ".join(f"{name} ({len(module)})" for name, module in list(lists.items())[:8])
    return f"its module lists are: {named or 'none'}"
