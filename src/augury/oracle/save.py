"""Write an oracle: a plain PEFT folder, its contract for us and for others, and a model card."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from augury.contract import Contract, write_contract
from augury.errors import AuguryError, FormatError, InputError, StorageError
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_parameters, save_adapter
from augury.oracle.card import model_card

ADAPTER_CONFIG = "adapter_config.json"


def save_oracle(
    lm: LanguageModel,
    adapter: str,
    config: Mapping[str, Any],
    contract: Contract,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write the adapter `adapter` of `lm` as an oracle's folder.

    Everything is written into a folder beside it that is then renamed, so that `folder` is whole or as it was. An
    oracle that lies there is replaced, with everything else in its folder.

    Args:
        lm: The model that carries the adapter.
        adapter: Its name there.
        config: Its PEFT configuration.
        contract: How the oracle is used; it must name the base and the trained layers.
        folder: Where to.
        dtype: Of the tensors.

    Returns:
        The folder.

    Raises:
        InputError: `folder` holds something that is no oracle.
        ContractError: The contract names no base or no layers.
        FormatError: A tensor does not fit the dtype.
        StorageError: The folder cannot be written.
    """
    folder = folder.expanduser()
    _check_place(folder)
    _check_range(lm, adapter, dtype)
    peft = {**config, "base_model_name_or_path": contract.base_model, "inference_mode": True}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.partial-"))
    except OSError as error:
        raise _not_written(folder, error) from error
    try:
        partial.chmod(0o755)  # a temporary folder is its owner's alone
        save_adapter(lm, adapter, peft, partial, dtype)
        write_contract(contract, partial, peft)
        (partial / "README.md").write_text(model_card(contract, peft), encoding="utf-8")
        _put(partial, folder)
    except AuguryError:
        raise
    except Exception as error:  # safetensors raises its own error for a full disk
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise _not_written(folder, error) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _check_place(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file.", "an oracle is a folder", "choose another place")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ADAPTER_CONFIG).is_file():
        why = "it is not empty and holds no adapter, so something else would be lost"
        raise InputError(f"{folder} is not replaced.", why, "choose another place")


def _check_range(lm: LanguageModel, adapter: str, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    for key, parameter in adapter_parameters(lm.model, adapter).items():
        if not bool((parameter.detach().abs() <= largest).all()):
            why = f"{key} has values beyond {largest:g} or that are not finite"
            raise FormatError(f"The adapter does not fit {dtype}.", why, "check the training run, or save as float32")


def _put(partial: Path, folder: Path) -> None:
    """Move the new folder into place; an old one goes only once the new one stands."""
    old = None
    if folder.exists():
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old-"))
        os.replace(folder, old / "was")
    try:
        os.replace(partial, folder)
    except OSError:
        if old is not None:
            os.replace(old / "was", folder)
        raise
    finally:
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


def _not_written(folder: Path, error: Exception) -> StorageError:
    return StorageError(f"{folder} cannot be written.", str(error), "free space, or choose another folder")
