"""Write an oracle: a plain PEFT folder, its contract for us and for others, and a model card."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from augury.contract import Contract, write_contract
from augury.contract.formats import ORACLE_FILE
from augury.errors import FormatError, InputError
from augury.files import expanded, open_up, storing
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_parameters, save_adapter
from augury.oracle.card import model_card
from augury.oracle.hub import FILES


def save_oracle(
    lm: LanguageModel,
    adapter: str,
    config: Mapping[str, Any],
    contract: Contract,
    folder: Path,
    *,
    dtype: torch.dtype | None = torch.float16,
) -> Path:
    """Write the adapter `adapter` of `lm` as an oracle's folder.

    A new folder is written beside its place and then renamed, so that it is whole or not there. Of an oracle that lies
    there only the files that augury writes are replaced, each by a rename once all of them are written; everything
    else in its folder stays.

    Args:
        lm: The model that carries the adapter.
        adapter: Its name there.
        config: Its PEFT configuration.
        contract: How the oracle is used; it must name the base and the trained layers.
        folder: Where to.
        dtype: Of the tensors; None keeps what they have in memory, without any rounding.

    Returns:
        The folder.

    Raises:
        InputError: `folder` holds something that is no oracle of ours, such as another's PEFT adapter.
        ContractError: The contract names no base or no layers.
        FormatError: A tensor does not fit the dtype.
        StorageError: The folder cannot be written.
    """

    def write(partial: Path, chosen: torch.dtype) -> None:
        write_oracle(lm, adapter, config, contract, partial, chosen)

    return save_folder(lm, adapter, folder, dtype, ORACLE_FILE, write)


def save_folder(
    lm: LanguageModel,
    adapter: str,
    folder: Path,
    dtype: torch.dtype | None,
    sidecar: str,
    write: Callable[[Path, torch.dtype], None],
) -> Path:
    """Have `write` make an adapter's files in a new folder, and put that in place; `sidecar` says that it is ours."""
    folder = expanded(folder)
    _check_place(folder, sidecar)
    chosen = _dtype_in_memory(lm, adapter) if dtype is None else dtype
    _check_range(lm, adapter, chosen)
    with storing(folder):
        partial = _partial_folder(folder)
        try:
            open_up(partial)
            write(partial, chosen)
            _put(partial, folder, sidecar)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def write_oracle(
    lm: LanguageModel, adapter: str, config: Mapping[str, Any], contract: Contract, folder: Path, dtype: torch.dtype
) -> None:
    """Write an oracle's files into `folder`, one after the other; `save_oracle` and checkpoints make that whole.

    Raises:
        ContractError: The contract names no base or no layers.
        StorageError: The contract cannot be written; the disk's other errors pass as they are.
    """
    peft = {**config, "base_model_name_or_path": contract.base_model, "inference_mode": True}
    save_adapter(lm, adapter, peft, folder, dtype)
    write_contract(contract, folder, peft)
    (folder / "README.md").write_text(model_card(contract, peft), encoding="utf-8")


def _partial_folder(folder: Path) -> Path:
    """Inside a folder that is there, which may be a mount of its own; else beside its place."""
    parent = folder if folder.is_dir() else folder.parent
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent, prefix=f".{folder.name}.partial-"))


def _dtype_in_memory(lm: LanguageModel, adapter: str) -> torch.dtype:
    """The narrowest dtype that holds all of the adapter's tensors exactly."""
    return reduce(torch.promote_types, (p.dtype for p in adapter_parameters(lm.model, adapter).values()))


def _check_place(folder: Path, sidecar: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file.", "an oracle is a folder", "choose another place")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / sidecar).is_file():
        why = f"it is not empty and holds no {sidecar}, so it is no oracle of ours"
        raise InputError(f"{folder} is not replaced.", why, "choose another place")


def _check_range(lm: LanguageModel, adapter: str, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    for key, parameter in adapter_parameters(lm.model, adapter).items():
        if not bool((parameter.detach().abs() <= largest).all()):
            why = f"{key} has values beyond {largest:g} or that are not finite"
            raise FormatError(f"The adapter does not fit {dtype}.", why, "check the training run, or save as float32")


def _put(partial: Path, folder: Path, sidecar: str) -> None:
    """Move a new folder into place whole, or its files over those of an older oracle."""
    if not folder.exists():
        os.replace(partial, folder)
        return
    for name in dict.fromkeys((*FILES, sidecar)):
        if (partial / name).exists():
            os.replace(partial / name, folder / name)
        else:  # a sidecar of the older oracle that cannot say what this contract does
            (folder / name).unlink(missing_ok=True)
