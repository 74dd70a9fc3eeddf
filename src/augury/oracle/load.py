"""Load an oracle onto a model: contract first, then every tensor in place, then proof that it changes something."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augury.contract import Contract, check_runs_on, contract_from_dict, read_contract
from augury.errors import InputError
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_config, check_moves, load_adapter, names_on
from augury.lm.load import needs_model
from augury.lm.locks import alone
from augury.oracle.hub import find_oracle, repository_name
from augury.oracle.oracle import Oracle
from augury.oracle.reader import FOLDER, load_reader
from augury.oracle.reading import without_target

log = logging.getLogger(__name__)

_numbers = itertools.count(1)


def load_oracle(
    source: str | Path,
    model: LanguageModel,
    *,
    contract: Contract | Mapping[str, Any] | None = None,
    off_contract: bool = False,
    verify: bool = True,
    revision: str | None = None,
    reader: str | Path | None = None,
) -> Oracle:
    """Load an oracle.

    Args:
        source: `"smollm2"` (shipped), a PEFT folder, or a hub id.
        model: The model that it runs on, as `load_model` returns it.
        contract: Instead of what the oracle carries; needed for an adapter that carries none.
        off_contract: Turn the contract's refusals into loud warnings.
        verify: Check that the adapter changes the model's logits.
        revision: Of the hub's repository; nothing else has one.
        reader: The folder of a trained reader, which then answers the text controls; None: the one in the oracle's
            folder, where there is one.

    Raises:
        InputError: A revision of a folder or of the shipped oracle.
        NotFoundError: There is no such oracle.
        NetworkError: The hub cannot be reached.
        ContractError: Not the oracle's base, tensors without a place, or no contract.
        FormatError: Weights that are no safetensors, or a sidecar that cannot be used.
        ModelError: The adapter changes nothing.
    """
    needs_model(model)
    folder, name = find_oracle(source, revision), str(source).strip()
    config = adapter_config(folder)
    known = _contract(folder, name, config, contract, model)
    base = without_target(model)
    with alone(model.model):
        notes = check_runs_on(known, base.identity, off_contract)
        adapter = new_adapter_name(base)
        report = load_adapter(model, folder, adapter)
        log.info("%s: %d tensors in %d modules", name, report.tensors, report.modules)
        if verify:
            check_moves(base, adapter, f"The oracle {name}")
        beside = folder / FOLDER
        found = reader if reader is not None else beside if beside.is_dir() else None
        reads = None if found is None else load_reader(found, base, off_contract)
    return Oracle(model, known, adapter, name, config, off_contract, tuple(notes), reads)


def new_adapter_name(model: LanguageModel) -> str:
    """A name that no other oracle's adapter has in this process, nor any adapter on the model."""
    taken = names_on(model.model)
    return next(name for number in _numbers if (name := f"oracle_{number}") not in taken)


def _contract(
    folder: Path, name: str, config: dict[str, Any], given: Contract | Mapping[str, Any] | None, model: LanguageModel
) -> Contract:
    if isinstance(given, Contract):
        return given
    if isinstance(given, Mapping):
        return contract_from_dict({"schema_version": 1, **given})
    if given is not None:
        why = f"contract= is a {type(given).__name__}"
        raise InputError("This is no contract.", why, "pass a Contract, or a dictionary of its fields")
    return read_contract(folder, config, repository=repository_name(name), n_layers=model.n_layers)
