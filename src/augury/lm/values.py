"""What counts as a number where one is asked for: Python's and numpy's, but no truth value."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def is_whole(value: Any) -> bool:
    """Whether it is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a real number, whole or not."""
    return isinstance(value, Real) and not isinstance(value, bool)
