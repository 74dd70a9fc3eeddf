"""What can be said about an adapter's files without the model that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from augury.errors import FormatError, ModelError
from augury.lm.adapter_kinds import peft_config, plain_start
from augury.lm.adapters import adapter_config, read_tensors

_HALF = re.compile(r"\.lora_(?P<embedding>embedding_)?[AB](?P<weight>\.weight)?$")
_RESTORE = "restore the file from where it came, or save the adapter again"


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter on disk: its configuration, and how much its tensors hold."""

    config: dict[str, Any]
    tensors: int
    parameters: int


def check_adapter_files(folder: Path) -> AdapterFiles:
    """Read an adapter's folder as strictly as can be done without its base.

    Of a LoRA, each matrix must have its other half, with the configuration's rank, and together they must change
    something. Whether every tensor has a place in the base is seen when it is loaded.

    Raises:
        NotFoundError: There is no adapter.
        ContractError: A kind of adapter that is never loaded.
        FormatError: A broken file, a pickle, values that are not finite, halves without each other, or another rank.
        ModelError: The adapter changes nothing.
    """
    config = adapter_config(folder)
    peft_config(plain_start(config))
    tensors = read_tensors(folder / "adapter_model.safetensors")
    if str(config.get("peft_type") or "LORA").upper() == "LORA":
        _check_pairs(tensors, config)
    return AdapterFiles(config, len(tensors), sum(tensor.numel() for tensor in tensors.values()))


def _check_pairs(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    downs = {key for key in tensors if _HALF.search(key) and _up(key) != key}
    ups = {key for key in tensors if _HALF.search(key)} - downs
    alone = ups ^ {_up(key) for key in downs}
    if alone or not downs:
        why = f"of {min(alone)} and its other half only one is there" if alone else "it has no pair of LoRA matrices"
        raise FormatError("The adapter's tensors are no whole LoRA.", why, _RESTORE)
    rank = config.get("r")
    other = sorted(key for key in downs if tensors[key].shape[0] != rank)
    if other and not config.get("rank_pattern"):
        why = f"{other[0]} has rank {tensors[other[0]].shape[0]}, adapter_config.json says {rank}"
        raise FormatError("The adapter's tensors do not fit its configuration.", why, _RESTORE)
    # Besides the second matrices: biases, and modules saved whole. Magnitudes only scale, and are never zero.
    added = [key for key in tensors if key not in downs and "lora_magnitude_vector" not in key]
    if not any(bool(tensors[key].any()) for key in added):
        why = "all of its second matrices are zero, as they are before training"
        raise ModelError("The adapter changes nothing.", why, "train it, or name another folder")


def _up(key: str) -> str:
    """The name of a first matrix's other half; of any other tensor, its own."""
    return _HALF.sub(lambda found: f".lora_{found['embedding'] or ''}B{found['weight'] or ''}", key)
