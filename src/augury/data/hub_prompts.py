"""Prompts from a data set on the Hugging Face hub, streamed a row at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from augury.errors import AuguryError, FormatError, NetworkError


def hub_prompts(name: str, split: str, column: str) -> Iterator[tuple[str, str]]:
    """(where, prompt) of each row that has one.

    Args:
        name: `owner/name` on the hub.
        split: Of the data set.
        column: Holds a text, or messages, of which the first user turn is the prompt.

    Raises:
        AuguryError: `datasets` is not installed.
        NetworkError: The hub cannot be reached, or has no such data set.
        FormatError: The data set has no such column, or something else in it.
    """
    try:
        from datasets import load_dataset  # type: ignore[import-not-found]
    except ImportError as error:
        why = "the library datasets is not installed"
        raise AuguryError(f"{name} cannot be read from the hub.", why, "pip install 'augury[train]'") from error
    try:
        rows = iter(load_dataset(name, split=split, streaming=True))
    except (OSError, ValueError) as error:
        why, instead = " ".join(str(error).split()), "check the name, the split and the network, or use a file"
        raise NetworkError(f"The data set {name} cannot be opened.", why, instead) from error
    for number, row in enumerate(rows):
        if text := _prompt(name, row, column).strip():
            yield f"{name}:{split}:{number}", text


def _prompt(name: str, row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if isinstance(value, list):
        turns = [turn for turn in value if isinstance(turn, dict) and turn.get("role") == "user"]
        value = turns[0].get("content") if turns else ""
    if not isinstance(value, str):
        raise FormatError(
            f"{name} has no prompts in its column {column}.",
            f"a row holds {type(value).__name__} there (columns: {', '.join(row)})",
            "set `column` to one that holds texts or messages",
        )
    return value
