"""What one caller may ask for, how often, and how much at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from augury.server.refused import BusyError

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """The bounds of a service. All of them are of one caller but `queued` and `store_bytes`.

    Attributes:
        per_minute: Requests, on average.
        burst: Requests at once, out of what was saved.
        at_once: Requests that are under way.
        context_tokens: Of a context.
        questions: In one request.
        samples: Of one question.
        new_tokens: Of an answer, or of a continuation.
        body_bytes: Of a request that is no upload.
        upload_bytes: Of an upload.
        caller_bytes: Of activations that are kept.
        store_bytes: Of all callers' activations.
        kept_seconds: How long a handle lives after it was last used.
        queued: Requests that wait, of all callers.
        seconds: How long a request may take, waiting included.
    """

    per_minute: float = 240.0
    burst: int = 60
    at_once: int = 8
    context_tokens: int = 8192
    questions: int = 32
    samples: int = 32
    new_tokens: int = 512
    body_bytes: int = 2 * MIB
    upload_bytes: int = 64 * MIB
    caller_bytes: int = 256 * MIB
    store_bytes: int = 1024 * MIB
    kept_seconds: float = 3600.0
    queued: int = 128
    seconds: float = 300.0


@dataclass
class _Caller:
    saved: float
    since: float
    running: int = 0


@dataclass
class Gate:
    """Lets callers in at the rate, and in the number, that the limits allow.

    Callers are the names of tokens, so there are as many as tokens, and nothing grows.

    Attributes:
        limits: The bounds.
        clock: Seconds, never falling.
    """

    limits: Limits
    clock: Callable[[], float] = time.monotonic
    _callers: dict[str, _Caller] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def through(self, caller: str) -> Iterator[None]:
        """One request of a caller, while it is under way.

        Raises:
            BusyError: Too many of its requests are under way, or came in too short a time.
        """
        self._enter(caller)
        try:
            yield
        finally:
            with self._lock:
                self._callers[caller].running -= 1

    def _enter(self, caller: str) -> None:
        limits, now = self.limits, self.clock()
        with self._lock:
            own = self._callers.setdefault(caller, _Caller(limits.burst, now))
            own.saved = min(limits.burst, own.saved + (now - own.since) * limits.per_minute / 60)
            own.since = now
            if own.running >= limits.at_once:
                why = f"{own.running} of your requests are under way, and {limits.at_once} may be"
                raise BusyError("There are too many requests at once.", why, "wait for one of them to end", 1.0)
            if own.saved < 1:
                wait = (1 - own.saved) * 60 / limits.per_minute
                why = f"{limits.per_minute:g} a minute are allowed, {limits.burst} of them at once"
                raise BusyError("There are too many requests.", why, f"try again in {math.ceil(wait)} s", wait)
            own.saved -= 1
            own.running += 1
