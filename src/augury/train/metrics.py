"""`metrics.jsonl`: one line a step, appended as the steps are done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augury.errors import FormatError
from augury.files import storing, write_text
from augury.train.ranks import ALONE, Ranks

CURVE = "curve.jsonl"


@dataclass(frozen=True)
class StepReport:
    """What one step did. `losses` holds the mean of `example_losses` over each source, in nats."""

    step: int
    steps: int
    examples: int
    tokens: int
    seconds: float
    learning_rate: float
    loss: float
    losses: dict[str, float]


class Metrics:
    """The file of a run, open for writing inside `with`; lines of steps that a resumed run does again are cut off.

    Of several processes only the first one writes.
    """

    def __init__(self, run: Path, first: int, ranks: Ranks = ALONE) -> None:
        self.path, self.first, self.ranks = run / "metrics.jsonl", first, ranks

    def __enter__(self) -> Metrics:
        if not self.ranks.first:
            return self
        write_text(self.path, "".join(f"{line}\n" for line in _lines(self.path)[: self.first]))
        with storing(self.path):
            self.file = self.path.open("a", encoding="utf-8")
        return self

    def write(self, report: StepReport) -> None:
        """Append a step.

        Raises:
            StorageError: The disk is full.
        """
        if not self.ranks.first:
            return
        with storing(self.path):
            self.file.write(json.dumps(report.__dict__) + "\n")
            self.file.flush()

    def __exit__(self, *_: object) -> None:
        if not self.ranks.first:
            return
        with suppress(OSError):  # every line was flushed: what fails here has been told
            self.file.close()


def read_metrics(run: Path) -> Sequence[StepReport]:
    """The steps that a run has done, without a torn last line.

    Raises:
        FormatError: A line is no step.
    """
    path = run / "metrics.jsonl"
    try:
        return [StepReport(**json.loads(line)) for line in _lines(path)]
    except (ValueError, TypeError) as error:
        raise FormatError(f"{path} cannot be read.", str(error), "restore it from where it came") from error


def read_curve(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's curve, each with its step.

    Raises:
        FormatError: The file is broken.
    """
    path = run / CURVE
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise FormatError(f"{path} cannot be read.", str(error), "remove it: the run goes on without") from error


def _lines(path: Path) -> list[str]:
    """Whole lines: what stands behind the last newline was torn when a process ended."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()
