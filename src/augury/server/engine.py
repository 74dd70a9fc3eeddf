"""The one thread that runs the model: what waits is taken in batches, and whatever fails, the next request is right."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from traceback import clear_frames
from typing import Any

from augury.server.queue import Job, Queue, stopping

log = logging.getLogger(__name__)
DONE, ERROR = "done", "error"
_TICK = 0.2  # seconds


@dataclass(frozen=True)
class Outcome:
    """What a step of a job's work gave.

    Attributes:
        parts: (what, value) to tell, in order.
        more: What is left to do, as work of the same job under this key; None: it is done.
    """

    parts: tuple[tuple[str, Any], ...] = ()
    more: tuple[Any, Any] | None = None


Run = Callable[[Sequence[Job]], Sequence[Outcome]]


@dataclass(eq=False)
class Engine:
    """Runs jobs of a queue, on a thread of its own.

    Where a batch fails each of its jobs is run again by itself, so that one bad request fails alone. `run` must leave
    the model as it found it whatever happens, and tell nothing by itself: what it returns is told once.

    Attributes:
        run: Does a batch of jobs of one key, and gives one outcome for each.
        queue: What waits.
        most: Jobs in a batch.
        clock: The queue's.
    """

    run: Run
    queue: Queue
    most: int = 16
    clock: Callable[[], float] = time.monotonic
    batches: int = 0
    jobs: int = 0
    _thread: Thread | None = None
    _told: Event = field(default_factory=Event)
    _running: set[Job] = field(default_factory=set)
    _telling: Lock = field(default_factory=Lock)

    def start(self) -> None:
        """Begin."""
        self._thread = Thread(target=self._loop, name="augury-engine", daemon=True)
        self._thread.start()

    def stop(self, within: float) -> None:
        """Take nothing in any more; what waits is done as far as the time reaches, and the rest is told.

        What is being run then is told as well, and is not waited for. A second call does nothing.

        Args:
            within: Seconds.
        """
        self.queue.close()
        if self._thread is not None and not self._told.is_set():
            self._thread.join(within)
        with self._telling:
            self._told.set()
            left = (*self._running, *self.queue.clear())
            self._running.clear()
        for job in left:
            _tell(job, ERROR, stopping())

    def _loop(self) -> None:
        while not self._told.is_set():
            batch = self.queue.take(self.most, _TICK)
            if batch:
                with self._telling:
                    self._running.update(batch)
                self._serve(batch)
            elif self.queue.closed and not len(self.queue):
                return

    def _serve(self, batch: Sequence[Job]) -> None:
        now, live = self.clock(), []
        for job in batch:
            over = stopping() if self._told.is_set() else job.over(now)
            if over is None:
                live.append(job)
            else:
                self._end(job, Outcome(((ERROR, over),)))
        if live:
            self._do(live)

    def _do(self, jobs: Sequence[Job]) -> None:
        try:
            ends = list(zip(jobs, self.run(jobs), strict=True))
        except BaseException as error:  # the thread must live on, whatever a request brings about
            _let_go(error)
            ends = [(jobs[0], Outcome(((ERROR, error),)))] if len(jobs) == 1 else []
        else:
            self.batches, self.jobs = self.batches + 1, self.jobs + len(jobs)
        for job, outcome in ends:
            self._end(job, outcome)
        if not ends:
            for job in jobs:
                self._serve([job])

    def _end(self, job: Job, outcome: Outcome) -> None:
        """Tell what a step gave, unless the job was told that the service stops."""
        with self._telling:
            if job not in self._running:
                return
            self._running.remove(job)
            for what, value in outcome.parts:
                _tell(job, what, value)
            if outcome.more is not None:
                job.key, job.work = outcome.more
                self.queue.again(job)
            elif not any(what == ERROR for what, _ in outcome.parts):
                _tell(job, DONE, None)


def _let_go(error: BaseException | None) -> None:
    """What failed holds its tensors by its frames, and the next may need their room."""
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _tell(job: Job, what: str, value: Any) -> None:
    """Tell who waits; if that is broken it is the waiting side's fault, and not the other callers'."""
    try:
        job.tell(what, value)
    except Exception:
        log.exception("an answer could not be told")
