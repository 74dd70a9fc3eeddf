"""Adapters on a model: loaded whole or refused, switched exactly, always restored.

peft only warns where a file's tensors land nowhere, and its `disable_adapter()` unfreezes frozen adapters on exit. So
adapters are counted in both directions here, and switched by writing the two flags that its layers read.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from augury.errors import ContractError, FormatError, ModelError, NotFoundError

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


def tuner_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """The modules of `model` that hold adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    return [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]


def plain_model(model: nn.Module) -> nn.Module:
    """The Hugging Face model inside a PEFT wrapper, or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model  # pyright: ignore[reportReturnType]


def active_adapters(model: nn.Module) -> tuple[str, ...]:
    """The adapters that are on now."""
    found = [name for _, layer in tuner_layers(model) if not layer._disable_adapters for name in _names(layer)]
    return tuple(dict.fromkeys(found))


def _names(layer: Any) -> list[str]:
    active = layer._active_adapter
    return [active] if isinstance(active, str) else list(active)


@contextmanager
def adapters_on(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Run with exactly the adapters `names` on (none: all off), in eval mode; restore everything on any exit.

    Restored are the active adapters, `requires_grad` (which is never touched) and every module's train mode.
    """
    layers = [layer for _, layer in tuner_layers(model)]
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    training = [module for module in model.modules() if module.training]
    try:
        for layer in layers:
            layer._active_adapter, layer._disable_adapters = list(names), not names
        for module in training:
            module.training = False
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled
        for module in training:
            module.training = True


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
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path} cannot be read.", str(error), "restore the file from where it came") from error


def load_adapter(lm: LanguageModel, folder: Path, name: str) -> AdapterReport:
    """Add the adapter in `folder` to the model under `name`, switched off and frozen.

    Every tensor of the file must land in a module and every adapted module must be filled; otherwise the model is left
    as it was.

    Raises:
        ContractError: The tensors do not fit this model.
        FormatError: A pickle, or a broken file.
    """
    config = adapter_config(folder)
    tensors = _read_tensors(folder / "adapter_model.safetensors")
    add_adapter(lm, {k: v for k, v in config.items() if k != "base_model_name_or_path"}, name)
    try:
        renamed = _fill(lm, tensors, name)
    except BaseException:
        remove_adapter(lm, name)
        raise
    modules = sum(1 for _, layer in tuner_layers(lm.model) if name in _adapter_names(layer))
    return AdapterReport(name, len(tensors), modules, renamed)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise FormatError(f"{path.name} cannot be read.", str(error), "restore the file from where it came") from error


def add_adapter(lm: LanguageModel, config: dict[str, Any], name: str) -> None:
    """Put a fresh adapter of this PEFT `config` on the model, off and frozen."""
    from peft import PeftConfig, inject_adapter_in_model
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if name in {n for _, layer in tuner_layers(lm.model) for n in _adapter_names(layer)}:
        raise ContractError(f"An adapter '{name}' is on the model already.", "names are unique", "unload it first")
    kind: type[PeftConfig] = PEFT_TYPE_TO_CONFIG_MAPPING[config.get("peft_type", "LORA")]
    known = {key: value for key, value in config.items() if key in kind.__dataclass_fields__ and key != "peft_type"}
    before = [(layer, layer._active_adapter, layer._disable_adapters) for _, layer in tuner_layers(lm.model)]
    frozen = {id(p): p.requires_grad for p in lm.model.parameters()}
    mode = lm.model.training
    try:
        inject_adapter_in_model(kind(**{**known, "inference_mode": False}), lm.model, adapter_name=name)
    except ValueError as error:
        raise ContractError(
            "The adapter does not fit this model.", str(error)[:300], "use the base it was made for"
        ) from error
    finally:
        for parameter in lm.model.parameters():
            parameter.requires_grad_(frozen.get(id(parameter), False))
        known_layers = {id(layer) for layer, _, _ in before}
        for _, layer in tuner_layers(lm.model):
            if id(layer) not in known_layers:
                layer._active_adapter, layer._disable_adapters = [], True
        for layer, active, disabled in before:
            layer._active_adapter, layer._disable_adapters = active, disabled
        lm.model.train(mode)


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
        f"{path}.{attribute}.{name}": f"{path}.{attribute}"
        for path, layer in tuner_layers(model)
        for attribute in layer.adapter_layer_names
        if name in getattr(layer, attribute, ())
    }
    found = {}
    for key, parameter in model.named_parameters():
        place = next((head for head in _heads(key) if head in places), None)
        if place is not None:
            found[places[place] + key.removeprefix(place)] = parameter
    return found


def _heads(key: str) -> Iterator[str]:
    """`a.b.c`, `a.b`, `a`."""
    while key:
        yield key
        key = key.rpartition(".")[0]


def _adapter_names(layer: Any) -> set[str]:
    return {name for attribute in layer.adapter_layer_names for name in getattr(layer, attribute, {})}


def remove_adapter(lm: LanguageModel, name: str) -> None:
    """Take an adapter off; a module that holds no other becomes the plain module it was."""
    for path, layer in reversed(tuner_layers(lm.model)):  # fused experts nest their wrappers: the inner one first
        if name not in _adapter_names(layer):
            continue
        active = [n for n in _names(layer) if n != name]
        disabled = layer._disable_adapters
        for attribute in (*layer.adapter_layer_names, *layer.other_param_names):
            held: Any = getattr(layer, attribute, None)
            if hasattr(held, "pop") and name in held:
                held.pop(name)
        layer._active_adapter, layer._disable_adapters = active, disabled
        if not _adapter_names(layer):
            parent, _, child = path.rpartition(".")
            setattr(lm.model.get_submodule(parent), child, layer.get_base_layer())
    configs = getattr(lm.model, "peft_config", None)
    if isinstance(configs, dict):
        configs.pop(name, None)
        if not configs:
            del lm.model.peft_config


def load_target_adapter(lm: LanguageModel, folder: Path, name: str = "target") -> LanguageModel:
    """The same model as a target with an adapter of its own, which stays on while activations are captured."""
    load_adapter(lm, folder, name)
    if not moves_logits(lm, (*lm.target_adapters, name), lm.target_adapters):
        remove_adapter(lm, name)
        raise ModelError(
            f"The adapter {folder} changes nothing.",
            "the logits with and without it are equal",
            "check that it was trained and saved for this model",
        )
    return replace(lm, target_adapters=(*lm.target_adapters, name), name=f"{lm.name}+{folder.name}")


def moves_logits(lm: LanguageModel, on: Sequence[str], off: Sequence[str]) -> bool:
    """Whether the logits of a short input differ between two sets of adapters."""
    ids = torch.tensor([[(11 * i + 5) % min(lm.vocab_size, 997) for i in range(8)]], device=lm.device)
    results = []
    for names in (on, off):
        with torch.no_grad(), adapters_on(lm.model, names):
            results.append(lm.logits(keep=1, input_ids=ids))
    return not torch.equal(results[0], results[1])


def save_adapter(lm: LanguageModel, name: str, config: dict[str, Any], folder: Path, dtype: torch.dtype) -> None:
    """Write the adapter as a plain PEFT folder that `PeftModel.from_pretrained` loads."""
    from safetensors.torch import save_file

    tensors = {
        f"base_model.model.{key}": parameter.detach().to("cpu", dtype).contiguous()
        for key, parameter in adapter_parameters(lm.model, name).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
