"""Adapters on a model: loaded whole or refused, switched exactly, always restored.

peft only warns where a file's tensors land nowhere, and its `disable_adapter()` unfreezes frozen adapters on exit. So
adapters are counted in both directions here, and switched by writing the two flags that its layers read.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from augury.errors import AuguryError, ContractError, FormatError, ModelError, NotFoundError
from augury.files import replacing, write_text
from augury.lm.adapter_kinds import lora_config as lora_config  # others import it and the next two from here
from augury.lm.adapter_kinds import peft_config, plain_start
from augury.lm.finite import finite
from augury.lm.locks import alone
from augury.lm.tuners import (
    Before,
    adapter_names,
    adapters_on,
    forget,
    forget_config,
    names_on,
    replaces,
    tuner_layers,
)
from augury.lm.tuners import active_adapters as active_adapters
from augury.lm.tuners import adapter_dropouts as adapter_dropouts

if TYPE_CHECKING:
    from augury.lm.load import LanguageModel

log = logging.getLogger(__name__)

_PREFIX = re.compile(r"^(base_model\.model\.)+")
_KNOWN_RENAMINGS = ("language_model.", "model.")


@dataclass(frozen=True)
class AdapterReport:
    """What loading an adapter did: its file's tensors and the modules they filled."""

    name: str
    tensors: int
    modules: int
    renamed: str | None


def plain_model(model: nn.Module) -> nn.Module:
    """The Hugging Face model inside a PEFT wrapper, or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model  # pyright: ignore[reportReturnType]


def adapter_config(folder: Path) -> dict[str, Any]:
    """The `adapter_config.json` of a PEFT folder.

    Raises:
        NotFoundError: There is none.
        FormatError: It is not JSON, or the weights are a pickle.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise NotFoundError(f"{folder} is no adapter.", "it has no adapter_config.json", "name a PEFT adapter's folder")
    if not (folder / "adapter_model.safetensors").is_file():
        pickled = (folder / "adapter_model.bin").exists()
        raise FormatError(
            f"{folder} has no adapter_model.safetensors.",
            "its weights are a pickle, which can run code when read" if pickled else "the weights are missing",
            "save it again with a current peft, which writes safetensors",
        )
    restore = "restore the file from where it came"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} cannot be read.", str(error), restore) from error
    if not isinstance(found, dict):
        raise FormatError(f"{path} cannot be read.", f"it holds a {type(found).__name__}, not an object", restore)
    return found


def load_adapter(lm: LanguageModel, folder: Path, name: str) -> AdapterReport:
    """Add the adapter in `folder` to the model under `name`, switched off and frozen.

    Every tensor of the file must land in a module and every adapted module must be filled; otherwise the model is left
    as it was.

    Raises:
        ContractError: The tensors do not fit this model, or the adapter would change the model for good.
        FormatError: A pickle, or a broken file.
    """
    config = plain_start(adapter_config(folder))
    tensors = read_tensors(folder / "adapter_model.safetensors")
    with alone(lm.model):
        add_adapter(lm, config, name)
        try:
            renamed = _fill(lm, tensors, name)
        except BaseException:
            remove_adapter(lm, name)
            raise
        modules = sum(1 for _, layer in tuner_layers(lm.model) if name in adapter_names(layer))
    return AdapterReport(name, len(tensors), modules, renamed)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of an adapter's file.

    Raises:
        FormatError: It is no safetensors file, or holds values that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    restore = "restore the file from where it came"
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise FormatError(f"{path.name} cannot be read.", str(error), restore) from error
    broken = [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor.float()).all())]
    if broken:
        why = f"{len(broken)} of its {len(tensors)} tensors (such as {broken[0]}) hold values that are not finite"
        raise FormatError(f"{path.name} cannot be used.", why, restore)
    return tensors


def add_adapter(lm: LanguageModel, config: dict[str, Any], name: str) -> None:
    """Put a fresh adapter of this PEFT `config` on the model, off and frozen, or leave the model as it was.

    Raises:
        ContractError: It does not fit this model, or would change it for good.
        FormatError: The configuration is not valid.
    """
    with alone(lm.model):
        _add(lm, config, name)


