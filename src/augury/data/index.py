"""What sources look for in a set of contexts, found in one pass: they then draw numbers and look up few contexts."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from augury.data.example import Context

Numbers = NDArray[np.int64]


class Indexed(Sequence[Context]):
    """A set of contexts of one split, with the lengths of their last parts and the labels that they have.

    Args:
        contexts: All of them, in order of their numbers.
    """

    def __init__(self, contexts: Sequence[Context]) -> None:
        self._contexts = contexts

    def __len__(self) -> int:
        return len(self._contexts)

    def __getitem__(self, number):  # type: ignore[no-untyped-def, override]
        return self._contexts[number]

    def at_least(self, tokens: int) -> Numbers:
        """The contexts whose last part has this many tokens."""
        return np.flatnonzero(self._found[0] >= tokens)

    def having(self, label: str) -> Numbers:
        """The contexts that have a label."""
        return self._found[1].get(label, np.empty(0, dtype=np.int64))

    @cached_property
    def _found(self) -> tuple[Numbers, dict[str, Numbers]]:
        lengths = np.zeros(len(self), dtype=np.int64)
        having: dict[str, array[int]] = defaultdict(lambda: array("q"))
        for number, context in enumerate(self._contexts):
            start, stop = context.body
            lengths[number] = stop - start
            for label in context.labels:
                having[label].append(number)
        return lengths, {label: np.array(numbers, dtype=np.int64) for label, numbers in having.items()}
