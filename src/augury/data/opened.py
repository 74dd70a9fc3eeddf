"""A data set on disk as it lies there: opened by its files alone, without its recipe or any model."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from augury.data.bank import Split
from augury.data.example import Context, Example
from augury.data.recipe import DataRecipe
from augury.data.store import Table
from augury.errors import FormatError, NotFoundError
from augury.files import write_text

RECIPE, DATA = "recipe.yaml", "data.json"
_SHARD = re.compile(r"(.+)-(train|heldout)-\d{6}\.arrow")


@dataclass(frozen=True)
class DataSet:
    """A data set that was built, or begun.

    Attributes:
        folder: Where it lies.
        contexts: The rows of each set and split.
        examples: The rows of each source and split.
        fingerprint: SHA-256 over what it is made from; None where the build is not finished.
        made: The digest of what each set and source follows from.
        model: The target's identity; empty where the build is not finished.
        recipe: What made it; empty where it was not kept.
    """

    folder: Path
    contexts: dict[tuple[str, Split], Table[Context]]
    examples: dict[tuple[str, Split], Table[Example]]
    fingerprint: str | None
    made: dict[str, str]
    model: dict[str, Any]
    recipe: dict[str, Any]

    @property
    def target(self) -> str | None:
        """The target's name, as its recipe or else the built data names it."""
        return self.recipe.get("model") or self.model.get("name")

    @property
    def sources(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(name for name, _ in self.examples))

    def context_of(self, example: Example) -> Context:
        """What an example asks about."""
        return self.contexts[example.contexts, example.split][example.context]


def open_data(folder: Path) -> DataSet:
    """The data set in a folder, or in the folder of a training run.

    Raises:
        NotFoundError: There is none.
        FormatError: A file is broken.
    """
    if not _holds_data(folder) and _holds_data(folder / "data"):
        folder = folder / "data"
    if not _holds_data(folder):
        why = "it has no Arrow files of contexts"
        raise NotFoundError(f"There is no data set in {folder}.", why, "build one with `augury data build RECIPE -o`")
    told = _told(folder / DATA, json.loads)
    recipes = (folder / RECIPE, folder.parent / "config.yaml")
    kept = next((path for path in recipes if path.is_file()), folder / RECIPE)
    return DataSet(
        folder,
        _tables(folder, Context),
        _tables(folder / "examples", Example),
        told.get("fingerprint"),
        told.get("made", {}),
        told.get("model", {}),
        _told(kept, yaml.safe_load),
    )


def keep_recipe(folder: Path, recipe: DataRecipe, begun: bool) -> None:
    """Write the recipe into the folder that it makes; where nothing is built yet if `begun`, else whatever is there.

    Raises:
        StorageError: It cannot be written.
    """
    if begun and _holds_data(folder):
        return  # perhaps another's, which is told only when it is opened
    write_text(folder / RECIPE, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))


def _holds_data(folder: Path) -> bool:
    return any(_SHARD.fullmatch(path.name) for path in folder.glob("*.arrow"))


def _tables(folder: Path, kind: type) -> dict[tuple[str, Split], Table[Any]]:
    found: dict[tuple[str, Split], list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*.arrow")):
        if match := _SHARD.fullmatch(path.name):
            found[match[1], "train" if match[2] == "train" else "heldout"].append(path)
    order = sorted(found, key=lambda key: (key[0], key[1] != "train"))
    return {key: Table(kind, found[key]) for key in order}


def _told(path: Path, read: Any) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = read(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise FormatError(f"{path} cannot be read.", str(error), "build again: it is written at the end") from error
    return found if isinstance(found, dict) else {}
