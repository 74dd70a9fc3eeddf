"""Bars for long work: one a phase on stderr in a terminal, nothing in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from augury.cli.common import stderr

if TYPE_CHECKING:
    from augury.train.metrics import StepReport

SMOOTHING = 0.97  # of the loss shown: about the last 33 steps


class Bars:
    """One bar a phase, and beside it the smoothed loss of each source in nats per token."""

    def __init__(self, bar: Any) -> None:
        self.bar, self.task, self.named = bar, None, ""
        self.tasks: dict[str, Any] = {}
        self.losses: dict[str, float] = {}

    def phase(self, phase: str, done: int, total: int | None) -> None:
        if phase != self.named:
            self._begin(phase, total)
        self._update(done, total, "")

    def step(self, report: StepReport, phase: str = "training") -> None:
        for source, loss in report.losses.items():
            self.losses[source] = SMOOTHING * self.losses.get(source, loss) + (1 - SMOOTHING) * loss
        if self.named != phase:
            self._begin(phase, report.steps)
        self._update(report.step, report.steps, "  ".join(f"{name} {loss:.2f}" for name, loss in self.losses.items()))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def _begin(self, phase: str, total: int | None) -> None:
        self.named = phase
        if self.bar is not None:
            if phase not in self.tasks:  # one that comes again goes on with its bar
                self.tasks[phase] = self.bar.add_task(phase, total=total, losses="")
            self.task = self.tasks[phase]

    def _update(self, done: int, total: int | None, losses: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, losses=losses)


@contextmanager
def shown_bars(first: bool = True) -> Iterator[Bars]:
    """Bars on stderr in a terminal, nothing in a pipe, and of several processes only the first one's."""
    console = stderr()
    if not console.is_terminal or not first:
        yield Bars(None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[losses]}"), console=console) as bar:
        yield Bars(bar)
