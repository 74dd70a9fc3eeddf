"""The contract of an oracle: what it is, what it allows, how it is read and written. No torch here."""

from __future__ import annotations

from augury.contract.ao_config import ao_config_from_contract, contract_from_ao_config
from augury.contract.checks import ModelIdentity, check_reads, check_runs_on
from augury.contract.contract import (
    MAX_COEFFICIENT,
    SCHEMA_VERSION,
    Contract,
    Injection,
    Positions,
    PromptFormat,
    TrainedOn,
    percent_to_layer,
)
from augury.contract.formats import contract_from_dict, read_contract, repository_of, write_contract
from augury.contract.presets import preset

__all__ = [
    "MAX_COEFFICIENT",
    "SCHEMA_VERSION",
    "Contract",
    "Injection",
    "ModelIdentity",
    "Positions",
    "PromptFormat",
    "TrainedOn",
    "ao_config_from_contract",
    "check_reads",
    "check_runs_on",
    "contract_from_ao_config",
    "contract_from_dict",
    "percent_to_layer",
    "preset",
    "read_contract",
    "repository_of",
    "write_contract",
]
