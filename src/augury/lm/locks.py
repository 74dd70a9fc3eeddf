"""One thread at a time on a model: adapters and hooks are set on the modules themselves, which all threads share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

_locks: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_making = Lock()


@contextmanager
def alone(model: nn.Module) -> Iterator[None]:
    """Wait until no other thread runs or switches `model`, and keep others out; may be entered again inside."""
    with _making:
        lock = _locks.setdefault(model, RLock())
    with lock:
        yield
