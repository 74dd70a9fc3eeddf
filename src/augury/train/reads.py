"""The target's activations for training: captured once to disk and looked up, or for each batch anew."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from augury.activations import capture_vectors
from augury.activations.store import load
from augury.activations.versions import versions
from augury.data.example import Context, Example
from augury.errors import FormatError, InputError
from augury.files import replacing
from augury.lm import LanguageModel
from augury.oracle.reading import text_at, text_until

log = logging.getLogger(__name__)


class Reads(Protocol):
    """The activations of one set of contexts."""

    def prefetch(self, examples: Sequence[Example]) -> None:
        """Make ready what these examples read: each context once, however many ask about it."""
        ...

    def vectors(self, context: int, layers: Sequence[int], positions: Sequence[int]) -> Tensor:
        """`[layers * n, d_model]` in float32, layer-major."""
        ...

    def text(self, example: Example) -> str | None:
        """What stands in place of activations; None where they are read."""
        ...


class TextReads:
    """No activations but the text, for a trained reader.

    Half of the examples get only the read tokens and half everything up to the last of them, as the two text controls
    do; which, follows from the example.

    Args:
        lm: Decodes.
        contexts: The set.
    """

    def __init__(self, lm: LanguageModel, contexts: Sequence[Context]) -> None:
        self._lm, self._contexts = lm, contexts

    def prefetch(self, examples: Sequence[Example]) -> None:
        """Nothing: texts are looked up."""

    def vectors(self, context: int, layers: Sequence[int], positions: Sequence[int]) -> Tensor:
        """None of them: `[0, d_model]`."""
        return torch.empty(0, self._lm.d_model)

    def text(self, example: Example) -> str:
        """The window's text or all up to its end.

        Raises:
            InputError: The context is a file of activations, which has no text.
        """
        ids = self._contexts[example.context].token_ids
        if not ids:
            raise InputError(
                "A reader cannot be trained on saved activations.",
                f"context {example.context} of {example.contexts} has no text",
                "leave these lines out of the source",
            )
        half = random.Random(f"{example.context}:{example.positions}:{example.question}").random() < 0.5
        return (text_at if half else text_until)(self._lm, ids, example.positions)


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

    def text(self, example: Example) -> None:
        """None: activations are read."""


class LiveReads:
    """Activations captured when they are wanted and kept until the next are.

    Args:
        lm: The target.
        contexts: The set.
        batch_size: Contexts captured at once, at most.
        tokens: Of these, with padding, at most.
    """

    def __init__(
        self, lm: LanguageModel, contexts: Sequence[Context], batch_size: int = 16, tokens: int | None = None
    ) -> None:
        self._lm, self._contexts, self._batch_size, self._tokens = lm, contexts, batch_size, tokens
        self._found: dict[int, _Held] = {}

    def prefetch(self, examples: Sequence[Example]) -> None:
        """Capture every context of the examples once, at all that they read of it, and no further than that."""
        wanted: dict[int, set[int]] = {}
        layers = sorted({layer for example in examples for layer in example.layers})
        for example in examples:
            wanted.setdefault(example.context, set()).update(example.positions)
        self._found = self._captured({number: sorted(rows) for number, rows in wanted.items()}, layers)

    def vectors(self, context: int, layers: Sequence[int], positions: Sequence[int]) -> Tensor:
        found = self._found.get(context)
        if found is None or not found.holds(layers, positions):  # nobody said that it would be asked for
            found = self._captured({context: sorted(positions)}, sorted(layers))[context]
        return found.take(layers, positions)

    def text(self, example: Example) -> None:
        """None: activations are read."""

    def _captured(self, wanted: Mapping[int, Sequence[int]], layers: Sequence[int]) -> dict[int, _Held]:
        contexts = {number: self._contexts[number] for number in wanted}
        found = {number: _from_file(context) for number, context in contexts.items() if "vectors" in context.labels}
        rest = [number for number in wanted if number not in found]
        ids, rows = [contexts[number].token_ids for number in rest], [wanted[number] for number in rest]
        vectors_of = capture_vectors(self._lm, ids, layers, rows, self._batch_size, tokens=self._tokens) if rest else ()
        for number, vectors in zip(rest, vectors_of, strict=True):
            found[number] = _Held(tuple(layers), tuple(wanted[number]), vectors)
        return found


@dataclass(frozen=True)
class _Held:
    """Vectors `[layers, positions, d_model]` of one context."""

    layers: tuple[int, ...]
    positions: tuple[int, ...]
    vectors: Tensor

    def holds(self, layers: Sequence[int], positions: Sequence[int]) -> bool:
        return set(layers) <= set(self.layers) and set(positions) <= set(self.positions)

    def take(self, layers: Sequence[int], positions: Sequence[int]) -> Tensor:
        if missing := sorted(set(layers) - set(self.layers)):
            raise InputError(
                "Saved activations lack a layer.",
                f"they hold {', '.join(map(str, self.layers))}, and the recipe reads {', '.join(map(str, missing))}",
                "capture these layers too, or leave the lines out of the source",
            )
        rows, columns = [self.layers.index(k) for k in layers], [self.positions.index(p) for p in positions]
        return self.vectors[rows][:, columns].float().flatten(0, 1)


def _from_file(context: Context) -> _Held:
    """Saved activations; their positions are rows of the file."""
    loaded = load(Path(context.labels["vectors"]))
    acts = loaded[int(context.labels["item"])] if isinstance(loaded, list) else loaded
    return _Held(acts.layers, tuple(range(len(acts.positions))), acts.vectors)


def cache_reads(
    lm: LanguageModel,
    contexts: Sequence[Context],
    layers: Sequence[int],
    folder: Path,
    name: str,
    *,
    shard: int = 256,
    batch_size: int = 16,
    tokens: int | None = None,
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
        batch_size: Contexts captured at once, at most.
        tokens: Of these, with padding, at most.
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
            _capture_shard(lm, part, layers, path, batch_size, tokens, made)
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
    tokens: int | None,
    made: dict[str, str],
) -> None:
    rows = [range(len(context.token_ids)) for context in contexts]
    ids = [context.token_ids for context in contexts]
    vectors = capture_vectors(lm, ids, layers, rows, batch_size, tokens=tokens)
    with replacing(path) as partial:
        named = {str(c.number): _halved(v) for c, v in zip(contexts, vectors, strict=True)}
        save_file(named, partial, metadata=made)


def _halved(vectors: Tensor) -> Tensor:
    """In float16, or, where that has no room for a value, in bfloat16."""
    found = vectors.to(torch.float16)
    return found if bool(torch.isfinite(found).all()) else vectors.to(torch.bfloat16)
