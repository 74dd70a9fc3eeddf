"""Differences of activations, and how much of one would be there if nothing differed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from augury.activations.capture import capture_vectors
from augury.activations.types import Activations
from augury.errors import ContractError, InputError
from augury.lm import LanguageModel, transcript_of

DEFAULT_FLOOR = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


def diff(finetuned: Activations, base: Activations, noise_floor: float | None = None) -> Activations:
    """`finetuned - base`, position by position, of the same token ids.

    Args:
        finetuned: What the fine-tune gave.
        base: What the base gave for the same ids, layers and positions.
        noise_floor: The relative norm that equal models would show, from `noise_floor()`. Default: a cautious figure
            for the lower precision of the two.

    Returns:
        Activations of kind `difference`, float32, with the base's norms; an oracle is asked only where
        `||difference|| / ||base||` exceeds the floor.

    Raises:
        InputError: Other tokens, layers or positions.
        ContractError: Other widths.
    """
    for item in (finetuned, base):
        if not isinstance(item, Activations):
            why = f"a {type(item).__name__} is no activations"
            raise InputError("These activations cannot be subtracted.", why, "pass what augury.capture(...) returns")
    if "difference" in (finetuned.provenance.kind, base.provenance.kind):
        raise InputError(
            "These activations cannot be subtracted.",
            "one of them is a difference already, so its norms are not a model's",
            "subtract what was captured",
        )
    ids = [None if item.transcript is None else item.transcript.token_ids for item in (finetuned, base)]
    last = max(base.positions) + 1
    if None in ids or ids[0][:last] != ids[1][:last]:  # type: ignore[index]
        raise InputError(
            "These activations cannot be subtracted.",
            "they were not taken from the same token ids",
            "capture both models on one Transcript",
        )
    if (finetuned.layers, finetuned.positions) != (base.layers, base.positions):
        raise InputError(
            "These activations cannot be subtracted.",
            f"layers {finetuned.layers} and {base.layers}, positions {finetuned.positions} and {base.positions}",
            "capture both at the same layers and positions",
        )
    if finetuned.d_model != base.d_model:
        raise ContractError(
            "These activations cannot be subtracted.",
            f"widths {finetuned.d_model} and {base.d_model}",
            "compare a model with a fine-tune of itself",
        )
    floor = noise_floor
    if floor is None:
        floor = max(DEFAULT_FLOOR.get(item.provenance.dtype, 1e-4) for item in (finetuned, base))
    return replace(
        finetuned,
        vectors=finetuned.vectors.float() - base.vectors.float(),
        provenance=replace(finetuned.provenance, kind="difference"),
        base_norms=base.vectors.float().norm(dim=-1),
        noise_floor=floor,
    )


def noise_floor(model: LanguageModel, source: Any, layers: Sequence[int], positions: Sequence[int]) -> float:
    """The largest relative difference between one context captured alone and the same in a padded batch.

    What two equal models could show for no reason but batch shape: a difference below this is noise. It is never below
    the rounding of the model's dtype.

    Args:
        model: The model, in the dtype that will be compared.
        source: One context.
        layers: Layer indices.
        positions: Token positions.
    """
    ids = transcript_of(model, source).token_ids
    alone = capture_vectors(model, [ids], layers, [positions], batch_size=1)[0].float()
    # A context that fills the model has no room beside it: then only the batch's size differs.
    longer = [*ids, *ids[: max(1, len(ids) // 2)]][: model.max_positions]
    padded = model.pads_cleanly
    rows = [list(positions), [len(longer) - 1]] if padded else [list(positions), list(positions)]
    others = capture_vectors(model, [ids, longer if padded else ids], layers, rows, batch_size=2)[0].float()
    measured = float(((alone - others).norm(dim=-1) / alone.norm(dim=-1)).max())
    return max(measured, torch.finfo(model.dtype).eps)
