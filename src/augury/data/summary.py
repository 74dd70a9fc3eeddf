"""A data set in figures: what is in it, how long it is, and who wrote the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augury.data.bank import Split
from augury.data.example import Example
from augury.data.opened import DataSet
from augury.data.store import Table


@dataclass(frozen=True)
class Spread:
    """The least, the median and the most of some lengths."""

    least: int
    median: float
    most: int

    @classmethod
    def of(cls, lengths: NDArray[np.int64]) -> Spread:
        """All 0 where there are none."""
        if not len(lengths):
            return cls(0, 0.0, 0)
        return cls(int(lengths.min()), float(np.median(lengths)), int(lengths.max()))

    def __str__(self) -> str:
        return f"{self.least} / {self.median:g} / {self.most}"


@dataclass(frozen=True)
class SetSummary:
    """One set of contexts in one split: how many there are, and their tokens."""

    name: str
    split: Split
    contexts: int
    tokens: int
    lengths: Spread


@dataclass(frozen=True)
class SourceSummary:
    """One source's examples.

    Attributes:
        name: The source.
        train: Training examples.
        heldout: Held-out examples.
        positions: Read by an example.
        answers: Words of an answer.
        wordings: Different wordings of questions in each split.
        tasks: Examples of each task.
        authors: Share of the answers that each author wrote.
        layers: Share of the examples that read each layer tuple.
    """

    name: str
    train: int
    heldout: int
    positions: Spread
    answers: Spread
    wordings: dict[str, int]
    tasks: dict[str, int]
    authors: dict[str, float]
    layers: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """All sets and all sources."""

    sets: tuple[SetSummary, ...]
    sources: tuple[SourceSummary, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarise(data: DataSet, only: str | None = None) -> Summary:
    """The data set in figures, or of one source alone; columns are read, never whole rows."""
    sets = [
        SetSummary(name, split, len(table), int(lengths.sum()), Spread.of(lengths))
        for (name, split), table in data.contexts.items()
        for lengths in [table.lengths("token_ids")]
    ]
    return Summary(tuple(sets), tuple(_source(data, name) for name in data.sources if only in (None, name)))


def _source(data: DataSet, name: str) -> SourceSummary:
    tables: dict[str, Table[Example]] = {split: table for (own, split), table in data.examples.items() if own == name}
    return SourceSummary(
        name,
        len(tables.get("train", ())),
        len(tables.get("heldout", ())),
        Spread.of(_together(table.lengths("positions") for table in tables.values())),
        Spread.of(_together(table.words("answer") for table in tables.values())),
        {split: len(table.counts("wording")) for split, table in tables.items()},
        _summed(table.counts("task") for table in tables.values()),
        _shares(_summed(table.counts("author") for table in tables.values())),
        _shares(_summed(table.counts("layers") for table in tables.values())),
    )


def _together(parts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _summed(parts: Iterable[Counter[str]]) -> dict[str, int]:
    return dict(sum(parts, Counter()).most_common())


def _shares(counts: dict[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}
