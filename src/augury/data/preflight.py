"""What can be said against a recipe before any model is loaded: its files, its layers and its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from augury.activations import resolve_layers
from augury.data.contexts import RolloutSettings, TextSettings
from augury.data.recipe import DataRecipe, check_files, files_of
from augury.data.rows import BadRow, read_rows
from augury.data.sources.classification import ClassificationSettings
from augury.data.sources.custom import CustomSettings
from augury.data.sources.system import SystemSettings
from augury.errors import FormatError, InputError, NotFoundError
from augury.lm.fingerprint import tokenizer_hash
from augury.lm.size import size_here
from augury.lm.tokenizer import tokenizer_here


def preflight(recipe: DataRecipe, folder: Path | None = None) -> None:
    """Refuse what cannot be built, in a second.

    Args:
        recipe: What to make.
        folder: Where it is to lie; what lies there already must be of the same tokenizer.

    Raises:
        NotFoundError: A file or folder is missing.
        FormatError: A table lacks a column that the recipe reads, or has no rows.
        InputError: The model has no such layer, or the folder holds tokens of another tokenizer.
    """
    check_files(recipe)
    for name, settings in (*recipe.contexts.items(), *recipe.sources.items()):
        for path in files_of(settings):
            _check_rows(name, settings, path)
    _check_layers(recipe)
    if folder is not None:
        _check_tokenizer(recipe, folder)


def _check_rows(name: str, settings: Any, path: Path) -> None:
    """There is a first row, and it has the columns that are read."""
    if isinstance(settings, SystemSettings):
        if not (path / "qa.json").is_file():
            why, instead = "the folder lacks it", "name a folder in LatentQA format"
            raise NotFoundError(f"There is no {path / 'qa.json'}.", why, instead)
        return
    columns = _columns(settings, path)
    if not columns:
        return
    first = next(iter(read_rows(path)), None)
    if first is None:
        raise FormatError(f"{path} is empty.", f"{name} reads its rows, and it has none", "name a file with rows")
    missing = [] if isinstance(first, BadRow) else [column for column in columns if column not in first.fields]
    if not isinstance(first, BadRow) and missing:  # rows that are broken are all named when the source reads them
        why = f"{name} reads it, and the columns are {', '.join(first.fields)}"
        raise FormatError(f"{path} has no column {' and no '.join(missing)}.", why, "mend the recipe's column names")


def _columns(settings: Any, path: Path) -> tuple[str, ...]:
    """The columns that every row must have."""
    if isinstance(settings, RolloutSettings):
        return ("text" if path.suffix == ".txt" else settings.column,)
    if isinstance(settings, TextSettings):
        return (settings.text,)
    if isinstance(settings, ClassificationSettings):
        return (settings.text, settings.label)
    return ("question", "answer") if isinstance(settings, CustomSettings) else ()


def _check_layers(recipe: DataRecipe) -> None:
    size = size_here(recipe.model)
    if size is not None:
        for group in recipe.layers:
            resolve_layers(size.n_layers, list(group))


def _check_tokenizer(recipe: DataRecipe, folder: Path) -> None:
    path = folder / "data.json"
    tokenizer = tokenizer_here(recipe.model) if path.is_file() else None
    if tokenizer is None:
        return
    try:
        made = json.loads(path.read_text(encoding="utf-8")).get("model") or {}
    except ValueError as error:
        raise FormatError(f"{path} cannot be read.", str(error), "remove it: it is written again") from error
    if made.get("tokenizer_hash") not in (None, tokenizer_hash(tokenizer)):
        raise InputError(
            f"{folder} holds token ids of another tokenizer.",
            f"it was made for {made.get('name')}, and the recipe's model is {recipe.model}",
            "name a new folder with -o",
        )
