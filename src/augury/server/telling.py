"""What jobs are told while they run, and how it reaches who waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from augury.lm import LanguageModel
from augury.server.events import ProgressEvent, TextEvent, WrittenEvent
from augury.server.queue import Job
from augury.server.shown import so_far

Part = tuple[str, Any]


def check(jobs: Sequence[Job]) -> None:
    """End a run that nobody waits for any more.

    Raises:
        StoppedError: The callers have gone.
        LateError: Their time is over.
    """
    now = time.monotonic()
    over = [job.over(now) for job in jobs]
    if all(over) and over[0] is not None:
        raise over[0]


@dataclass(frozen=True, eq=False)
class Texts:
    """Tells jobs that run together what has been written so far of each one's answers, where they ask for it.

    Called with the token ids by number, counted through all jobs. A job whose caller has gone is told nothing, and the
    run goes on for the others.

    Attributes:
        jobs: Each with `questions` and `stream` in its work.
        lm: For decoding.
    """

    jobs: Sequence[Job]
    lm: LanguageModel
    _owners: list[tuple[Job, int]] = field(default_factory=list)
    _lengths: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._owners.extend((job, number) for job in self.jobs for number in range(len(job.work.questions)))

    def __call__(self, found: Mapping[int, Sequence[Sequence[int]]]) -> None:
        check(self.jobs)
        for i, texts in found.items():
            job, number = self._owners[i]
            if not job.work.stream or job.gone.is_set():
                continue
            length = sum(map(len, texts))
            if self._lengths.get(i) != length:
                self._lengths[i] = length
                written = tuple(so_far(self.lm, ids).strip() for ids in texts)
                job.tell("text", TextEvent(number=number, texts=written))


@dataclass(frozen=True, eq=False)
class Mail:
    """Parts on their way from the engine's thread to who waits.

    What only says how far it is takes the place of what says the same of before and has not been read: who reads slowly
    fills no memory.
    """

    loop: asyncio.AbstractEventLoop
    _parts: dict[Any, Part] = field(default_factory=dict)
    _there: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, what: str, value: Any) -> None:
        """Put a part in, from any thread."""
        self.loop.call_soon_threadsafe(self._put, what, value)

    def _put(self, what: str, value: Any) -> None:
        key: Any = what if isinstance(value, WrittenEvent) else object()
        if isinstance(value, TextEvent | ProgressEvent):
            key = what, value.number
        self._parts[key] = what, value
        self._there.set()

    async def get(self) -> Part:
        """The next part."""
        while not self._parts:
            self._there.clear()
            await self._there.wait()
        return self._parts.pop(next(iter(self._parts)))
