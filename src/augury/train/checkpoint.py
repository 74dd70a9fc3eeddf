"""Checkpoints that are whole or absent: an oracle's folder with the optimiser's state, written beside and renamed."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from augury.errors import AuguryError, FormatError, StorageError
from augury.files import open_up

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """What the steps to come follow from, beside the adapter and the optimiser's moments.

    The learning rate and every draw (of examples, of dropout) are functions of seed and step, so these numbers are the
    whole of the scheduler's, the sampler's and the generators' states.

    Attributes:
        step: Steps done.
        seed: Of the run.
        pool: The pool that the next step's examples come from.
        place: The next step's place in it.
        threads: Of each process: sums are rounded otherwise with another number.
        processes: That share each batch.
    """

    step: int
    seed: int
    pool: int
    place: int
    threads: int
    processes: int


_NAME = re.compile(r"step-(\d+)$")
_PEFT = "base_model.model."  # what stands before every name in a PEFT file
_ADAPTER, _OPTIMIZER, _STATE = "adapter_model.safetensors", "optimizer.safetensors", "state.json"


def save_checkpoint(
    folder: Path,
    state: State,
    write_oracle: Callable[[Path], object],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    keep: int = 2,
) -> Path:
    """Write `folder/step-N`; the older ones but `keep` are removed only once it is whole.

    Args:
        folder: Where all of a run's checkpoints are.
        state: What else the next steps follow from.
        write_oracle: Writes the adapter as an oracle's files, in float32, into the folder that it is given.
        parameters: The adapter's parameters, by the names that a PEFT file gives them without its prefix.
        optimizer: What trains them.
        keep: How many checkpoints stay.

    Raises:
        StorageError: The disk is full; the earlier checkpoints stay.
    """
    final = folder / f"step-{state.step:06d}"
    partial = folder / f".partial-{state.step:06d}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_oracle(partial)
        moments = _moments(parameters, optimizer)
        save_file(moments, partial / _OPTIMIZER)
        open_up(partial / _OPTIMIZER)
        (partial / _STATE).write_text(json.dumps({**asdict(state), "moments": len(moments)}), encoding="utf-8")
        _onto_disk(*(path for path in partial.rglob("*") if path.is_file()), partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _onto_disk(folder)
    except (OSError, SafetensorError) as error:
        raise _not_written(folder, state.step, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _onto_disk(*paths: Path) -> None:
    """A power cut may keep a rename and lose what the renamed files held, unless that is on the disk before it."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load_checkpoint(folder: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> State:
    """Put a checkpoint back; returns what the next steps follow from.

    Raises:
        FormatError: It is broken, its tensors are not those of this adapter, or not finite; nothing was changed.
    """
    state, count = _state(folder)
    adapter, moments = _tensors(folder, _ADAPTER), _tensors(folder, _OPTIMIZER)
    _check(folder, _ADAPTER, adapter, {_PEFT + name: parameter.shape for name, parameter in parameters.items()})
    if not all(bool(torch.isfinite(tensor).all()) for tensor in adapter.values()):
        raise _broken(folder, f"{_ADAPTER} holds values that are not finite: the training came apart before it")
    if len(moments) != count:
        raise _broken(folder, f"{_OPTIMIZER} holds {len(moments)} tensors and {count} were written")
    moved = {name: parameter for name, parameter in parameters.items() if f"{name}/step" in moments}
    _check(folder, _OPTIMIZER, moments, {key: shape for name, p in moved.items() for key, shape in _shapes(name, p)})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(adapter[_PEFT + name])
    for name, parameter in moved.items():
        optimizer.state[parameter] = _moments_of(moments, name, parameter)
    return state


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = _all(folder)
    return found[-1] if found else None


def _all(folder: Path) -> list[Path]:
    """Oldest first, by number: names stop sorting as text at a million steps."""
    found = [path for path in folder.glob("step-*") if _NAME.search(path.name) and (path / _STATE).exists()]
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _moments(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value.detach().contiguous().cpu()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _shapes(name: str, parameter: nn.Parameter) -> Sequence[tuple[str, torch.Size]]:
    shape = parameter.shape
    return [(f"{name}/step", torch.Size()), (f"{name}/exp_avg", shape), (f"{name}/exp_avg_sq", shape)]


def _moments_of(state: Mapping[str, Tensor], name: str, parameter: nn.Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in ("step", "exp_avg", "exp_avg_sq"):
        tensor = state[f"{name}/{key}"]
        found[key] = tensor if key == "step" else tensor.to(parameter.device)
    return found


def _state(folder: Path) -> tuple[State, int]:
    try:
        found = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        return State(**{field.name: int(found[field.name]) for field in fields(State)}), int(found["moments"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(folder, f"{_STATE}: {type(error).__name__}: {error}") from error


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    try:
        return load_file(folder / name)
    except (OSError, SafetensorError) as error:
        raise _broken(folder, f"{name}: {error}") from error


def _check(folder: Path, file: str, found: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> None:
    shapes = {name: tensor.shape for name, tensor in found.items()}
    wrong = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
    if wrong:
        why = f"{len(wrong)} tensors of {file} are missing, too many or of another shape, such as {wrong[0]}"
        raise _broken(folder, why)


def _broken(folder: Path, why: str) -> FormatError:
    older = [path.name for path in _all(folder.parent) if _number(path) < _number(folder)]
    rest = f"{older[-1]} before it is whole" if older else "there is none before it, so training begins anew"
    return FormatError(f"The checkpoint {folder} cannot be used.", why, f"remove its folder and resume: {rest}")


def _not_written(folder: Path, step: int, error: Exception) -> StorageError:
    kept = latest(folder)
    return StorageError(
        f"The checkpoint of step {step} could not be written.",
        error.why if isinstance(error, AuguryError) else str(error),
        f"free some space and resume; {kept.name if kept else 'no checkpoint'} is whole",
    )
