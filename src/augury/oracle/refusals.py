"""What the hub's client raises while an oracle is sent, as refusals that say what to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from augury.errors import AccessError, AuguryError, FormatError, NetworkError, NotFoundError
from augury.lm.hub import UNREACHABLE, causes, first_line, kinds, status_of

log = logging.getLogger(__name__)

LOGIN = "log in with `hf auth login`, or set HF_TOKEN, to a token that may write"


@contextmanager
def talking(repository: str) -> Iterator[None]:
    """Turn what the hub's client raises into refusals that say what to do."""
    try:
        yield
    except AuguryError:
        raise
    except Exception as error:  # the client raises its own, its HTTP library's and the system's errors
        log.debug("the hub refused", exc_info=True)
        raise _refusal(repository, error) from error


def _refusal(repository: str, error: Exception) -> AuguryError:
    status, reason = next(((status_of(cause), cause) for cause in causes(error) if status_of(cause)), (0, error))
    why, found = first_line(reason), kinds(error)
    if status == 401:
        return AccessError("The hub does not take the token.", why, LOGIN)
    if status == 403:
        instead = (
            f"ask the owner of {repository} for the right, take a token that may write, or name another repository"
        )
        return AccessError(f"You may not write to {repository}.", why, instead)
    if status == 404:
        instead = "check the owner's name; a repository that only others see looks the same"
        return NotFoundError(f"There is no {repository} to write to.", why, instead)
    if status in (409, 412):
        why = f"it changed between being looked at and the commit ({why})"
        return NetworkError(f"{repository} was not written.", why, "see what is there, and run it again")
    if status == 400 or "Invalid metadata" in str(error):
        why = " ".join(str(error).split())[:500]
        return FormatError(f"The hub does not take it for {repository}.", why, "mend what it names, and run it again")
    if not status and not found & UNREACHABLE and isinstance(error, FileNotFoundError):
        return NotFoundError("A file went away while it was sent.", why, "run it again; nothing was committed")
    return NetworkError(f"{repository} was not written.", why, "check the network and run it again; commits are whole")
