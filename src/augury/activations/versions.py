"""The versions of the packages that decide what is read and what is answered."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from augury._version import __version__


@cache
def versions() -> dict[str, str]:
    """The versions of augury and of the packages that run the model."""
    found = {"augury": __version__}
    for package in ("torch", "transformers", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not known"
    return found
