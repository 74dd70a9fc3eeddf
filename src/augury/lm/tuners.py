"""The layers by which peft puts adapters on a model: found, switched exactly and restored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from augury.errors import ContractError
from augury.lm.locks import alone


def tuner_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """The modules of `model` that hold adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    return [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]


def replaces(layer: Any) -> bool:
    """Whether the layer holds whole modules that stand in for the base's (modules_to_save)."""
    from peft.utils.other import AuxiliaryTrainingWrapper

    return isinstance(layer, AuxiliaryTrainingWrapper)


def adapter_names(layer: Any) -> set[str]:
    """The adapters that a layer holds."""
    return {name for attribute in layer.adapter_layer_names for name in getattr(layer, attribute, {})}


def names_on(model: nn.Module) -> set[str]:
    """All adapters that stand on the model, on or off."""
    return {name for _, layer in tuner_layers(model) for name in adapter_names(layer)}


def adapter_dropouts(model: nn.Module, name: str) -> list[nn.Module]:
    """The adapter's own dropouts, whose mode is set apart from the base's while it is trained."""
    held = (getattr(layer, "lora_dropout", {}) for _, layer in tuner_layers(model))
    return [dropouts[name] for dropouts in held if name in dropouts]


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

    Other threads that want the model wait meanwhile. Restored are the active adapters, `requires_grad` (which is never
    touched) and every module's train mode.

    Raises:
        ContractError: Two of them replace one module, of which only one can be used.
    """
    with alone(model), _switched(model, names):
        yield


@contextmanager
def _switched(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    layers = [layer for _, layer in tuner_layers(model)]
    chosen = [_chosen(layer, names) for layer in layers]
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    training = [module for module in model.modules() if module.training]
    try:
        for layer, on in zip(layers, chosen, strict=True):
            layer._active_adapter, layer._disable_adapters = on, not on
        for module in training:
            module.training = False
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled
        for module in training:
            module.training = True


def _chosen(layer: Any, names: Sequence[str]) -> list[str]:
    """Those of `names` that this layer holds: some of peft's layers pass all by, or fail, at a name they lack."""
    held = adapter_names(layer)
    found = [name for name in names if name in held]
    if len(found) > 1 and replaces(layer):
        raise ContractError(
            f"The adapters {', '.join(found)} cannot be on together.",
            "each of them brings a module of its own (modules_to_save) in the place of the same one",
            "switch on one of them",
        )
    return found


@dataclass(frozen=True)
class Before:
    """A model's modules and flags before peft touched it."""

    children: list[tuple[nn.Module, dict[str, nn.Module | None]]]
    switches: dict[int, tuple[Any, bool]]
    gradients: dict[int, bool]
    training: dict[int, bool]

    @classmethod
    def of(cls, model: nn.Module) -> Before:
        """What stands on the model now."""
        return cls(
            [(module, dict(module._modules)) for module in model.modules()],
            {id(layer): (layer._active_adapter, layer._disable_adapters) for _, layer in tuner_layers(model)},
            {id(parameter): parameter.requires_grad for parameter in model.parameters()},
            {id(module): module.training for module in model.modules()},
        )

    def restore_modules(self, model: nn.Module, name: str) -> None:
        """Take back every wrapper and every trace of the adapter `name` in those that stay."""
        for module, children in self.children:
            if module._modules != children:
                module._modules.clear()
                module._modules.update(children)
        for _, layer in tuner_layers(model):
            forget(layer, name)
        forget_config(model, name)

    def restore_flags(self, model: nn.Module) -> None:
        """What was there as it was; what is new frozen, off, and in the model's mode."""
        for parameter in model.parameters():
            parameter.requires_grad_(self.gradients.get(id(parameter), False))
        for _, layer in tuner_layers(model):
            layer._active_adapter, layer._disable_adapters = self.switches.get(id(layer), ([], True))
        for module in model.modules():
            module.training = self.training.get(id(module), model.training)


def forget(layer: Any, name: str) -> None:
    """Drop what one layer holds of an adapter."""
    active, disabled = [n for n in _names(layer) if n != name], layer._disable_adapters
    for attribute in (*layer.adapter_layer_names, *layer.other_param_names, "lora_variant"):
        held: Any = getattr(layer, attribute, None)
        if hasattr(held, "pop") and name in held:
            held.pop(name)
    if replaces(layer):
        layer._adapters.discard(name)
    layer._active_adapter, layer._disable_adapters = active, disabled


def forget_config(model: Any, name: str) -> None:
    """Drop the configuration that peft left on the model."""
    configs = getattr(model, "peft_config", None)
    if isinstance(configs, dict):
        configs.pop(name, None)
        if not configs:
            del model.peft_config


def base_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of the base below all adapters, under the names that they have without them."""
    layers = tuner_layers(module)
    kept = tuple(f"{path}.{'original_module' if replaces(layer) else 'base_layer'}." for path, layer in layers)
    wrapped = dict(zip((f"{path}." for path, _ in layers), kept, strict=True))
    for name, parameter in module.named_parameters():
        inside = (plain for path, plain in wrapped.items() if name.startswith(path))
        if all(name.startswith(plain) for plain in inside):
            yield re.sub(r"\.(base_layer|original_module)(?=\.|$)", "", name), parameter
