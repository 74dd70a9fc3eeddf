"""Every refusal of augury: what happened, why, and what to do instead.

Each class is also the standard error that a caller would expect, so `except ValueError` keeps working, and
carries a `code` that programs can rely on and that the command line prints.
"""

from __future__ import annotations


class AuguryError(Exception):
    """The base of all errors raised on purpose.

    Args:
        what: What was refused or failed, in one sentence.
        why: The reason, with the values involved.
        instead: What the caller can do.
    """

    code = "augury"
    exit_code = 1

    def __init__(self, what: str, why: str, instead: str) -> None:
        super().__init__(what, why, instead)
        self.what, self.why, self.instead = what, why, instead

    def __str__(self) -> str:
        return f"{self.what}\n  why: {self.why}\n  instead: {self.instead}"

    def brief(self) -> str:
        """What and why on one line, for a table or a list."""
        return f"{self.what.rstrip('.')}: {self.why}"

    def as_dict(self) -> dict[str, str]:
        """The error as JSON-ready fields."""
        return {"code": self.code, "what": self.what, "why": self.why, "instead": self.instead}


class InputError(AuguryError, ValueError):
    """What the caller passed cannot be used: an empty question, a selector without a match, a zero vector."""

    code = "input"
    exit_code = 2


class NotFoundError(AuguryError, FileNotFoundError):
    """A model, oracle, file or folder that does not exist."""

    code = "not-found"


class ContractError(AuguryError, ValueError):
    """An oracle and a model, or an oracle and activations, that do not belong together."""

    code = "contract"


class FormatError(AuguryError, ValueError):
    """A file that is not in the form it claims, or in a form that is never read (pickle)."""

    code = "format"


class ModelError(AuguryError, RuntimeError):
    """A model whose structure or behaviour does not allow what was asked."""

    code = "model"


class NetworkError(AuguryError, ConnectionError):
    """Something that must be fetched or sent and could not be."""

    code = "network"


class AccessError(AuguryError, PermissionError):
    """Something that the hub does not let this user do, or that needs a login."""

    code = "access"


class StorageError(AuguryError, OSError):
    """A disk that is full or a folder that cannot be written."""

    code = "storage"


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that the memory, a GPU's or the machine's, does not suffice."""
    told = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in told
        or "not enough memory" in told
    )
