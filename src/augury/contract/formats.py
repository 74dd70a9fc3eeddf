"""Reading an oracle folder's contract, whoever wrote it, and writing ours."""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from augury.contract.ao_config import ao_config_from_contract, contract_from_ao_config
from augury.contract.contract import SCHEMA_VERSION, Contract, Injection, Positions, PromptFormat, TrainedOn
from augury.contract.presets import preset, rescaled
from augury.errors import ContractError, FormatError, NotFoundError, StorageError

logger = logging.getLogger(__name__)

ORACLE_FILE = "oracle.json"
AO_CONFIG_FILE = "ao_config.json"
ADAPTER_FILE = "adapter_config.json"

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_PARTS: dict[str, type[BaseModel]] = {
    "injection": Injection,
    "prompt": PromptFormat,
    "positions": Positions,
    "trained_on": TrainedOn,
}


def read_contract(
    folder: Path,
    adapter_config: Mapping[str, Any] | None = None,
    *,
    repository: str | None = None,
    n_layers: int | None = None,
) -> Contract:
    """The contract of the oracle in a folder: `oracle.json`, else `ao_config.json`, else a preset by name.

    Args:
        folder: The adapter's folder.
        adapter_config: PEFT's `adapter_config.json`; read from the folder where it is not given.
        repository: The repository's `owner/name`; taken from the folder's path where it is not given.
        n_layers: Depth of the base, where it is known; for sidecars that state layers as percentages alone.

    Raises:
        NotFoundError: There is no such folder.
        FormatError: A sidecar is there and cannot be used.
        ContractError: There is none, and the repository is not known.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotFoundError(f"there is no oracle at {folder}", "the folder does not exist", "check the path")
    repository = repository or repository_of(folder)
    if (folder / ORACLE_FILE).is_file():
        return contract_from_dict(_read_json(folder / ORACLE_FILE))
    adapter = adapter_config if adapter_config is not None else _adapter_config(folder)
    base = adapter.get("base_model_name_or_path")
    if (folder / AO_CONFIG_FILE).is_file():
        contract = contract_from_ao_config(_read_json(folder / AO_CONFIG_FILE), n_layers)
        return _amend(contract, base, repository)
    return _from_preset(repository, base)


def contract_from_dict(data: Mapping[str, Any]) -> Contract:
    """The contract in the content of an `oracle.json`. Unknown fields are kept in `foreign`, with a warning.

    Raises:
        FormatError: A higher schema version, or a field that cannot be used.
    """
    _check_version(data)
    known, unknown = _split(Contract, data, "")
    for name, part in _PARTS.items():
        if isinstance(known.get(name), Mapping):
            known[name], more = _split(part, known[name], f"{name}.")
            unknown |= more
    kept = known.get("foreign", {})
    if unknown and isinstance(kept, Mapping):
        warnings.warn(f"{ORACLE_FILE} has unknown fields, kept: {', '.join(sorted(unknown))}", stacklevel=2)
        known["foreign"] = {**kept, **unknown}
    try:
        return Contract.model_validate(known)
    except ValidationError as error:
        raise FormatError(f"{ORACLE_FILE} cannot be used", _reasons(error), "correct these fields") from error


def write_contract(contract: Contract, folder: Path, lora: Mapping[str, Any]) -> None:
    """Write `oracle.json` and, where it can say the same, `ao_config.json`. Each file is whole or not there.

    Args:
        contract: The contract; it must name the base and the trained layers.
        folder: The adapter's folder; made where it does not exist.
        lora: The fields of the LoRA, by PEFT's names (an adapter's config as a dictionary will do).

    Raises:
        ContractError: The base or the layers are missing.
        FormatError: A value that JSON cannot hold, or that a contract does not allow.
        StorageError: The folder cannot be written.
    """
    stated = {"base_model": contract.base_model, "layers": contract.layers}
    missing = [name for name, value in stated.items() if value is None]
    if missing:
        why = f"it does not state {', '.join(missing)}, and nobody could use the oracle"
        raise ContractError("this contract cannot be written", why, "state these fields")
    folder = Path(folder)
    texts = {ORACLE_FILE: _dump(_revalidated(contract).model_dump(), ORACLE_FILE)}
    try:
        texts[AO_CONFIG_FILE] = _dump(ao_config_from_contract(contract, lora), AO_CONFIG_FILE)
    except ContractError as error:
        logger.warning("%s is not written: %s", AO_CONFIG_FILE, error.why)
    _write_files(folder, texts)


def repository_of(folder: Path) -> str:
    """The repository's name in a path: `owner/name` in the hub's cache, else the last folder."""
    for part in reversed(Path(folder).absolute().parts):
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    return Path(folder).absolute().name


def _check_version(data: Mapping[str, Any]) -> None:
    version = data.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        why = f"its schema_version is {version}, and this augury reads up to {SCHEMA_VERSION}"
        raise FormatError(f"{ORACLE_FILE} is newer than this augury", why, "install a newer augury")
    if type(version) is not int or version < 1:
        why = f"its schema_version is {version!r}"
        raise FormatError(f"{ORACLE_FILE} cannot be used", why, f"state schema_version {SCHEMA_VERSION}")


def _split(model: type[BaseModel], data: Mapping[str, Any], path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that the model has, and the others by their path."""
    known = {name: value for name, value in data.items() if name in model.model_fields}
    unknown = {f"{path}{name}": value for name, value in data.items() if name not in model.model_fields}
    return known, unknown


