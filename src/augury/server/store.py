"""Activations that callers left here: bounded, with an end, and each its owner's alone."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock

from augury.activations import Activations
from augury.errors import NotFoundError
from augury.server.limits import MIB, Limits
from augury.server.refused import BusyError

HANDLE_BYTES = 24
OVERHEAD = 4096  # bytes that each takes beside its tensors and its context


@dataclass(frozen=True, eq=False)
class Kept:
    """Activations under a handle.

    Attributes:
        owner: Whose they are.
        activations: They.
        size: In bytes.
        until: When they go, on the store's clock.
    """

    owner: str
    activations: Activations
    size: int
    until: float


@dataclass
class Store:
    """Where they are kept.

    A handle is looked up together with who asks, by one hash of both: another caller's, one that has ended and one that
    never was are the same to it, in what is told and in the time that it takes.

    Attributes:
        limits: `caller_bytes`, `store_bytes` and `kept_seconds` of it.
        clock: Seconds, never falling.
    """

    limits: Limits
    clock: Callable[[], float] = time.monotonic
    _kept: dict[bytes, Kept] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def put(self, owner: str, activations: Activations) -> str:
        """Keep them; the handle that gives them back.

        Raises:
            BusyError: There is no room now, for this caller or at all.
        """
        size, now = bytes_of(activations), self.clock()
        with self._lock:
            self._forget(now)
            mine = [kept for kept in self._kept.values() if kept.owner == owner]
            self._room(mine, size, self.limits.caller_bytes, "your", now)
            self._room(list(self._kept.values()), size, self.limits.store_bytes, "the service's", now)
            handle = secrets.token_urlsafe(HANDLE_BYTES)
            self._kept[_key(owner, handle)] = Kept(owner, activations, size, now + self.limits.kept_seconds)
        return handle

    def _room(self, there: list[Kept], size: int, most: int, whose: str, now: float) -> None:
        used = sum(kept.size for kept in there)
        if used + size <= most:
            return
        if size > most:
            why = f"they take {size / MIB:.1f} MiB, and {whose} room is {most / MIB:.1f}"
            raise BusyError("These activations are too many to keep.", why, "read fewer positions or layers", 3600.0)
        wait = min((kept.until for kept in there), default=now) - now
        why = f"{used / MIB:.1f} MiB of {whose} {most / MIB:.1f} are in use, and these take {size / MIB:.1f}"
        raise BusyError("There is no room for more activations.", why, "delete a handle, or wait for one to end", wait)

    def get(self, owner: str, handle: str) -> Activations:
        """What is kept under it; it lives on from now.

        Raises:
            NotFoundError: Nothing of this caller's is.
        """
        key, now = _key(owner, handle), self.clock()
        with self._lock:
            self._forget(now)
            found = self._kept.get(key)
            if found is None:
                raise unknown_handle()
            self._kept[key] = replace(found, until=now + self.limits.kept_seconds)
            return found.activations

    def drop(self, owner: str, handle: str) -> None:
        """Forget it.

        Raises:
            NotFoundError: Nothing of this caller's is kept under it.
        """
        with self._lock:
            self._forget(self.clock())
            if self._kept.pop(_key(owner, handle), None) is None:
                raise unknown_handle()

    @property
    def size(self) -> int:
        """Bytes that are in use."""
        with self._lock:
            self._forget(self.clock())
            return sum(kept.size for kept in self._kept.values())

    def __len__(self) -> int:
        with self._lock:
            self._forget(self.clock())
            return len(self._kept)

    def _forget(self, now: float) -> None:
        for key in [key for key, kept in self._kept.items() if kept.until <= now]:
            del self._kept[key]


def bytes_of(activations: Activations) -> int:
    """What they take in memory: vectors, norms, and the context with its turns."""
    tensors = [activations.vectors, *([] if activations.base_norms is None else [activations.base_norms])]
    context = activations.transcript
    told = 0 if context is None else 8 * len(context) + sum(len(turn.content) for turn in context.messages)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + told + OVERHEAD


def unknown_handle() -> NotFoundError:
    """One refusal for a handle that never was, has ended, or is another caller's."""
    why = "you have none of this name, or it has ended"
    return NotFoundError("There are no activations under this handle.", why, "capture them again")


def _key(owner: str, handle: str) -> bytes:
    return hashlib.sha256(f"{len(owner)}:{owner}{handle}".encode()).digest()
