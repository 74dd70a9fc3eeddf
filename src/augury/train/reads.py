"""The target's activations for a whole set of rollouts, captured once and looked up by every question."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from augury.activations import capture_vectors
from augury.data.rollouts import Rollout
from augury.errors import StorageError
from augury.lm import LanguageModel

log = logging.getLogger(__name__)


class Reads:
    """Activations of rollouts, from each user turn's first token on, in float16."""

    def __init__(self, layers: Sequence[int], first: dict[int, int], tensors: dict[int, Tensor]) -> None:
        self._layers, self._first, self._tensors = tuple(layers), first, tensors

    def vectors(self, rollout: int, layers: Sequence[int], positions: Sequence[int]) -> Tensor:
        """`[layers * n, d_model]` in float32, layer-major."""
        rows = [self._layers.index(layer) for layer in layers]
        columns = [position - self._first[rollout] for position in positions]
        return self._tensors[rollout][rows][:, columns].float().flatten(0, 1)

    def __len__(self) -> int:
        return len(self._tensors)


def capture_reads(
    lm: LanguageModel,
    rollouts: Sequence[Rollout],
    layers: Sequence[int],
    folder: Path,
    *,
    shard: int = 256,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Reads:
    """Capture every rollout once, in shards that are each written whole; an interrupted run goes on from the last."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[int, Tensor] = {}
    for start in range(0, len(rollouts), shard):
        part = rollouts[start : start + shard]
        path = folder / f"{part[0].split}-{start:06d}.safetensors"
        if not path.exists():
            _capture_shard(lm, part, layers, path, batch_size)
        loaded = load_file(path)
        tensors.update({rollout.id: loaded[str(rollout.id)] for rollout in part})
        if progress is not None:
            progress(start + len(part), len(rollouts))
    return Reads(layers, {rollout.id: rollout.user[0] for rollout in rollouts}, tensors)


def _capture_shard(
    lm: LanguageModel, rollouts: Sequence[Rollout], layers: Sequence[int], path: Path, batch_size: int
) -> None:
    rows = [range(rollout.user[0], len(rollout.token_ids)) for rollout in rollouts]
    vectors = capture_vectors(lm, [rollout.token_ids for rollout in rollouts], layers, rows, batch_size)
    partial = path.with_suffix(".partial")
    try:
        save_file({str(r.id): v.to(torch.float16) for r, v in zip(rollouts, vectors, strict=True)}, partial)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise StorageError(
            f"{path} could not be written.", str(error), "free some space and resume; the shards before it are whole"
        ) from error