def _reasons(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        lines.append(f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}")
    return "; ".join(lines)


def _revalidated(contract: Contract) -> Contract:
    """The contract itself, unless a copy with unchecked changes has broken it."""
    try:
        return Contract.model_validate(contract.model_dump(warnings=False))
    except ValidationError as error:
        raise FormatError("this contract cannot be written", _reasons(error), "correct these fields") from error


def _amend(contract: Contract, base: str | None, repository: str) -> Contract:
    """What the sidecar cannot say and other places do."""
    changes: dict[str, Any] = {}
    if contract.base_model is None and base:
        changes["base_model"] = base
    scale = rescaled(repository)
    if scale is not None and contract.injection.rescale_to is None:
        injection = contract.injection.model_copy(update={"rescale_to": scale, "coefficient": 1.0})
        changes["injection"] = injection
        logger.warning("%s: the sum is rescaled to %g of the slot's norm, as it was trained", repository, scale)
    return contract.model_copy(update=changes)


def _from_preset(repository: str, base: str | None) -> Contract:
    contract = preset(repository)
    if contract is None:
        why = f"there is neither {ORACLE_FILE} nor {AO_CONFIG_FILE}, and nothing is known of {repository!r}"
        instead = (
            "state the contract: pass contract=Contract(...) or put an oracle.json beside the adapter; "
            "`augury doctor MODEL --oracle ORACLE` tries the usual ones and offers the best"
        )
        raise ContractError("this adapter has no contract", why, instead)
    # A path says nothing about which model lies there.
    if base and _HUB_ID.fullmatch(base) and base.casefold() != (contract.base_model or "").casefold():
        why = f"the adapter names the base {base}, the preset of {repository} has {contract.base_model}"
        raise ContractError("this adapter is not the one its name says", why, f"put an {ORACLE_FILE} beside it")
    return contract


def _adapter_config(folder: Path) -> Mapping[str, Any]:
    path = folder / ADAPTER_FILE
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path} cannot be read", str(error), "check the file's permissions") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON", str(error), "fetch or write the file again") from error
    if not isinstance(data, dict):
        why = f"it holds a {type(data).__name__}, not an object"
        raise FormatError(f"{path} cannot be used", why, "fetch or write the file again")
    return data


def _dump(data: Mapping[str, Any], name: str) -> bytes:
    """Strict JSON: no NaN, no types that JSON lacks."""
    try:
        return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        instead = "keep to finite numbers, text, lists and objects"
        raise FormatError(f"{name} cannot be written", str(error), instead) from error


def _write_files(folder: Path, texts: Mapping[str, bytes]) -> None:
    """Write all beside their places first, then move them in, so that a full disk leaves the old ones whole."""
    temporary = {name: folder / f".{name}.{os.getpid()}.tmp" for name in texts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            _write_synced(temporary[name], text)
        for name, path in temporary.items():
            os.replace(path, folder / name)
        if AO_CONFIG_FILE not in texts:
            # One of an earlier contract would tell others something else than oracle.json.
            (folder / AO_CONFIG_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written", str(error), "free space or choose another folder") from error
    finally:
        for path in temporary.values():
            _remove(path)


def _write_synced(path: Path, text: bytes) -> None:
    with path.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        logger.debug("could not remove %s", path)
