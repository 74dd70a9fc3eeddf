"""The texts that generated items are made of."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml


@cache
def texts(name: str) -> Any:
    """One YAML file of the bench's bank."""
    path = resources.files("augury.bench").joinpath("bank", f"{name}.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))
