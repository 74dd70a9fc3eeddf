"""What the import hook of `conftest` calls: shapes written in signatures are checked, and nothing else.

All other annotations are for pyright. Were they checked too, what a caller passes wrongly would be refused by the
checker and never reach the refusal that a test is about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its jaxtyping annotations checked at every call."""
    function.__annotations__ = {name: kept for name, kept in function.__annotations__.items() if "Tensor," in str(kept)}
    return beartype(function)
