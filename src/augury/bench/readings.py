"""The target in its states, and what it represents there: every (state, context) is captured once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from augury.activations import capture_vectors
from augury.bench.item import Item, State
from augury.errors import NotFoundError
from augury.lm import LanguageModel
from augury.lm.hooks import on_output

BATCH = 16


@dataclass(frozen=True)
class Reading:
    """A context that was read in a state."""

    state: State
    token_ids: tuple[int, ...]

    @classmethod
    def of(cls, item: Item) -> Reading:
        """The item's."""
        return cls(item.state, item.token_ids)


@dataclass(frozen=True, eq=False)
class Plants:
    """Directions that can be added to the residual stream.

    Attributes:
        block: The block whose output they are added to.
        directions: `[d_model]` of length 1, by concept.
    """

    block: int
    directions: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Target:
    """The model that is read, with what it can be made into.

    Attributes:
        base: The plain model.
        organisms: The same with an adapter of its own on, by name.
        plants: What can be planted; None: nothing.
    """

    base: LanguageModel
    organisms: Mapping[str, LanguageModel] = field(default_factory=dict)
    plants: Plants | None = None

    def model(self, state: State) -> LanguageModel:
        """The model of a state.

        Raises:
            NotFoundError: There is no such organism.
        """
        if state.organism is None:
            return self.base
        if state.organism not in self.organisms:
            why = f"the organisms here are {', '.join(self.organisms) or 'none'}"
            instead = "make them with `augury bench organisms`, and name their folder with --organisms"
            raise NotFoundError(f"There is no organism {state.organism}.", why, instead)
        return self.organisms[state.organism]


@dataclass(frozen=True, eq=False)
class Taken:
    """Activations of the positions that were asked for.

    Attributes:
        positions: Rising.
        vectors: `[layers, positions, d_model]`, float32.
    """

    positions: tuple[int, ...]
    vectors: Tensor

    def at(self, positions: Sequence[int]) -> Tensor:
        """Some of them, layer-major: `[layers * n, d_model]`."""
        places = [self.positions.index(position) for position in positions]
        return self.vectors[:, places].reshape(-1, self.vectors.shape[-1])


def take(target: Target, layers: Sequence[int], wanted: Mapping[Reading, set[int]]) -> dict[Reading, Taken]:
    """Capture each reading once, at all positions that any question reads.

    Args:
        target: The model in its states.
        layers: The layers, in the order of the slots.
        wanted: The positions of each reading.
    """
    found: dict[Reading, Taken] = {}
    organisms = dict.fromkeys(reading.state.organism for reading in wanted)
    for organism in organisms:
        group = [reading for reading in wanted if reading.state.organism == organism]
        places = [tuple(sorted(wanted[reading])) for reading in group]
        model = target.model(State(organism))

        def around(rows: Sequence[int], offsets: Sequence[int], group: Sequence[Reading] = group):
            return _planting(target, [group[i].state for i in rows], offsets)

        vectors = capture_vectors(model, [r.token_ids for r in group], layers, places, BATCH, around=around)
        for reading, at, vector in zip(group, places, vectors, strict=True):
            found[reading] = Taken(at, vector.float())
    return found


@contextmanager
def _planting(target: Target, states: Sequence[State], offsets: Sequence[int]) -> Iterator[None]:
    """Add each row's concept at each of its tokens but the first, as a share of the residual norm there.

    The first token of a context is where attention rests: its norm is many times the others'.
    """
    planted = [(row, state) for row, state in enumerate(states) if state.planted and state.strength]
    if not planted:
        yield
        return
    plants = target.plants
    if plants is None or any(state.planted not in plants.directions for _, state in planted):
        known = ", ".join(plants.directions) if plants else "none"
        missing = ", ".join(sorted({str(state.planted) for _, state in planted}))
        raise NotFoundError(f"There is no direction for {missing}.", f"known are {known}", "name a known concept")

    def change(hidden: Tensor) -> Tensor:
        changed = hidden.clone()
        for row, state in planted:
            first = offsets[row] + 1
            own = hidden[row, first:].float()
            direction = plants.directions[str(state.planted)].to(own.device)
            added = state.strength * own.norm(dim=-1, keepdim=True) * direction
            changed[row, first:] = (own + added).to(hidden.dtype)
        return changed

    with on_output(target.base.blocks[plants.block], change):
        yield


def concept_directions(lm: LanguageModel, block: int, texts: Mapping[str, Sequence[Sequence[int]]]) -> Plants:
    """A direction for each concept: the mean at the last tokens of its texts, less the mean over all concepts.

    Args:
        lm: The target.
        block: Where.
        texts: Token ids of each concept's texts; the same number for each.
    """
    means = {}
    for concept, rows in texts.items():
        last = [[len(row) - 1] for row in rows]
        means[concept] = torch.stack([v[0, 0].float() for v in capture_vectors(lm, rows, [block], last, BATCH)]).mean(0)
    centre = torch.stack(list(means.values())).mean(0)
    return Plants(block, {concept: _unit(mean - centre) for concept, mean in means.items()})


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()
