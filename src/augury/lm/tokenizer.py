"""A tokenizer by itself, from this machine: to show texts without loading their model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from augury.lm.load import ALIASES
from augury.lm.pretrained import tokenizer_of
from augury.lm.size import folder_here


def tokenizer_here(model: str) -> Any:
    """The tokenizer of a model, or None where it is not on this machine; the hub is never asked.

    Args:
        model: An alias, a folder, or a hub id whose files are in the cache.
    """
    folder = folder_here(model)
    if folder is None and (model in ALIASES or Path(model).is_absolute()):
        return None
    source = str(folder or model)
    try:
        return tokenizer_of(source, {"local_files_only": True, "trust_remote_code": False})
    except (OSError, ValueError, LookupError):  # not in the cache, or what lies there is no tokenizer
        return None
