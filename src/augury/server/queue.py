"""What waits for the engine: bounded, fair between callers, and taken in batches of what can be run together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from threading import Condition, Event
from typing import Any

from augury.server.refused import BusyError, LateError, StoppedError

Told = Callable[[str, Any], None]
ALONE = None  # the key of what is run by itself


@dataclass(eq=False)
class Job:
    """One request to the model.

    Attributes:
        caller: Whose it is.
        key: Jobs with equal keys may be run together; `ALONE`: by itself.
        work: What is to be done.
        tell: Called on the engine's thread with (what, value) as parts of the answer come: whatever the work gives, and
            at the end once `done`, or `error` with an exception.
        until: When it must have ended, on the queue's clock.
        gone: Set when nobody waits for it any more.
    """

    caller: str
    key: Hashable
    work: Any
    tell: Told
    until: float
    gone: Event = field(default_factory=Event)

    def over(self, now: float) -> Exception | None:
        """Why it need not be run; None: it must."""
        if self.gone.is_set():
            return StoppedError("The request was taken back.", "its caller has gone", "ask again")
        if now >= self.until:
            why = "its time was over before its turn came"
            return LateError("The request took too long.", why, "ask for less at once, or when there is less to do")
        return None


@dataclass
class Queue:
    """Jobs in the order of their callers: each gets a turn, and within one caller the first comes first.

    Attributes:
        most: Jobs that wait, at most.
        clock: Seconds, never falling.
    """

    most: int
    clock: Callable[[], float] = time.monotonic
    _waiting: dict[str, deque[Job]] = field(default_factory=dict)
    _changed: Condition = field(default_factory=Condition)
    _closed: bool = False

    def put(self, job: Job) -> None:
        """Let it wait.

        Raises:
            BusyError: Too many are waiting.
            StoppedError: The queue is closed.
        """
        with self._changed:
            if self._closed:
                raise stopping()
            count = sum(map(len, self._waiting.values()))
            if count >= self.most:
                count -= self._sweep()
            if count >= self.most:
                why = f"{count} requests are waiting, and {self.most} may"
                raise BusyError("The service has too much to do.", why, "try again in a few seconds", 2.0)
            self._waiting.setdefault(job.caller, deque()).append(job)
            self._changed.notify()

    def _sweep(self) -> int:
        """Drop what nobody waits for any more; how many."""
        now, dropped = self.clock(), 0
        for caller, own in list(self._waiting.items()):
            left = deque(job for job in own if job.over(now) is None)
            dropped += len(own) - len(left)
            if left:
                self._waiting[caller] = left
            else:
                del self._waiting[caller]
        return dropped

    def again(self, job: Job) -> None:
        """Let a job that has been begun wait for its next part, ahead of what its caller asked later."""
        with self._changed:
            self._waiting.setdefault(job.caller, deque()).appendleft(job)
            self._changed.notify()

    def take(self, most: int, timeout: float | None = None) -> list[Job]:
        """The next job and what can be run with it; none where none comes in time, or the queue is closed and empty.

        The next is the first of the caller whose turn it is. With it go others of its key, one of each caller in turn,
        so that a caller who asks much fills a batch only after the others.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._waiting), timeout)
            if not self._waiting:
                return []
            caller = next(iter(self._waiting))
            first = self._waiting[caller].popleft()
            self._turn(caller)
            found = [first]
            while first.key is not ALONE and len(found) < most:
                more = self._round(first.key, most - len(found))
                if not more:
                    break
                found += more
            return found

    def _round(self, key: Hashable, most: int) -> list[Job]:
        """One job of this key of each caller who has one."""
        found = []
        for caller in list(self._waiting):
            if len(found) == most:
                break
            own = self._waiting[caller]
            job = next((job for job in own if job.key == key), None)
            if job is not None:
                own.remove(job)
                found.append(job)
                self._turn(caller)
        return found

    def _turn(self, caller: str) -> None:
        """Who was served goes to the end, or home."""
        own = self._waiting.pop(caller)
        if own:
            self._waiting[caller] = own

    def close(self) -> None:
        """Take nothing in any more; what waits is still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether it takes nothing in any more."""
        return self._closed

    def clear(self) -> Iterator[Job]:
        """Everything that waits, taken out."""
        with self._changed:
            left = [job for own in self._waiting.values() for job in own]
            self._waiting.clear()
            self._changed.notify_all()
        yield from left

    def __len__(self) -> int:
        with self._changed:
            return sum(map(len, self._waiting.values()))


def stopping() -> StoppedError:
    """The service takes nothing in any more."""
    return StoppedError("The service is stopping.", "it was told to", "ask again when it has been started again")
