"""Activations and where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augury.activations import show
from augury.activations.versions import versions
from augury.contract import ModelIdentity
from augury.errors import InputError
from augury.lm import LanguageModel, Transcript
from augury.lm.values import is_whole


@dataclass(frozen=True)
class Provenance:
    """Where activations came from.

    Attributes:
        model: The identity of the target.
        adapters: The target's own adapters that were on.
        dtype: The dtype it ran in.
        created: When, in UTC.
        kind: `capture`, `difference` or `tensor`.
        versions: Of the packages that took them; empty where nobody knows (a tensor, an older file).
    """

    model: ModelIdentity | None
    adapters: tuple[str, ...] = ()
    dtype: str = "float32"
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    kind: str = "capture"
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, model: LanguageModel) -> Provenance:
        dtype = str(model.dtype).removeprefix("torch.")
        return cls(model.identity, model.target_adapters, dtype, versions=dict(versions()))


@dataclass(frozen=True, eq=False)
class Activations:
    """Vectors of one context at some layers and positions.

    Attributes:
        vectors: `[layers, n, d_model]`.
        layers: The layer of each row of the first dimension.
        positions: The token position of each row of the second dimension.
        transcript: The context that was read, or None for a bare tensor.
        provenance: Which model, when, how.
        base_norms: `[layers, n]`, of a difference only: the norms of the base's activations.
        noise_floor: Of a difference only: the relative norm that equal models would show.
    """

    vectors: Tensor
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    transcript: Transcript | None
    provenance: Provenance
    base_norms: Tensor | None = None
    noise_floor: float | None = None

    def __post_init__(self) -> None:
        shape = (len(self.layers), len(self.positions))
        if self.vectors.ndim != 3 or self.vectors.shape[:2] != shape:
            raise InputError(
                "These vectors do not match their layers and positions.",
                f"the tensor is {list(self.vectors.shape)}, not [{shape[0]}, {shape[1]}, d_model]",
                "pass a tensor [layers, n, d_model]",
            )

    @classmethod
    def from_tensor(cls, vectors: Tensor, layers: int | Sequence[int]) -> Activations:
        """A bare tensor `[n, d_model]` (or `[layers, n, d_model]`), which has no text: the text controls refuse it."""
        stacked = vectors[None] if vectors.ndim == 2 else vectors
        named = _layers(layers)
        if stacked.ndim != 3:
            raise InputError(
                "This tensor holds no activations.", f"its shape is {list(vectors.shape)}", "pass a tensor [n, d_model]"
            )
        return cls(stacked.detach(), named, tuple(range(stacked.shape[1])), None, Provenance(None, kind="tensor"))

    @property
    def d_model(self) -> int:
        return self.vectors.shape[-1]

    @property
    def flat(self) -> Tensor:
        """The vectors in slot order, layer-major: `[layers * n, d_model]`."""
        return self.vectors.reshape(-1, self.d_model)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The ids of the tokens that were read (empty for a bare tensor)."""
        if self.transcript is None:
            return ()
        return tuple(self.transcript.token_ids[position] for position in self.positions)

    @property
    def relative_norms(self) -> Tensor | None:
        """Of a difference: `||difference|| / ||base||`, `[layers, n]`."""
        return None if self.base_norms is None else self.vectors.float().norm(dim=-1) / self.base_norms

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int | slice | Sequence[int] | Sequence[bool] | Tensor) -> Activations:
        """The same layers at some of the positions, by their place in this selection.

        Args:
            index: A place, a slice, places in the order wanted, or a mask with one truth value a position.

        Raises:
            InputError: Places that do not exist, a mask of another length, what is no place, or nothing selected.
        """
        wanted = _places(index, len(self))
        if not wanted:
            raise InputError(
                "This slice is empty.", f"{index} of {len(self)} positions", "choose at least one position"
            )
        return replace(
            self,
            vectors=self.vectors[:, wanted],
            positions=tuple(self.positions[i] for i in wanted),
            base_norms=None if self.base_norms is None else self.base_norms[:, wanted],
        )

    def at_layers(self, layers: int | Sequence[int]) -> Activations:
        """The same positions at some of the captured layers."""
        named = _layers(layers)
        missing = [layer for layer in named if layer not in self.layers]
        if missing or not named:
            raise InputError(f"Layers {missing} were not captured.", f"there are {self.layers}", "capture them first")
        rows = [self.layers.index(layer) for layer in named]
        norms = None if self.base_norms is None else self.base_norms[rows]
        return replace(self, vectors=self.vectors[rows], layers=named, base_norms=norms)

    def to(self, dtype: torch.dtype) -> Activations:
        return replace(self, vectors=self.vectors.to(dtype))

    def save(self, path: str | Path) -> Path:
        """Write to a safetensors file (see `augury.activations.store.save`)."""
        from augury.activations.store import save

        return save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Activations:
        """Read one context's activations from a file.

        Raises:
            InputError: The file holds a list of them; `augury.activations.load` reads it.
        """
        from augury.activations.store import load

        found = load(path)
        if not isinstance(found, Activations):
            raise InputError(
                f"{path} holds {len(found)} contexts.", "this reads one", "use augury.activations.load for a list"
            )
        return found

    def __rich__(self) -> Any:
        return show.rich_table(self)

    def _repr_html_(self) -> str:
        return show.html(self)

    def __repr__(self) -> str:
        name = self.provenance.model.name if self.provenance.model else self.provenance.kind
        shown = f"{self.positions[0]}..{self.positions[-1]}" if len(self) > 1 else str(self.positions[0])
        return (
            f"Activations({name}, layers {list(self.layers)}, {len(self)} positions ({shown}), d_model {self.d_model})"
        )


def _layers(layers: Any) -> tuple[int, ...]:
    """One layer, or several, as Python's numbers."""
    return (int(layers),) if is_whole(layers) else tuple(int(layer) for layer in layers)


def _plain(value: Any) -> Any:
    """Python's own numbers, truth values and lists for those of torch and numpy."""
    return value.tolist() if isinstance(value, (Tensor, np.ndarray, np.generic)) else value


def _places(index: Any, count: int) -> list[int]:
    """The places among `count` that an index names; a mask names those where it is true, as in numpy."""
    places = range(count)
    try:
        if isinstance(index, slice):
            return list(places[index])
        plain = _plain(index)
        if isinstance(plain, bool):
            raise TypeError("one truth value is no mask")
        if isinstance(plain, int):
            return [places[plain]]
        items = [_plain(item) for item in plain]
        if any(isinstance(item, bool) for item in items):
            return _masked(items, count)
        return [places[item] for item in items]
    except IndexError as error:
        raise InputError(
            f"There is no activation {index}.", f"{count} positions were captured", "choose among these"
        ) from error
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{index!r:.80} selects no activations.",
            "places are whole numbers",
            "pass a place, a slice, a list of places, or a mask with one truth value a position",
        ) from error


def _masked(mask: list[Any], count: int) -> list[int]:
    if len(mask) != count or not all(isinstance(item, bool) for item in mask):
        raise InputError(
            "This mask cannot be used.",
            f"it has {len(mask)} entries for {count} positions, or not all of them are true or false",
            "pass one truth value a position",
        )
    return [place for place, chosen in enumerate(mask) if chosen]
