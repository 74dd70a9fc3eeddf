"""How much of the bench is run: a few minutes, an hour, or all there is."""

from __future__ import annotations

from dataclasses import dataclass

from augury.bench.asks import Ask, asks_of
from augury.bench.item import Item
from augury.bench.task import Task


@dataclass(frozen=True)
class Profile:
    """How much is asked.

    Attributes:
        name: Its name.
        tasks: Which tasks; None: all.
        items: Items of a task, at most; 0: all there are.
        wordings: Wordings of its question, at most.
        sweep: Whether other windows are tried, in the first wording.
        swept: Items that are asked at other windows, at most; 0: all that are asked.
        made: How many items a set is made with, about: probes are trained on more than the oracle is asked about.
        dosed: Items of what is planted, at most, since its figure is by strength; 0: as of any other.
        opened: Items of a task with open answers, at most, each asked in one wording at one window; 0: as of any other.
    """

    name: str
    tasks: tuple[str, ...] | None
    items: int
    wordings: int
    sweep: bool
    made: int = 400
    dosed: int = 0
    opened: int = 0
    swept: int = 0

    def asks(self, task: Task, items: tuple[Item, ...]) -> list[Ask]:
        """What a task asks: every wording at its own window, and the first at the others."""
        few = bool(self.opened) and task.kind == "open"
        dosed = self.dosed if task.tier == "planted state" else 0
        most, wordings = (self.opened, 1) if few else (dosed or self.items, self.wordings)
        counted = [item for item in items if task.where(item)]
        chosen = _whole_problems(counted, most) if most else counted
        others = [window for window in task.sweep if window != task.window] if self.sweep and not few else []
        swept = _whole_problems(chosen, self.swept) if self.swept else chosen
        return [*asks_of(task, chosen, [task.window], wordings), *asks_of(task, swept, others, 1)]


def _whole_problems(items: list[Item], most: int) -> list[Item]:
    """The first items, cut where a problem ends: what asks both ways about one text stays together."""
    end = min(most, len(items))
    while 0 < end < len(items) and items[end].problem == items[end - 1].problem:
        end -= 1
    return items[: end or most]


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "quick", ("planted", "same_window", "number_prediction", "missing_info", "future_lens"), 80, 1, False, 80
        ),
        Profile("core", None, 120, 3, sweep=True, dosed=240, opened=30, swept=48),
        Profile("all", None, 0, 99, sweep=True),
    )
}