def _add(lm: LanguageModel, config: dict[str, Any], name: str) -> None:
    from peft import inject_adapter_in_model

    if name in names_on(lm.model):
        raise ContractError(f"An adapter '{name}' is on the model already.", "names are unique", "unload it first")
    chosen, before = peft_config(config), Before.of(lm.model)
    try:
        inject_adapter_in_model(chosen, lm.model, adapter_name=name)
        _check_replaced(lm)
    except BaseException as error:  # peft wraps module after module and stops in between
        before.restore_modules(lm.model, name)
        if isinstance(error, AuguryError) or not isinstance(error, Exception):
            raise
        why = f"{type(error).__name__}: {str(error)[:300]}"
        raise ContractError("The adapter does not fit this model.", why, "use the base it was made for") from error
    finally:
        before.restore_flags(lm.model)


def _check_replaced(lm: LanguageModel) -> None:
    """Refuse an adapter that replaces modules in which hooks or other adapters stand: these would see nothing."""
    blocks = {id(block) for block in lm.blocks}
    for path, layer in tuner_layers(lm.model):
        inside = {id(module) for module in layer.modules()} - {id(layer)} if replaces(layer) else set()
        if inside & blocks or inside & {id(other) for _, other in tuner_layers(layer)}:
            raise ContractError(
                "The adapter does not fit this model.",
                f"{path} is replaced whole (modules_to_save), and in it stand decoder blocks or other adapters, which "
                "would then be passed by",
                "unload the other adapters first, or merge the one that replaces it into its base and load that",
            )


def _fill(lm: LanguageModel, tensors: dict[str, Tensor], name: str) -> str | None:
    slots = adapter_parameters(lm.model, name)
    by_key, renamed = _match(tensors, slots)
    for key, tensor in by_key.items():
        parameter = slots[key]
        if parameter.shape != tensor.shape:
            raise ContractError(
                "The adapter does not fit this model.",
                f"{key} is {list(tensor.shape)} in the file and {list(parameter.shape)} in the model",
                "load the base model that the adapter was trained on",
            )
        with torch.no_grad():
            parameter.copy_(tensor)
    return renamed


def _match(tensors: dict[str, Tensor], slots: dict[str, nn.Parameter]) -> tuple[dict[str, Tensor], str | None]:
    """The file's tensors under the model's names, after the known renamings only."""
    plain = {_PREFIX.sub("", key): tensor for key, tensor in tensors.items()}
    for renaming in (None, *_KNOWN_RENAMINGS):
        for renamed in _renamings(plain, renaming):
            if renamed.keys() == slots.keys():
                _check_one_each(tensors, renamed)
                if renaming:
                    log.warning("adapter keys were mapped over the segment '%s'", renaming)
                return renamed, renaming
    extra, missing = sorted(plain.keys() - slots.keys()), sorted(slots.keys() - plain.keys())
    raise ContractError(
        "The adapter does not fit this model.",
        f"{len(extra)} of {len(plain)} tensors in the file have no place in the model (such as {extra[:1]}) and "
        f"{len(missing)} of {len(slots)} places stay empty (such as {missing[:1]})",
        "load the base model that the adapter was trained on; a half-loaded adapter would answer as the base",
    )


def _check_one_each(tensors: dict[str, Tensor], renamed: dict[str, Tensor]) -> None:
    if len(renamed) < len(tensors):
        raise ContractError(
            "The adapter does not fit this model.",
            f"the file's {len(tensors)} tensors have {len(renamed)} places: under some names there are two of them",
            "save the adapter again; its file was put together from two, and nobody knows which tensor is meant",
        )


def _renamings(plain: dict[str, Tensor], segment: str | None) -> Iterator[dict[str, Tensor]]:
    if segment is None:
        yield plain
        return
    yield {key.replace(segment, "", 1): tensor for key, tensor in plain.items()}
    yield {segment + key: tensor for key, tensor in plain.items()}
    yield {re.sub(r"^model\.", f"model.{segment}", key): tensor for key, tensor in plain.items()}


