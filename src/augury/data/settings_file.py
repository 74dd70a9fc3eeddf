"""A recipe's YAML, with `a.b=c` settings laid over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from augury.errors import FormatError, NotFoundError


def read_settings(path: Path, settings: list[str] | None = None) -> Any:
    """What a recipe's file says.

    Raises:
        NotFoundError: No such file.
        FormatError: Not YAML, or a setting that cannot be laid over it.
    """
    if not path.is_file():
        raise NotFoundError(f"There is no recipe {path}.", "the file does not exist", "see the folder recipes/")
    data = _yaml(_text(path), str(path), "mend the file")
    for setting in settings or ():
        _lay_over(data, setting)
    return data


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no text.", str(error), "save the file as UTF-8") from error


def _yaml(text: str, called: str, instead: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # the latter for a date that does not exist
        raise FormatError(f"{called} is no YAML.", " ".join(str(error).split()), instead) from error


def _lay_over(data: Any, setting: str) -> None:
    path, equals, value = setting.partition("=")
    if not equals:
        raise FormatError(f"'{setting}' is no setting.", "it has no '='", "write --set optimizer.examples=1000")
    *parents, last = path.split(".")
    for parent in parents:
        data = data.setdefault(parent, {}) if isinstance(data, dict) else None
    if not isinstance(data, dict):
        why = "a part of its path is no group of settings (stages are a list)"
        raise FormatError(f"'{setting}' cannot be laid over the recipe.", why, "change stages in a copy of the file")
    data[last] = _yaml(value, f"The value of '{setting}'", "write it as it would stand in the recipe")
