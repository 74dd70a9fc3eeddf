"""The trained reader: an adapter that answers from text what an oracle answers from activations.

A small base cannot answer questions at all, so an oracle that beats it proves nothing. A reader is trained on the same
examples, with the same rank and steps, and gets the decoded text in place of the slots.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from augury.contract import Contract, check_runs_on, contract_from_dict
from augury.errors import FormatError, NotFoundError
from augury.files import write_text
from augury.lm import LanguageModel
from augury.lm.adapters import check_moves, load_adapter, names_on, save_adapter
from augury.oracle.save import save_folder

READER_FILE = "reader.json"
FOLDER = "reader"  # inside an oracle's folder: the one that answers its text controls
_numbers = itertools.count(1)


def write_reader(
    lm: LanguageModel, adapter: str, config: Mapping[str, Any], contract: Contract, folder: Path, dtype: torch.dtype
) -> None:
    """Write a reader's files into `folder`: a plain PEFT adapter, and what it runs on and how its prompt is rendered.

    There is no `oracle.json`: nothing may take it for an oracle.
    """
    peft = {**config, "base_model_name_or_path": contract.base_model, "inference_mode": True}
    save_adapter(lm, adapter, peft, folder, dtype)
    write_text(folder / READER_FILE, contract.model_dump_json(indent=1) + "\n")


def save_reader(
    lm: LanguageModel,
    adapter: str,
    config: Mapping[str, Any],
    contract: Contract,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write the adapter `adapter` of `lm` as a reader's folder, whole or not at all; see `save_oracle`.

    Raises:
        InputError: `folder` holds something that is no reader.
        FormatError: A tensor does not fit the dtype.
        StorageError: The folder cannot be written.
    """

    def write(partial: Path, chosen: torch.dtype) -> None:
        write_reader(lm, adapter, config, contract, partial, chosen)

    return save_folder(lm, adapter, folder, dtype, READER_FILE, write)


def load_reader(source: str | Path, lm: LanguageModel, off_contract: bool = False) -> str:
    """Put a reader's adapter onto a model; returns its name there.

    Raises:
        NotFoundError: The folder holds no reader.
        ContractError: It was trained on another base.
        FormatError: Its files cannot be used.
        ModelError: It changes nothing.
    """
    folder = Path(source)
    path = folder / READER_FILE
    if not path.is_file():
        why, instead = f"it has no {READER_FILE}", "name a folder that `augury train --reader` made"
        raise NotFoundError(f"There is no reader in {folder}.", why, instead)
    try:
        contract = contract_from_dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise FormatError(f"{path} cannot be read.", str(error), "restore it from where it came") from error
    check_runs_on(contract, lm.identity, off_contract)
    taken = names_on(lm.model)
    name = next(name for number in _numbers if (name := f"reader_{number}") not in taken)
    load_adapter(lm, folder, name)
    check_moves(lm, name, f"The reader in {folder}")
    return name
