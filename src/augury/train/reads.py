"""The target's activations for a whole set of rollouts, captured once and looked up by every question."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from augury.activations import capture_vectors
from augury.activations.versions import versions
from augury.data.rollouts import Rollout
from augury.errors import FormatError, InputError
from augury.files import replacing
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
    """Capture every rollout once, in shards that are each written whole; an interrupted run goes on from the last.

    Raises:
        InputError: A shard that is there already was captured from another model, at other layers or from other text.
        FormatError: A shard is broken.
        StorageError: The disk is full; the shards before are whole.
    """
    tensors: dict[int, Tensor] = {}
    for start in range(0, len(rollouts), shard):
        part = rollouts[start : start + shard]
        path = folder / f"{part[0].split}-{start:06d}.safetensors"
        made = _made(lm, part, layers)
        if not _is_there(path, made):
            _capture_shard(lm, part, layers, path, batch_size, made)
        loaded = load_file(path)
        tensors.update({rollout.id: loaded[str(rollout.id)] for rollout in part})
        if progress is not None:
            progress(start + len(part), len(rollouts))
    return Reads(layers, {rollout.id: rollout.user[0] for rollout in rollouts}, tensors)


def _made(lm: LanguageModel, rollouts: Sequence[Rollout], layers: Sequence[int]) -> dict[str, str]:
    """What a shard says about itself, as a safetensors file can: model, layers, the tokens read, versions."""
    tokens = hashlib.sha256(json.dumps([(r.id, r.user[0], r.token_ids) for r in rollouts]).encode()).hexdigest()
    identity = lm.identity
    return {
        "model": identity.name,
        "revision": str(identity.revision),
        "weights_fingerprint": str(identity.weights_fingerprint),
        "layers": json.dumps(list(layers)),
        "tokens": tokens,
        "versions": json.dumps(versions(), sort_keys=True),
    }


def _is_there(path: Path, made: dict[str, str]) -> bool:
    """Whether the shard need not be captured again."""
    if not path.exists():
        return False
    try:
        with safe_open(path, "pt") as file:
            found = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path} cannot be read.", str(error), "remove it: it is captured again") from error
    if "weights_fingerprint" not in found:
        log.info("%s does not say what it was captured from, so it is captured again", path)
        return False
    others = [name for name in ("weights_fingerprint", "layers", "tokens") if found.get(name) != made[name]]
    if others:
        raise InputError(
            f"{path} holds the activations of something else.",
            f"it differs from this run in {', '.join(others)}",
            f"remove {path.parent}, so that they are captured again, or name a new folder with -o",
        )
    if found.get("versions") != made["versions"]:
        log.warning("%s was captured by other versions (%s)", path, found.get("versions"))
    return True


def _capture_shard(
    lm: LanguageModel,
    rollouts: Sequence[Rollout],
    layers: Sequence[int],
    path: Path,
    batch_size: int,
    made: dict[str, str],
) -> None:
    rows = [range(rollout.user[0], len(rollout.token_ids)) for rollout in rollouts]
    vectors = capture_vectors(lm, [rollout.token_ids for rollout in rollouts], layers, rows, batch_size)
    with replacing(path) as partial:
        named = {str(r.id): v.to(torch.float16) for r, v in zip(rollouts, vectors, strict=True)}
        save_file(named, partial, metadata=made)
