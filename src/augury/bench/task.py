"""Tasks: what is asked about a set of items, and how an answer is scored. All else is common to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from augury.bench.item import Item, ItemSet
from augury.errors import InputError
from augury.lm import LanguageModel

Kind = Literal["yes_no", "choice", "letter", "number", "word", "tokens", "open"]
Tier = Literal["same window", "held in the weights", "planted state"]
ALL_POSITIONS = 0
YES, NO = "Yes", "No"


def every(item: Item) -> bool:
    """The default of `Task.where`."""
    return True


@dataclass(frozen=True)
class Task:
    """One task.

    What is true stands in an item's facts: `truth` (`Yes` or `No`; a choice; a word, with others that are as good in
    `also`, separated by `|`), `model_answer` and `true_answer` (numbers and letters), `tokens` (ids, separated by
    spaces), `reference` (for a judge), `pair` (what two items have in common whose answers a judge compares).

    Attributes:
        name: Its name.
        about: What it asks, in a line.
        items: The set of items that it asks about.
        kind: What is answered: `yes_no`, `choice` and `letter` are scored, not generated; `number`, `word` and `open`
            are decoded; `tokens` are the context's own, teacher-forced. `letter` and `number` count where the model is
            wrong; `open` answers are judged.
        questions: Its wordings; `{name}` is filled in from an item's facts.
        window: How many positions are read; 0: all of an item's.
        sweep: Other windows that are tried.
        where: Which of the items count.
        choices: Of kind `choice`, where items have none of their own.
        truth: The fact that holds what is true.
        stratum: A fact: yes and no are compared only among items that agree in it (and in the wording).
        new_tokens: The longest answer that is decoded.
        rubric: How a judge looks at open answers (see `augury.bench.rubrics`).
        samples: How often the oracle's short answer is sampled beside, for the calibration of its agreement.
        tier: Of read-or-infer; None elsewhere.
        aggregate: The name of the AObench task that it stands for in the aggregate; None: in none.
    """

    name: str
    about: str
    items: str
    kind: Kind
    questions: tuple[str, ...]
    window: int = 10
    sweep: tuple[int, ...] = ()
    where: Callable[[Item], bool] = every
    choices: tuple[str, ...] = ()
    truth: str = "truth"
    stratum: str | None = None
    new_tokens: int = 12
    rubric: str | None = None
    samples: int = 0
    tier: Tier | None = None
    aggregate: str | None = None

    def question(self, item: Item, wording: int) -> str:
        """A wording, filled in."""
        return self.questions[wording].format_map(item.facts)

    def choices_of(self, item: Item) -> tuple[str, ...]:
        """What may be answered."""
        return (YES, NO) if self.kind == "yes_no" else item.choices or self.choices


def fitted(task: Task, most: int | None) -> Task:
    """The task at a window that the oracle was trained to read; its own window is tried beside where it is wider.

    Args:
        task: Whose own window may be wider.
        most: The most positions that the oracle was trained on; None: not known.
    """
    if most is None or task.window <= most:
        return task
    return replace(task, window=most, sweep=tuple(dict.fromkeys((*task.sweep, task.window))))


def trained_window(contract: Mapping[str, Any]) -> int | None:
    """The most positions that an oracle was trained to read, at the layers that it is asked at; None: not known."""
    slots = (contract.get("positions") or {}).get("max_slots")
    return max(1, slots // len((contract.get("layers") or [[0]])[0])) if slots else None


class NotMeasurable(Exception):
    """A set of items that cannot be made for a model: why, and what was counted."""

    def __init__(self, why: str, **counts: int) -> None:
        super().__init__(why)
        self.why, self.counts = why, counts


@dataclass(frozen=True)
class Build:
    """What a builder of items is given.

    Attributes:
        lm: The target.
        size: About how many items are wanted.
        seed: Of all draws.
        counts: What the builder counted, by name, for the manifest; it writes here.
        organisms: The folder of the target's organisms, where there is one.
        told: Called with (done, of how many).
    """

    lm: LanguageModel
    size: int = 200
    seed: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    organisms: Path | None = None
    told: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class Items:
    """A set of items: how it is made for a model, and how published ones are read.

    Attributes:
        name: The set's name.
        origin: Where its texts come from.
        licence: Theirs.
        build: Makes it for a model; the package owns the texts.
        load: Reads published items from a folder of the user's; None where there are none.
        least: Fewer items of either answer than this measure nothing.
    """

    name: str
    origin: str
    licence: str
    build: Callable[[Build], Iterable[Item]]
    load: Callable[[Build, Path], ItemSet] | None = None
    least: int = 30


@dataclass(frozen=True)
class Registry:
    """Tasks and the sets of items that they ask about, by name."""

    tasks: dict[str, Task] = field(default_factory=dict)
    items: dict[str, Items] = field(default_factory=dict)

    def add(self, *entries: Task | Items) -> None:
        """Make known.

        Raises:
            InputError: The name is taken.
        """
        for entry in entries:
            room: dict[str, Any] = self.tasks if isinstance(entry, Task) else self.items
            if entry.name in room:
                raise InputError(f"There is a {entry.name} already.", "names are unique", "choose another name")
            room[entry.name] = entry

    def chosen(self, names: Iterable[str]) -> Iterator[Task]:
        """The tasks of these names, in the order of the registry.

        Raises:
            InputError: There is no such task.
        """
        wanted = list(names)
        for name in wanted:
            _check("task", name, self.tasks)
        return (task for name, task in self.tasks.items() if name in wanted)

    def items_of(self, name: str) -> Items:
        """A set of items, by its own name or a task's.

        Raises:
            InputError: There is none of this name.
        """
        if name not in self.items and name in self.tasks:
            return self.items[self.tasks[name].items]
        _check("set of items", name, self.items)
        return self.items[name]


def _check(what: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name in names:
        return
    close = get_close_matches(name, names, 1)
    why = f"did you mean {close[0]}?" if close else f"they are {', '.join(names)}"
    raise InputError(f"There is no {what} {name!r}.", why, "see `augury bench tasks`")


REGISTRY = Registry()
