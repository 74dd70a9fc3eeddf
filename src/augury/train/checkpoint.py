"""Checkpoints that are whole or absent: adapter, optimiser state and step, written beside and renamed."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from augury.errors import StorageError

log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d+)$")


def save_checkpoint(
    folder: Path, step: int, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, keep: int = 2
) -> Path:
    """Write `folder/step-N`; the older ones but `keep` are removed only once it is whole.

    Raises:
        StorageError: The disk is full; the earlier checkpoints stay.
    """
    final = folder / f"step-{step:06d}"
    partial = folder / f".partial-{step:06d}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(
            {name: p.detach().contiguous().cpu() for name, p in parameters.items()}, partial / "adapter.safetensors"
        )
        save_file(_optimizer_tensors(parameters, optimizer), partial / "optimizer.safetensors")
        (partial / "state.json").write_text(json.dumps({"step": step}), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        kept = latest(folder)
        raise StorageError(
            f"The checkpoint of step {step} could not be written.",
            str(error),
            f"free some space and resume; {kept.name if kept else 'no checkpoint'} is whole",
        ) from error
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """Put the state of a checkpoint back; returns the step to go on with."""
    adapter = load_file(folder / "adapter.safetensors")
    state = load_file(folder / "optimizer.safetensors")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(adapter[name])
            if f"{name}/exp_avg" in state:
                optimizer.state[parameter] = _moments(state, name, parameter)
    return int(json.loads((folder / "state.json").read_text(encoding="utf-8"))["step"])


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = _all(folder)
    return found[-1] if found else None


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if _NAME.search(path.name) and (path / "state.json").exists())


def _optimizer_tensors(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value.detach().contiguous().cpu()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _moments(state: dict[str, Tensor], name: str, parameter: nn.Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in ("step", "exp_avg", "exp_avg_sq"):
        tensor = state[f"{name}/{key}"]
        found[key] = tensor if key == "step" else tensor.to(parameter.device)
    return found
