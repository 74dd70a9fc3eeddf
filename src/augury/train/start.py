"""Begin with an oracle that exists: one of ours, or a published adapter, goes on learning from new data."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from augury.contract import Contract, read_contract
from augury.errors import InputError
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_config, adapter_parameters
from augury.oracle.hub import find_oracle
from augury.oracle.load import load_oracle
from augury.train.recipe import LoraSettings

log = logging.getLogger(__name__)
_NAMES = {"rank": "r", "alpha": "lora_alpha", "rslora": "use_rslora"}  # in an adapter's file


def begin_with(source: str, lm: LanguageModel, lora: LoraSettings, contract: Contract, adapter: str) -> None:
    """Put an oracle's weights into the new adapter `adapter` of `lm`.

    Args:
        source: The oracle: a folder, a hub id or an alias.
        lm: The base.
        lora: What the recipe says of its own adapter; the oracle's must be the same.
        contract: Of the oracle to come: where it differs from the old one's, that is logged.
        adapter: The new adapter's name.

    Raises:
        InputError: The oracle has another rank, alpha or scaling, or adapts other modules.
        ContractError: It runs on another base.
        NotFoundError: There is no such oracle.
    """
    folder = check_start(source, lora)
    with load_oracle(folder, lm) as oracle:
        _tell(source, oracle.contract, contract)
        own, old = adapter_parameters(lm.model, adapter), adapter_parameters(lm.model, oracle.adapter)
        _check_names(source, own, old)
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(old[name])


def begun_with(source: str) -> str:
    """The oracle that a run begins with, in words: its name, its adapter's SHA-256 and the examples it had seen.

    Raises:
        NotFoundError: There is no such oracle.
    """
    folder = find_oracle(source)
    with (folder / "adapter_model.safetensors").open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    trained = read_contract(folder).trained_on
    seen = f", {trained.examples:,} examples" if trained and trained.examples else ""
    return f"begun with the oracle {source} (SHA-256 {digest[:16]}{seen})"


def check_start(source: str, lora: LoraSettings) -> Path:
    """The oracle's folder, where its adapter has the recipe's shape; said before anything is sampled.

    Raises:
        InputError: Another rank, alpha or scaling.
        NotFoundError: There is no such oracle.
    """
    folder = find_oracle(source)
    _check_config(source, adapter_config(folder), lora)
    return folder


def _check_config(source: str, found: Mapping[str, object], lora: LoraSettings) -> None:
    others = {name: found.get(key, False) for name, key in _NAMES.items()}  # peft leaves out a scaling that is off
    others = {name: value for name, value in others.items() if value != getattr(lora, name)}
    others |= {name: found[name] for name in ("rank_pattern", "alpha_pattern") if found.get(name)}
    if others:
        told = ", ".join(f"{name} {value}" for name, value in others.items())
        raise InputError(
            f"The recipe's adapter is not that of {source}.",
            f"that one has {told}",
            "write the same under lora: what it learned holds for these values only",
        )


def _check_names(source: str, own: Mapping[str, nn.Parameter], old: Mapping[str, nn.Parameter]) -> None:
    wrong = sorted(own.keys() ^ old.keys())
    if wrong:
        raise InputError(
            f"The recipe's adapter is not that of {source}.",
            f"{len(wrong)} tensors are in one of them only, such as {wrong[0]}",
            "set lora.target_modules to the modules that the oracle adapts",
        )


def _tell(source: str, old: Contract, new: Contract) -> None:
    for name in ("injection", "prompt", "layers"):
        if getattr(old, name) != getattr(new, name):
            log.warning("%s was trained with another %s: %s, now %s", source, name, getattr(old, name),
                        getattr(new, name))  # fmt: skip
