"""Load an oracle onto a model: contract first, then every tensor in place, then proof that it changes something."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augury.contract import Contract, check_runs_on, contract_from_dict, read_contract
from augury.errors import InputError, ModelError
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_config, load_adapter, moves_logits, remove_adapter
from augury.oracle.hub import find_oracle
from augury.oracle.oracle import Oracle
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
) -> Oracle:
    """Load an oracle.

    Args:
        source: `"smollm2"` (shipped), a PEFT folder, or a hub id.
        model: The model that it runs on, as `load_model` returns it.
        contract: Instead of what the oracle carries; needed for an adapter that carries none.
        off_contract: Turn the contract's refusals into loud warnings.
        verify: Check that the adapter changes the model's logits.
        revision: Of the hub's repository.

    Raises:
        NotFoundError: There is no such oracle.
        NetworkError: The hub cannot be reached.
        ContractError: Not the oracle's base, tensors without a place, or no contract.
        FormatError: Weights that are no safetensors, or a sidecar that cannot be used.
        ModelError: The adapter changes nothing.
    """
    _check_model(model)
    folder, name = find_oracle(source, revision), str(source).strip()
    config = adapter_config(folder)
    known = _contract(folder, name, config, contract, model)
    base = without_target(model)
    notes = check_runs_on(known, base.identity, off_contract)
    adapter = new_adapter_name()
    report = load_adapter(model, folder, adapter)
    log.info("%s: %d tensors in %d modules", name, report.tensors, report.modules)
    if verify:
        _check_moves(model, adapter, name)
    return Oracle(model, known, adapter, name, config, off_contract, tuple(notes))


def new_adapter_name() -> str:
    """A name that no other oracle's adapter has in this process."""
    return f"oracle_{next(_numbers)}"


def _check_model(model: Any) -> None:
    if not isinstance(model, LanguageModel):
        why = f"it is a {type(model).__name__}"
        raise InputError("An oracle is loaded onto a model.", why, "pass what augury.load_model(...) returns")


def _contract(
    folder: Path, name: str, config: dict[str, Any], given: Contract | Mapping[str, Any] | None, model: LanguageModel
) -> Contract:
    if isinstance(given, Contract):
        return given
    if given is not None:
        return contract_from_dict({"schema_version": 1, **given})
    repository = None if Path(name).expanduser().is_dir() or "/" not in name else name
    return read_contract(folder, config, repository=repository, n_layers=model.n_layers)


def _check_moves(model: LanguageModel, adapter: str, name: str) -> None:
    try:
        moves = moves_logits(model, (adapter,), ())
    except BaseException:
        remove_adapter(model, adapter)
        raise
    if not moves:
        remove_adapter(model, adapter)
        raise ModelError(
            f"The oracle {name} changes nothing.",
            "the logits with and without its adapter are equal, so it would answer as the plain base",
            "check that it was trained, and saved for this model",
        )
