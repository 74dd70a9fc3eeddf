"""Whether an oracle's contract may be published: others have nothing but it to use the oracle rightly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augury.contract import Contract, contract_from_ao_config, read_contract
from augury.contract.formats import ADAPTER_FILE, AO_CONFIG_FILE, ORACLE_FILE
from augury.errors import ContractError, FormatError, InputError, NotFoundError

CARD = "README.md"
SAVE_AGAIN = "load it and write it again with `oracle.save_pretrained(folder)`"

_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")
_MODEL_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # some old models of the hub have no owner


def publishable_contract(folder: Path, config: Mapping[str, Any]) -> Contract:
    """The contract of a folder, read as strictly as it is written, and told the same by all files that tell it.

    Args:
        folder: The oracle's.
        config: Its `adapter_config.json`.

    Raises:
        NotFoundError: There is no `oracle.json`.
        ContractError: No layers, or no base that others can fetch, or not the adapter's.
        FormatError: A file that cannot be used, unknown fields, or an `ao_config.json` that says something else.
    """
    path = folder / ORACLE_FILE
    if not path.is_file():
        raise NotFoundError(f"{folder} has no {ORACLE_FILE}.", "others could not use it rightly", SAVE_AGAIN)
    contract = read_contract(folder, config)
    unknown = set(contract.foreign) - set(json.loads(path.read_bytes()).get("foreign") or {})
    if unknown:
        why = f"it has fields that this augury does not know: {', '.join(sorted(unknown))}"
        raise FormatError(f"{ORACLE_FILE} is not published.", why, "take them out, or install a newer augury")
    base = _stated_base(contract)
    told = config.get("base_model_name_or_path")
    if str(told or "").casefold() != base.casefold():
        why = f"{ADAPTER_FILE} names the base {told!r}, {ORACLE_FILE} has {base!r}"
        raise ContractError("The adapter and its contract have different bases.", why, SAVE_AGAIN)
    if (folder / AO_CONFIG_FILE).is_file():
        _check_sidecar(json.loads((folder / AO_CONFIG_FILE).read_bytes()), contract)
    return contract


def _stated_base(contract: Contract) -> str:
    if contract.base_model is None or contract.layers is None:
        why = "it does not state its base or its layers"
        raise ContractError(f"{ORACLE_FILE} is not published.", why, "state base_model and layers in it")
    if not _MODEL_ID.fullmatch(contract.base_model):
        why = f"its base is {contract.base_model!r}, which is no model of the hub, and others cannot fetch it"
        instead = f"name the base's hub id as base_model in {ORACLE_FILE}, {ADAPTER_FILE} and {CARD}"
        raise ContractError(f"{ORACLE_FILE} is not published.", why, instead)
    return contract.base_model


def _check_sidecar(told: dict[str, Any], contract: Contract) -> None:
    other = contract_from_ao_config(told, contract.n_layers)
    if (other.base_model, other.injection, other.layers) != (contract.base_model, contract.injection, contract.layers):
        why = f"{AO_CONFIG_FILE} has another base, other layers or another injection than {ORACLE_FILE}"
        raise FormatError("The oracle's files contradict each other.", why, SAVE_AGAIN)


def check_no_token(name: str, content: bytes) -> None:
    """Refuse a file that would give a token away.

    Raises:
        InputError: It holds what looks like one.
    """
    if _TOKEN.search(content):
        why = f"{name} holds what looks like a token of the hub"
        raise InputError("The oracle is not published.", why, "take it out, and revoke it if it is one")
