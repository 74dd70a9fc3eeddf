"""What is read, and what is asked about: the prompts that the package ships or the user's own, and the concepts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from augury.data.bank import topics
from augury.errors import InputError, NotFoundError
from augury.files import expanded

OWN = "own"
LEAST_CONCEPTS = 4  # centring over fewer takes away what is looked for


@dataclass(frozen=True)
class Prompt:
    """A user's message.

    Attributes:
        id: Its kind and its place there.
        kind: What it is about, roughly.
        text: The message.
    """

    id: str
    kind: str
    text: str


@cache
def _shipped() -> dict[str, list[str]]:
    return yaml.safe_load(resources.files("augury.audit").joinpath("prompts.yaml").read_text(encoding="utf-8"))


def shipped_prompts(per_kind: int | None = None) -> list[Prompt]:
    """The package's prompts, or the first few of each kind."""
    return [
        Prompt(f"{kind}-{place}", kind, text)
        for kind, texts in _shipped().items()
        for place, text in enumerate(texts[:per_kind])
    ]


def read_prompts(path: Path) -> list[Prompt]:
    """The user's own: one a line, as text or as JSON with `prompt` and, where wanted, `kind`.

    Raises:
        NotFoundError: There is no such file.
        InputError: It holds none, one twice, or a line that is none.
    """
    found = [_prompt(place, line) for place, line in enumerate(_lines(path, "prompts"))]
    _check_once([prompt.text for prompt in found], path)
    return found


def _prompt(place: int, line: str) -> Prompt:
    if not line.startswith("{"):
        return Prompt(f"{OWN}-{place}", OWN, line)
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _no_prompt(line, str(error)) from error
    text, kind = row.get("prompt"), row.get("kind", OWN)
    if not (isinstance(text, str) and text.strip() and isinstance(kind, str) and kind):
        raise _no_prompt(line, "it has no text under `prompt`")
    return Prompt(f"{kind}-{place}", kind, text.strip())


def _no_prompt(line: str, why: str) -> InputError:
    return InputError(f"{line[:60]!r} is no prompt.", why, 'write a text a line, or {"prompt": ..., "kind": ...}')


def default_concepts() -> tuple[str, ...]:
    """The categories of the topic bank: each topic of it lies in one, and oracles are trained to answer about them."""
    return tuple(dict.fromkeys(topic.category for topic in topics()))


def read_concepts(path: Path) -> tuple[str, ...]:
    """The user's own, one a line.

    Raises:
        NotFoundError: There is no such file.
        InputError: It holds too few, or one twice.
    """
    found = _lines(path, "concepts")
    _check_once([concept.casefold() for concept in found], path)
    if len(found) < LEAST_CONCEPTS:
        raise InputError(
            f"{path} holds {len(found)} concepts.",
            "what a fine-tune says of one concept is compared with what it says of the others",
            f"name at least {LEAST_CONCEPTS}; any that might as well have been put in will do",
        )
    return tuple(found)


def _lines(path: Path, what: str) -> list[str]:
    place = expanded(path)
    if not place.is_file():
        raise NotFoundError(f"There is no file {path}.", "nothing lies there", f"name a file of {what}, one a line")
    try:
        text = place.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"byte {error.start} is none of UTF-8"
        raise InputError(f"{path} is no text that can be read.", why, "save it as UTF-8") from error
    found = [line.strip() for line in text.split("\n") if line.strip()]
    if not found:
        raise InputError(f"{path} holds no {what}.", "it is empty", "write one a line")
    return found


def _check_once(texts: Sequence[str], path: Path) -> None:
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise InputError(f"{path} names something twice.", f"{twice[:60]!r} would count twice", "name each once")
