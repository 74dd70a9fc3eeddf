"""One yes/no question at every position of a reading; done in pieces, so that others may have their turn between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING, Any

from augury.errors import InputError
from augury.oracle.answers import Scan, Unavailable
from augury.oracle.asking import split_notes
from augury.oracle.choices import YES_NO, Spelled, Weighed, choice_logprobs, prefixed, spell, weigh
from augury.oracle.controls import Item
from augury.oracle.passes import Runner
from augury.oracle.reading import Read, decoded
from augury.oracle.scoring import donor_logprobs

if TYPE_CHECKING:
    from augury.oracle.oracle import Oracle


@dataclass(eq=False)
class Scanning:
    """A scan that is under way.

    Attributes:
        oracle: Who answers.
        read: What is read.
        question: As it goes into the prompts.
        runner: How.
        spelled: Yes and No.
        window: How many positions each score reads: its own and those left of it.
        donors: How many donors give the median; 0: raw margins.
        items: One for each position.
        found: What the first of them gave.
    """

    oracle: Oracle
    read: Read
    question: str
    runner: Runner
    spelled: Spelled
    window: int
    donors: int
    items: list[Item]
    found: list[Weighed] = field(default_factory=list)

    @classmethod
    def of(
        cls, oracle: Oracle, read: Read, question: str, runner: Runner, *, window: int = 1, donors: int = 0
    ) -> Scanning:
        """A scan of a reading, before its first position.

        Raises:
            InputError: The window cannot be used, or a prompt is too long for the model.
        """
        if isinstance(window, bool) or window < 1:
            raise InputError("The window cannot be used.", f"it is {window!r}", "pass 1 or more positions")
        spelled = spell(oracle.base, oracle.contract, YES_NO)
        asked = prefixed(oracle.contract, question, YES_NO)
        items = _windows(oracle, read, asked, window)
        oracle.check_fits(items, spelled.new_tokens)
        return cls(oracle, read, asked, runner, spelled, window, donors, items)

    @property
    def left(self) -> int:
        """Positions that have no score yet."""
        return len(self.items) - len(self.found)

    def go_on(self, most: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Score so many positions more; `progress` is called with (positions done, positions in all)."""
        begun = seen = len(self.found)

        def done(count: int) -> None:
            nonlocal seen
            seen += count
            if progress is not None:
                progress(seen, len(self.items))

        rows = [item.row for item in self.items[begun : begun + most]]
        self.found += [weigh(row) for row in choice_logprobs(self.runner, rows, self.spelled, done)]

    def scan(self) -> Scan:
        """The whole of it, once nothing is left."""
        assert not self.left
        medians = {len(item.acts): item for item in self.items}
        median = {n: self._median(item) for n, item in medians.items()}
        # One map has one scale: where a window of any length has no donors, every value is a raw margin.
        known = {n: value for n, value in median.items() if value is not None}
        compared = len(known) == len(median)
        pairs = zip(self.found, self.items, strict=True)
        values = [weighed.margin - (known[len(item.acts)] if compared else 0.0) for weighed, item in pairs]
        warned, noted = self._remarks(compared)
        return Scan(
            question=self.question,
            choices=self.spelled.choices,
            token_texts=_token_texts(self.oracle, self.read),
            margins=tuple(weighed.margin for weighed in self.found),
            masses=tuple(weighed.mass for weighed in self.found),
            values=tuple(values),
            donor_median=median[len(self.items[-1].acts)] if compared else None,
            window=self.window,
            source=self.oracle.source_of(self.read.acts, self.runner),
            warnings=warned,
            notes=noted,
        )

    def _remarks(self, compared: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        warned, noted = split_notes(self.read.notes)
        low = sum(weighed.warning is not None for weighed in self.found)
        if low:
            text = f"at {low} of {len(self.items)} positions Yes and No have less than half of the probability"
            warned = (*warned, text)
        if not compared:
            noted = (*noted, "not checked: the donors' median (raw margins are shown)")
        return warned, noted

    def _median(self, item: Item) -> float | None:
        if not self.donors:
            return None
        found = donor_logprobs(self.oracle, item, self.runner, self.spelled, self.donors)
        return None if isinstance(found, Unavailable) else median_low([weigh(row).margin for row in found])


def _windows(oracle: Oracle, read: Read, question: str, window: int) -> list[Item]:
    """One item per position; the first ones have fewer activations than `window`, never any from their right."""
    order = sorted(range(len(read.acts)), key=lambda i: read.acts.positions[i])
    place = {i: rank for rank, i in enumerate(order)}
    items = []
    for i in range(len(read.acts)):
        wanted = order[max(0, place[i] - window + 1) : place[i] + 1]
        items.append(oracle.item(Read(read.acts[wanted], ()), question))
    return items


def _token_texts(oracle: Oracle, read: Read) -> tuple[str, ...]:
    ids: Any = read.acts.token_ids
    if not ids:
        return tuple(f"#{position}" for position in read.acts.positions)
    return tuple(decoded(oracle.base, [token], special=True) for token in ids)
