"""Ask a language model's activations questions in plain language.

The public names are imported when they are first used, so that `import augury` stays light: neither torch nor
transformers is loaded by it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from augury._version import __version__
from augury.errors import (
    AccessError,
    AuguryError,
    ContractError,
    FormatError,
    InputError,
    ModelError,
    NetworkError,
    NotFoundError,
    StorageError,
)

if TYPE_CHECKING:
    from augury.activations import Activations, capture, diff, role, text
    from augury.contract import Contract
    from augury.lm import Transcript, generate, load_model
    from augury.oracle import Answer, Oracle, Scan, Score, load_oracle
    from augury.server.client import Remote

__all__ = [
    "AccessError",
    "Activations",
    "Answer",
    "AuguryError",
    "Contract",
    "ContractError",
    "FormatError",
    "InputError",
    "ModelError",
    "NetworkError",
    "NotFoundError",
    "Oracle",
    "Remote",
    "Scan",
    "Score",
    "StorageError",
    "Transcript",
    "__version__",
    "capture",
    "diff",
    "generate",
    "load_model",
    "load_oracle",
    "role",
    "text",
]

_HOMES = {
    "augury.activations": ("Activations", "capture", "diff", "role", "text"),
    "augury.contract": ("Contract",),
    "augury.lm": ("Transcript", "generate", "load_model"),
    "augury.oracle": ("Answer", "Oracle", "Scan", "Score", "load_oracle"),
    "augury.server.client": ("Remote",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'augury' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
