"""Published sets of items, as they are: about Qwen3-8B, and read from a folder of the user's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from augury.bench.item import Item, ItemSet, Manifest
from augury.contract import ModelIdentity
from augury.errors import AuguryError, FormatError

QWEN3_8B = ModelIdentity(name="Qwen/Qwen3-8B", d_model=4096, n_layers=36)
LICENCE = "none stated"


def published(name: str, folder: Path, file: str, read: Callable[[dict[str, Any]], Iterable[Item]]) -> ItemSet:
    """A set of AObench's, of which each entry makes some items.

    Args:
        name: The set's name here.
        folder: The folder that holds AObench's own.
        file: The file below it.
        read: From an entry to its items.

    Raises:
        FormatError: The file is not there, or not in the published form.
    """
    path = folder / file
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["entries"]
        items = tuple(item for row in rows for item in read(row))
    except AuguryError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        why = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} is not in the published form.", why, "restore it from where it came") from error
    origin = "AObench (ceselder/cot-oracle)"
    return ItemSet(Manifest(name=name, model=QWEN3_8B, origin=origin, licence=LICENCE, made={"file": file}), items)
