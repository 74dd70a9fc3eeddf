"""Injection: how a slot receives an activation. One pure function; everything else only calls it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from augury.contract import Injection
from augury.errors import InputError, ModelError
from augury.lm import LanguageModel
from augury.lm.hooks import on_input, on_output


def inject(
    hidden: Float[Tensor, "n d"], vectors: Float[Tensor, "n d"], injection: Injection, coefficient: float | None = None
) -> Float[Tensor, "n d"]:
    """The slot rows after they have received their activations.

    With `h` a row of `hidden` and `v` its vector: `add` gives `h + c * ||h|| * v / ||v||`, `replace` the second term
    alone; with scale `fixed` the second term is `c * v / ||v||`; with `rescale_to` the result is rescaled to
    `rescale_to * ||h||`. Norms are float32. The injected term and all scale factors are detached: gradients pass
    through `h` only.

    Args:
        hidden: Residual stream at the slots.
        vectors: Activations, one a slot.
        injection: The contract's injection.
        coefficient: Instead of the contract's.

    Raises:
        InputError: Another width, or a zero or non-finite vector.
        ModelError: Another count: a fault in what called it.

    Source: Karvonen et al. 2025, arXiv 2512.15674; the table of docs/concepts.md.
    """
    check_vectors(vectors, hidden.shape[-1], hidden.shape[0])
    scale = injection.coefficient if coefficient is None else coefficient
    with torch.no_grad():
        v = vectors.to(hidden.device, torch.float32)
        norm = hidden.float().norm(dim=-1, keepdim=True)
        term = scale * v / v.norm(dim=-1, keepdim=True)
        if injection.scale == "match":
            term = term * norm
        factor = torch.ones_like(norm)
        if injection.rescale_to is not None:
            total = hidden.float() + term if injection.operation == "add" else term
            factor = injection.rescale_to * norm / total.norm(dim=-1, keepdim=True)
    kept = hidden.float() if injection.operation == "add" else torch.zeros_like(term)
    return ((kept + term) * factor).to(hidden.dtype)


def check_vectors(vectors: Float[Tensor, "*shape"], d_model: int, count: int) -> None:
    """Refuse vectors that cannot be injected into `count` slots of width `d_model`."""
    _check_shape(vectors, d_model, count)
    norms = vectors.float().norm(dim=-1)
    bad = torch.nonzero(~torch.isfinite(norms) | (norms == 0)).flatten().tolist()
    if bad:
        raise InputError(
            "Some activations cannot be injected.",
            f"rows {bad[:8]} are zero or not finite, so they have no direction",
            "leave these positions out, or check how the tensor was made",
        )


def _check_shape(vectors: Float[Tensor, "*shape"], d_model: int, count: int) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != d_model:
        raise InputError(
            "The activations have the wrong width.",
            f"they are {list(vectors.shape)} and the oracle's base has width {d_model}",
            "capture them from the model that the oracle was trained for",
        )
    if vectors.shape[0] != count:
        raise ModelError(
            "Slots and activations do not match.",
            f"there are {count} slots and {vectors.shape[0]} activations",
            "this is a fault of the prompt: report it with the question",
        )


@contextmanager
def injecting(
    lm: LanguageModel,
    injection: Injection,
    slots: Sequence[Sequence[int]],
    vectors: Sequence[Tensor],
    coefficient: float | None = None,
) -> Iterator[None]:
    """Inject into the prefill that runs inside this context.

    Args:
        lm: The model the oracle runs on.
        injection: Where and how.
        slots: For each row of the batch, the columns of its slots (already shifted by its padding).
        vectors: For each row, `[slots, d_model]`; an empty list of slots leaves the row alone.
        coefficient: Instead of the contract's.
    """
    rows = [row for row, columns in enumerate(slots) for _ in columns]
    columns = [column for row in slots for column in row]
    if not columns:
        yield
        return
    for row, tensor in zip(slots, vectors, strict=True):
        if len(row):
            _check_shape(tensor, lm.d_model, len(row))  # the values are checked once, where they go in
    stacked = torch.cat([tensor for row, tensor in zip(slots, vectors, strict=True) if len(row)])
    ran = False

    def change(hidden: Tensor) -> Tensor:
        nonlocal ran
        ran = True
        at = (torch.tensor(rows, device=hidden.device), torch.tensor(columns, device=hidden.device))
        return hidden.index_put(at, inject(hidden[at], stacked, injection, coefficient))

    hook = _hook(lm, injection)
    with hook(change):
        yield
    if not ran:
        raise ModelError(
            "Nothing was injected.", "the forward pass never reached the injection site", "report this: it is a fault"
        )


def _hook(lm: LanguageModel, injection: Injection):
    if injection.site == "embedding":
        return lambda change: on_input(lm.blocks[0], change)
    block = injection.block or 0
    if block >= lm.n_layers:
        raise InputError(
            f"There is no block {block} to inject into.", f"{lm.name} has {lm.n_layers}", "check the contract"
        )
    return lambda change: on_output(lm.blocks[block], change)
