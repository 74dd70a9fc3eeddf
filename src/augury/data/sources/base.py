"""What all sources of examples share: their settings, and the draws that follow from a unit's number alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from augury.data.bank import Split
from augury.data.example import Example
from augury.data.index import Indexed
from augury.errors import InputError

Decode = Callable[[Sequence[int]], str]
TRIES = 1000


class Settings(BaseModel):
    """A part of a recipe: frozen, with no field that is not known; of one that is not, the nearest is named."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _know_all(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for name in value.keys() - cls.model_fields.keys():
                raise ValueError(f"there is no field {name!r} here{nearest(str(name), cls.model_fields)}")
        return value


def nearest(name: str, known: Iterable[str]) -> str:
    """What was meant, for the end of a message: the nearest known name, or all of them."""
    names = list(known)
    found = get_close_matches(name, names, 1)
    return f"; did you mean {found[0]}?" if found else f"; there are {', '.join(names)}"


class SourceSettings(Settings):
    """What every source says.

    Attributes:
        contexts: The set of contexts that it asks about; empty where the source reads its own.
        train: Training examples, about; None: as many as the stages draw.
        heldout: Held-out examples, about.
    """

    contexts: str = ""
    train: int | None = Field(default=None, gt=0)
    heldout: int = Field(default=200, ge=0)

    @property
    def longest_window(self) -> int:
        """The most positions of an example, where the settings say so."""
        return int(dict(self).get("window", 1))

    @property
    def makes_contexts(self) -> bool:
        """Whether it has a set of contexts of its own, under its own name."""
        return not self.contexts

    def reads(self, name: str) -> str:
        """The set in which its examples' contexts stand, where the source is called `name`."""
        return name if self.makes_contexts else self.contexts


@dataclass(frozen=True)
class Made:
    """What a source's examples are made of.

    Attributes:
        name: The source's name in the recipe.
        split: Which contexts and wordings.
        contexts: The set, with its index.
        layers: The layer tuples that examples read, one drawn for each unit.
        seed: Of all draws.
        decode: Token ids to text.
    """

    name: str
    split: Split
    contexts: Indexed
    layers: tuple[tuple[int, ...], ...]
    seed: int
    decode: Decode


class Source(Protocol):
    """Makes units of examples, each a function of its number alone."""

    def draw(self, number: int, rng: random.Random) -> tuple[Example, ...]:
        """One try at the unit of a number; empty where what was drawn has no example."""
        ...


def unit(source: Source, settings: SourceSettings, made: Made, number: int) -> tuple[Example, ...]:
    """The unit of this number: an example, or several that belong together.

    Raises:
        InputError: No draw found a context with the label or the length that it needs.
    """
    where = settings.reads(made.name)
    rng = random.Random(f"{made.seed}:{made.name}:{made.split}:{number}")
    for _ in range(TRIES):
        layers = rng.choice(made.layers)
        if found := source.draw(number, rng):
            return tuple(
                replace(example, source=made.name, contexts=where, layers=layers, unit=number) for example in found
            )
    raise InputError(
        f"The source {made.name} could make no example.",
        f"none of {TRIES} draws found a {made.split} context in {where} with the label or the length that it needs",
        "make more contexts, longer ones, or ask about other things",
    )


def draw(weights: Mapping[str, float], rng: random.Random) -> str:
    """One of the names, by weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def needs_weights(value: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """The weights, where all are of known names, not negative and not all zero; ValueError else."""
    for name in sorted(value.keys() - set(names)):
        raise ValueError(f"nothing is called {name!r}{nearest(name, names)}")
    if not any(weight > 0 for weight in value.values()) or min(value.values()) < 0:
        raise ValueError("weights must be >= 0 and not all 0")
    return dict(value)
