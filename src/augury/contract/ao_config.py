"""`ao_config.json`, the sidecar of the published activation oracles (schema 1), to a contract and back.

Fields that decide how the oracle must be used are never guessed; all others are kept in `Contract.foreign`.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from augury.contract.contract import (
    TEMPLATES,
    Contract,
    Injection,
    Layout,
    PromptFormat,
    percent_to_layer,
)
from augury.errors import ContractError, FormatError, InputError

logger = logging.getLogger(__name__)

AO_SCHEMA_VERSION = 1
FIRST_DAY_OF_ADDITION = "2025-10-26"

_NEEDED = ("hook_onto_layer", "special_token", "prefix_template", "steering_coefficient")
_READ = (*_NEEDED, "schema_version", "model_name", "act_layer_combinations", "generation_kwargs", "created_at_utc")
_TAKEN = frozenset((*_READ, "git_commit", "norm_scale"))
# A field that is not understood and has such a name may change what the oracle must be given.
_SUSPICIOUS = re.compile(r"inject|steer|hook|norm_scale|norm_match|operation|coefficient|placeholder", re.IGNORECASE)
# The names of PEFT and of ao_config.json for the same things.
_LORA = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "use_rslora": "use_rslora",
}


def contract_from_ao_config(config: Mapping[str, Any], n_layers: int | None = None) -> Contract:
    """Read the content of an `ao_config.json`.

    Args:
        config: The parsed file.
        n_layers: Depth of the base, where it is known; needed only for files that state layers as percentages alone.

    Returns:
        The contract. Layers are None where they are stated as percentages and the depth is not known.

    Raises:
        FormatError: A higher schema version, a missing or unusable field, or an unknown prompt template.
    """
    _check_version(config)
    missing = [name for name in _NEEDED if config.get(name) is None]
    if missing:
        why = f"it does not state {', '.join(missing)}, and a guess would be silently wrong"
        raise FormatError("ao_config.json cannot be used", why, "state the contract in an oracle.json")
    foreign = {name: value for name, value in config.items() if name not in _TAKEN}
    _report(foreign)
    try:
        return _build(config, n_layers, foreign)
    except (ValidationError, TypeError, InputError) as error:
        raise FormatError("ao_config.json cannot be used", str(error), "correct the field") from error


def _check_version(config: Mapping[str, Any]) -> None:
    version = config.get("schema_version", AO_SCHEMA_VERSION)
    if type(version) is not int or version != AO_SCHEMA_VERSION:
        why = f"its schema_version is {version!r}, and {AO_SCHEMA_VERSION} is known here"
        raise FormatError("ao_config.json cannot be read", why, "install a newer augury, or write an oracle.json")


def _report(foreign: Mapping[str, Any]) -> None:
    suspicious = sorted(name for name in foreign if _SUSPICIOUS.search(name))
    if suspicious:
        listed = ", ".join(suspicious)
        warnings.warn(f"ao_config.json has fields that are kept but not understood: {listed}", stacklevel=3)
    logger.info("ao_config.json: %d fields kept in `foreign`", len(foreign))


def _build(config: Mapping[str, Any], n_layers: int | None, foreign: dict[str, Any]) -> Contract:
    prompt = {"layout": layout_of(config["prefix_template"]), "slot_token": config["special_token"]}
    return Contract.model_validate(
        {
            "base_model": config.get("model_name") or None,
            "n_layers": n_layers,
            "layers": _layers(config, n_layers),
            "injection": _injection(config),
            "prompt": PromptFormat.model_validate(prompt),
            "generation": config.get("generation_kwargs") or {},
            "git_commit": config.get("git_commit") or None,
            "created": config.get("created_at_utc") or None,
            "foreign": foreign,
        }
    )


def _injection(config: Mapping[str, Any]) -> dict[str, Any]:
    created = str(config.get("created_at_utc") or "")
    replaces = bool(created) and created[:10] < FIRST_DAY_OF_ADDITION
    if replaces:
        text = f"this oracle was made on {created[:10]}, before {FIRST_DAY_OF_ADDITION}: taken to replace, not to add"
        warnings.warn(f"{text}; `augury doctor MODEL --oracle ORACLE` compares both", stacklevel=4)
    return {
        "block": config["hook_onto_layer"],
        "operation": "replace" if replaces else "add",
        "coefficient": config["steering_coefficient"],
        "rescale_to": config.get("norm_scale"),
    }


def _layers(config: Mapping[str, Any], n_layers: int | None) -> list[list[int]] | None:
    absolute, percents = config.get("act_layer_combinations"), config.get("layer_combinations")
    if absolute:
        return absolute
    if not percents or n_layers is None:
        return None
    return [[percent_to_layer(n_layers, percent) for percent in combination] for combination in percents]


def layout_of(template: str) -> Layout:
    """The layout that a template string means, with real or written-out line ends.

    Raises:
        FormatError: The template is neither of the known ones.
    """
    text = str(template).replace("\\n", "\n")
    for layout, known in TEMPLATES.items():
        if text == known:
            return layout
    known = " and ".join(repr(known) for known in TEMPLATES.values())
    instead = "check the prompts that the oracle was trained on, and state the contract in an oracle.json"
    raise FormatError(f"the prompt template {template!r} is not known", f"known are {known}", instead)


def ao_config_from_contract(contract: Contract, lora: Mapping[str, Any]) -> dict[str, Any]:
    """The same oracle for tools that read `ao_config.json`. Only fields that its readers accept.

    Args:
        contract: The contract.
        lora: The fields of the LoRA, by PEFT's names (an adapter's config as a dictionary will do) or this file's.

    Raises:
        ContractError: The file cannot say what the contract does, and its readers would inject something else.
    """
    _check_expressible(contract)
    layers = contract.layers or ()
    return {
        "schema_version": AO_SCHEMA_VERSION,
        "model_name": contract.base_model,
        "hook_onto_layer": contract.injection.block,
        "special_token": contract.prompt.slot_token,
        # The line ends are written out in real files, and their readers undo that.
        "prefix_template": contract.prompt.template.replace("\n", "\\n"),
        "steering_coefficient": contract.injection.coefficient,
        "layer_combinations": _percents(contract),
        "act_layer_combinations": [list(combination) for combination in layers],
        "generation_kwargs": contract.generation,
        "created_at_utc": contract.created or "",
        "git_commit": contract.git_commit or "",
        "use_lora": True,
        **_lora_fields(lora),
    }


def _check_expressible(contract: Contract) -> None:
    injection = contract.injection
    told = Injection(block=injection.block or 0, coefficient=injection.coefficient)
    if injection == told and contract.base_model and contract.layers:
        return
    why = f"it can only say 'add, matched in norm, after a block', with base and layers; this is {injection!r}"
    raise ContractError("this contract cannot be written as ao_config.json", why, "share oracle.json alone")


def _percents(contract: Contract) -> list[list[float]]:
    """The layers as percentages that lead back to the same layers; none where the depth is not known."""
    if contract.n_layers is None:
        return []
    layers = [list(known) for known in contract.layers or ()]
    kept: Any = contract.foreign.get("layer_combinations")
    if _layers_of(kept, contract.n_layers) == layers:
        return kept
    return [[_percent(contract.n_layers, layer) for layer in known] for known in layers]


def _layers_of(percents: Any, n_layers: int) -> list[list[int]] | None:
    """The layers that these percentages name; None where they are none."""
    try:
        return [[percent_to_layer(n_layers, percent) for percent in combination] for combination in percents]
    except (TypeError, ValueError):
        return None


def _percent(n_layers: int, layer: int) -> float:
    """The smallest whole percentage of this layer; models of over 100 blocks need halves."""
    for percent in range(100):
        if percent_to_layer(n_layers, percent) == layer:
            return percent
    return 100 * (layer + 0.5) / n_layers


def _lora_fields(lora: Mapping[str, Any]) -> dict[str, Any]:
    found = {theirs: lora.get(theirs, lora.get(peft)) for theirs, peft in _LORA.items()}
    if isinstance(found["lora_target_modules"], set | frozenset | tuple):
        found["lora_target_modules"] = sorted(found["lora_target_modules"])
    return {name: value for name, value in found.items() if value is not None}