def adapter_parameters(model: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """The adapter's parameters, under the names that a PEFT file gives them."""
    places = {
        f"{path}.{attribute}.{name}": path if replaces(layer) else f"{path}.{attribute}"
        for path, layer in tuner_layers(model)
        for attribute in layer.adapter_layer_names
        if name in getattr(layer, attribute, ())
    }
    found = {}
    for key, parameter in model.named_parameters():
        place = next((head for head in _heads(key) if head in places), None)
        if place is not None:
            found[_file_key(places[place] + key.removeprefix(place))] = parameter
    return found


def _file_key(key: str) -> str:
    """DoRA's magnitude became a module in peft while its files stayed as they were."""
    return key.removesuffix(".weight") if key.endswith(".lora_magnitude_vector.weight") else key


def _heads(key: str) -> Iterator[str]:
    """`a.b.c`, `a.b`, `a`."""
    while key:
        yield key
        key = key.rpartition(".")[0]


def remove_adapter(lm: LanguageModel, name: str) -> None:
    """Take an adapter off; a module that holds no other becomes the plain module it was."""
    with alone(lm.model):
        for path, layer in reversed(tuner_layers(lm.model)):  # fused experts nest their wrappers: the inner one first
            if name in adapter_names(layer):
                _take_off(lm.model, path, layer, name)
        forget_config(lm.model, name)


def _take_off(model: nn.Module, path: str, layer: Any, name: str) -> None:
    forget(layer, name)
    if not adapter_names(layer):
        parent, _, child = path.rpartition(".")
        plain = layer.original_module if replaces(layer) else layer.get_base_layer()
        setattr(model.get_submodule(parent), child, plain)


def load_target_adapter(lm: LanguageModel, folder: Path, name: str | None = None) -> LanguageModel:
    """The same model as a target with an adapter of its own, which stays on while activations are captured."""
    with alone(lm.model):
        name = name or _free_name(lm, "target")
        load_adapter(lm, folder, name)
    check_moves(lm, name, f"The adapter {folder}")
    on = (*lm.target_adapters, name)
    return replace(lm, target_adapters=on, name=f"{lm.name}+{folder.name}", plain_name=lm.base_name)


def _free_name(lm: LanguageModel, wanted: str) -> str:
    """`wanted`, or with a number where another target on the same base has it."""
    taken = names_on(lm.model)
    return next(name for name in (wanted, *(f"{wanted}_{i}" for i in range(2, 2 + len(taken)))) if name not in taken)


def check_moves(lm: LanguageModel, name: str, called: str) -> None:
    """Refuse a loaded adapter under which the model answers as it does without it; what is refused is taken off.

    Raises:
        ModelError: The logits are equal.
        ContractError: It cannot be on together with the model's own adapters.
    """
    try:
        if not moves_logits(lm, (*lm.target_adapters, name), lm.target_adapters):
            raise ModelError(
                f"{called} changes nothing.",
                "the logits with and without it are equal, so the model would answer as if it were not there",
                "check that it was trained, and saved for this model",
            )
    except BaseException:
        remove_adapter(lm, name)
        raise


def moves_logits(lm: LanguageModel, on: Sequence[str], off: Sequence[str]) -> bool:
    """Whether the logits of a short input differ between two sets of adapters.

    Raises:
        ModelError: The logits are not finite.
    """
    ids = torch.tensor([[(11 * i + 5) % min(lm.vocab_size, 997) for i in range(8)]], device=lm.device)
    results = []
    for names in (on, off):
        with torch.no_grad(), adapters_on(lm.model, names):
            results.append(finite(lm.logits(keep=1, input_ids=ids)))
    return not torch.equal(results[0], results[1])


def save_adapter(lm: LanguageModel, name: str, config: dict[str, Any], folder: Path, dtype: torch.dtype) -> None:
    """Write the adapter as a plain PEFT folder that `PeftModel.from_pretrained` loads."""
    from safetensors.torch import save_file

    tensors = {
        f"base_model.model.{key}": parameter.detach().to("cpu", dtype).contiguous()
        for key, parameter in adapter_parameters(lm.model, name).items()
    }
    with replacing(folder / "adapter_model.safetensors") as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    write_text(folder / "adapter_config.json", json.dumps(config, indent=1, sort_keys=True) + "\n")
