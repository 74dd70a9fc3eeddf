"""Refusals that only a service makes; all others are those of the oracle that it serves."""

from __future__ import annotations

import logging

from augury.errors import AccessError, AuguryError, out_of_memory

log = logging.getLogger(__name__)


class BusyError(AuguryError, ConnectionError):
    """The service has no room or no time now, and may have later.

    Args:
        what: What was refused, in one sentence.
        why: The reason, with the values involved.
        instead: What the caller can do.
        after: In how many seconds it may be worth to try again.
    """

    code = "busy"

    def __init__(self, what: str, why: str, instead: str, after: float = 1.0) -> None:
        super().__init__(what, why, instead)
        self.after = after


class LateError(AuguryError, TimeoutError):
    """A request that took longer than it may."""

    code = "late"


class StoppedError(AuguryError, ConnectionError):
    """The service is stopping, or the request was taken back."""

    code = "stopped"


class FullError(AuguryError, MemoryError):
    """The memory does not suffice for what was asked."""

    code = "memory"


class FailedError(AuguryError, RuntimeError):
    """Something that nobody foresaw; what it was stands in the service's own log, and is not told."""

    code = "failed"


def foreseen(error: BaseException) -> AuguryError:
    """What may be told of an error."""
    if isinstance(error, AuguryError):
        return error
    if out_of_memory(error):
        return FullError("The memory does not suffice.", "the request needs more than there is", "ask for less at once")
    log.error("a request failed", exc_info=error)
    return FailedError("The request failed.", "something went wrong inside", "ask again, and tell who runs the service")


def unknown_caller() -> AccessError:
    """One refusal for every way of not being known: no token, a wrong one, one in the wrong place."""
    why = "no known token was sent"
    return AccessError("This service needs a token.", why, "send it as the header `Authorization: Bearer TOKEN`")
