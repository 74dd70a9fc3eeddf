"""The target's activations for training: captured once to disk and looked up, or for each batch anew."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from augury.activations import capture_vectors
from augury.activations.versions import versions
from augury.data.example import Context, Example
from augury.errors import FormatError, InputError
from augury.files import replacing
from augury.lm import LanguageModel

log = logging.getLogger(__name__)


class Reads(Protocol):
    """The activations of one set of contexts."""

    def prefetch(self, examples: Sequence[Example]) -> None:
        """Make ready what these examples read: each context once, however many ask about it."""
        ...

    def vectors(self, context: int, layers: Sequence[int], positions: Sequence[int]) -> Tensor:
        """`[layers * n, d_model]` in float32, layer-major."""
        ...


class CachedReads:
    """Activations on disk, in float16, mapped: what is not looked up is not read.

    Args:
        layers: The layers of each tensor, in order.
        shards: The files, each with `shard` contexts by number.
        shard: Contexts of a file.
    """

    def __init__(self, layers: Sequence[int], shards: Sequence[Path], shard: int) -> None:
        self._layers, self._shard = tuple(layers), shard
        self._files = [safe_open(path, "pt") for path in shards]

    def prefetch(self, examples: Sequence[Example]) -> None:
        """Nothing: a mapped file is ready."""

    def vectors(self, context: int, layers: Sequence[int], positions: Sequence[int]) -> Tensor:
        rows = [self._layers.index(layer) for layer in layers]
        first, last = min(positions), max(positions) + 1
        found = self._files[context // self._shard].get_slice(str(context))[:, first:last]
        return found[rows][:, [position - first for position in positions]].float().flatten(0, 1)


class LiveReads:
    """Activations captured when they are wanted and kept until the next are.

    Args:
        lm: The target.
        contexts: The set.
        batch_size: Contexts captured at once.
    """

    def __init__(self, lm: LanguageModel, contexts: Sequence[Context], batch_size: int = 16) -> None:
        self._lm, self._contexts, self._batch_size = lm, contexts, batch_size
        self._found: dict[int, tuple[dict[int, int], dict[int, int], Tensor]] = {}

    def prefetch(self, examples: Sequence[Example]) -> None:
        """Capture every context of the examples once, at all that they read of it, and no further than that."""
        wanted: dict[int, set[int]] = {}
        layers = sorted({layer for example in examples for layer in example.layers})
        for example in examples:
            wanted.setdefault(example.context, set()).update(example.positions)
        numbers, rows = list(wanted), [sorted(wanted[number]) for number in wanted]
        ids = [self._contexts[number].token_ids for number in numbers]
        vectors = capture_vectors(self._lm, ids, layers, rows, self._batch_size)
        places = {layer: row for row, layer in enumerate(layers)}
        self._found = {
            number: (places, {position: column for column, position in enumerate(row)}, tensor)
            for number, row, tensor in zip(numbers, rows, vectors, strict=True)
        }

    def vectors(self, context: int, layers: Sequence[int], positions: Sequence[int]) -> Tensor:
        rows, columns, tensor = self._found[context]
        found = tensor[[rows[layer] for layer in layers]][:, [columns[position] for position in positions]]
        return found.float().flatten(0, 1)


def cache_reads(
    lm: LanguageModel,
    contexts: Sequence[Context],
    layers: Sequence[int],
    folder: Path,
    name: str,
    *,
    shard: int = 256,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> CachedReads:
    """Capture every context once, in shards that are each written whole; an interrupted run goes on from the last.

    Args:
        lm: The target.
        contexts: A set of one split, in order of their numbers.
        layers: What examples read.
        folder: Where the shards go.
        name: What they are called.
        shard: Contexts of a file.
        batch_size: Contexts captured at once.
        progress: Told (contexts that are there, all).

    Raises:
        InputError: A shard that is there already was captured from another model, at other layers or from other text.
        FormatError: A shard is broken.
        StorageError: The disk is full; the shards before are whole.
    """
    paths = []
    for start in range(0, len(contexts), shard):
        part = contexts[start : start + shard]
        path = folder / f"{name}-{start:06d}.safetensors"
        made = _made(lm, part, layers)
        if not _is_there(path, made):
            _capture_shard(lm, part, layers, path, batch_size, made)
        paths.append(path)
        if progress is not None:
            progress(start + len(part), len(contexts))
    return CachedReads(layers, paths, shard)


def _made(lm: LanguageModel, contexts: Sequence[Context], layers: Sequence[int]) -> dict[str, str]:
    """What a shard says about itself, as a safetensors file can: model, layers, the tokens read, versions."""
    tokens = hashlib.sha256(json.dumps([(c.number, c.token_ids) for c in contexts]).encode()).hexdigest()
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
    contexts: Sequence[Context],
    layers: Sequence[int],
    path: Path,
    batch_size: int,
    made: dict[str, str],
) -> None:
    rows = [range(len(context.token_ids)) for context in contexts]
    vectors = capture_vectors(lm, [context.token_ids for context in contexts], layers, rows, batch_size)
    with replacing(path) as partial:
        named = {str(c.number): v.to(torch.float16) for c, v in zip(contexts, vectors, strict=True)}
        save_file(named, partial, metadata=made)
