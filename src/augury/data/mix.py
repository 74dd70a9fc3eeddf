"""Which examples a run sees, and when: a function of the seed and the example's number alone."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from augury.data.sources.base import Settings, draw

KEPT = 0.1  # of an earlier source's share: below, what it taught is forgotten (Bauer et al. 2026)


class Stage(Settings):
    """Shares of the sources that hold until a share of the run's examples.

    Attributes:
        until: Where it ends; the last one ends at 1.
        weights: Share of each source among the examples.
        forget: Whether it may keep less than a tenth of what an earlier stage gave a source.
    """

    until: float = Field(gt=0, le=1)
    weights: dict[str, float] = Field(min_length=1)
    forget: bool = False

    @field_validator("weights")
    @classmethod
    def _some(cls, value: dict[str, float]) -> dict[str, float]:
        if min(value.values()) < 0 or not sum(value.values()):
            raise ValueError("weights must be >= 0 and not all 0")
        return value

    def share(self, source: str) -> float:
        """The source's share of this stage's examples."""
        return self.weights.get(source, 0.0) / sum(self.weights.values())


def check_stages(stages: Sequence[Stage], sources: Sequence[str]) -> None:
    """ValueError where the stages do not cover the run, name a source that there is not, or forget one unsaid."""
    ends = [stage.until for stage in stages]
    if not ends or ends != sorted(set(ends)) or ends[-1] != 1:
        raise ValueError(f"`until` must rise and end at 1, not {ends}")
    seen: dict[str, float] = {}
    for number, stage in enumerate(stages, 1):
        if unknown := sorted(stage.weights.keys() - set(sources)):
            raise ValueError(f"stage {number} weighs {', '.join(unknown)}; the sources are {', '.join(sources)}")
        for source, before in seen.items():
            if stage.share(source) < KEPT * before - 1e-9 and not stage.forget:
                raise ValueError(
                    f"stage {number} gives {source} {stage.share(source):.1%} of its examples, after {before:.1%}: "
                    "below a tenth it is forgotten; weigh it more, or say `forget: true` in the stage"
                )
        seen = {source: max(seen.get(source, 0), stage.share(source)) for source in (*seen, *stage.weights)}


def stage_at(stages: Sequence[Stage], share: float) -> Stage:
    """The stage in force when `share` of the examples has been seen."""
    return next((stage for stage in stages if share < stage.until), stages[-1])


def expected(stages: Sequence[Stage], examples: int) -> dict[str, int]:
    """How many examples a run draws from each source, about."""
    found: dict[str, float] = {}
    begin = 0.0
    for stage in stages:
        for source in stage.weights:
            found[source] = found.get(source, 0) + (stage.until - begin) * examples * stage.share(source)
        begin = stage.until
    return {source: math.ceil(count - 1e-9) for source, count in found.items()}


class Order:
    """The run's examples, a pool at a time, as places in the sources' tables.

    Each source is gone through in a random order, each unit once before any twice; units stay together.

    Args:
        stages: Shares over the run.
        units: For each source the unit of each of its rows, rising.
        pool: Examples in a pool.
        total: Examples in the run.
        seed: Of all draws.
    """

    def __init__(
        self, stages: Sequence[Stage], units: Mapping[str, NDArray[np.int64]], pool: int, total: int, seed: int
    ) -> None:
        self._stages, self._pool, self._total, self._seed = stages, pool, total, seed
        self._starts = {name: _starts(rows) for name, rows in units.items()}
        self._mean = {name: (starts[-1] / max(1, len(starts) - 1)) for name, starts in self._starts.items()}
        self._turn: dict[tuple[str, int], NDArray[np.int64]] = {}
        self._next, self._drawn = 0, dict.fromkeys(units, 0)

    def pool(self, number: int) -> list[tuple[str, int]]:
        """(source, row) of every example of a pool; a pair at its end may be cut."""
        if number < self._next:
            self._next, self._drawn = 0, dict.fromkeys(self._drawn, 0)
        found: list[tuple[str, int]] = []
        while self._next <= number:
            found = self._draw(self._next)
            self._next += 1
        return found

    def _draw(self, number: int) -> list[tuple[str, int]]:
        rng = random.Random(f"{self._seed}:pool:{number}")
        found: list[tuple[str, int]] = []
        while len(found) < self._pool:
            stage = stage_at(self._stages, (number * self._pool + len(found)) / self._total)
            weights = {name: weight / self._mean[name] for name, weight in stage.weights.items() if weight}
            name = draw(weights, rng)
            found.extend((name, row) for row in self._take(name))
        return found[: self._pool]

    def _take(self, name: str) -> range:
        """The rows of the source's next unit."""
        starts = self._starts[name]
        epoch, place = divmod(self._drawn[name], len(starts) - 1)
        self._drawn[name] += 1
        unit = self._order(name, epoch)[place]
        return range(starts[unit], starts[unit + 1])

    def _order(self, name: str, epoch: int) -> NDArray[np.int64]:
        if (name, epoch) not in self._turn:
            self._turn.pop((name, epoch - 1), None)
            seed = random.Random(f"{self._seed}:{name}:{epoch}").getrandbits(63)
            self._turn[name, epoch] = np.random.default_rng(seed).permutation(len(self._starts[name]) - 1)
        return self._turn[name, epoch]


def _starts(units: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each unit's rows begin, and the number of rows behind them."""
    edges = np.flatnonzero(np.diff(units)) + 1
    return np.concatenate([[0], edges, [len(units)]]).astype(np.int64)
