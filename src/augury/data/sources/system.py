"""Hidden instructions and personas (LatentQA format): what shaped an answer is asked of the turns after it alone."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from augury.data.bank import Split
from augury.data.example import Context, Example, LeftOut
from augury.data.rows import split_of
from augury.data.samplers import window
from augury.data.sources.base import Made, SourceSettings
from augury.data.texts import context_of
from augury.errors import FormatError, NotFoundError
from augury.lm import LanguageModel
from augury.lm.chat import render_chat

# Each list's fields, as turns; the first of them that is `read` begins what is read. What stands before is the
# instruction itself, from which the answer must not come.
LISTS: dict[str, tuple[tuple[str, str, bool], ...]] = {
    "control": (("user", "control_user", True),),
    "stimulus": (
        ("user", "control_user", False), ("assistant", "control_model", False), ("user", "stimulus_user", True),
    ),
    "system": (("system", "system", False), ("user", "stimulus_user", True)),
}  # fmt: skip
_ANSWER = "stimulus_model"  # some releases hold the completed answer too
SHORT = 3


class SystemSettings(SourceSettings):
    """A folder in the format of the LatentQA release.

    Attributes:
        path: The folder: `qa.json`, and some of `control.json`, `stimulus.json` and `system.json`.
        window: The most positions of a full span; of a longer one the last so many are read.
        full: Share of examples that read the full span; the others read a window of 1 to 3.
        heldout_share: Share of the labels (behaviours, with their questions) that are never trained on.
    """

    type: Literal["system"] = "system"
    path: Path
    window: int = Field(default=100, ge=1)
    full: float = Field(default=0.5, ge=0, le=1)
    heldout_share: float = Field(default=0.1, ge=0, lt=1)


def system_contexts(lm: LanguageModel, settings: SystemSettings, split: Split) -> Iterator[Context | LeftOut]:
    """The contexts of one split, and what is too long; a label stands in one split only, whichever lists it is in.

    Raises:
        NotFoundError: The folder lacks `qa.json`, or all three lists.
        FormatError: A file is not in this format.
    """
    pairs = _object(settings.path / "qa.json", dict)
    lists = [name for name in LISTS if (settings.path / f"{name}.json").is_file()]
    if not lists:
        why = f"none of {', '.join(f'{name}.json' for name in LISTS)} is there"
        raise NotFoundError(f"{settings.path} holds no conversations.", why, "name a folder in the LatentQA format")
    entries = [
        (name, place, entry, _text(entry, "label", settings.path / f"{name}.json", place))
        for name in lists
        for place, entry in enumerate(_object(settings.path / f"{name}.json", list))
    ]
    qa = {label: _pairs(pairs.get(label) or [], label, settings.path / "qa.json") for *_, label in entries}
    held = _held_out(entries, qa, settings) if split == "train" else frozenset()
    number = 0
    for name, place, entry, label in entries:
        if split_of(label, settings.heldout_share) != split:
            continue
        asked = [pair for pair in qa[label] if _told(pair[0]) not in held]
        path = settings.path / f"{name}.json"
        if not asked:
            found = LeftOut("there is no question about its label that is not held out")
        elif any(_told(text) in held for text in _requests(name, entry)):
            found = LeftOut("its request stands in a held-out conversation")
        else:
            told = json.dumps(asked, ensure_ascii=False)
            found = _context(lm, name, entry, path, place, number, split, label, told)
        number += isinstance(found, Context)
        yield found


Entry = tuple[str, int, Any, str]  # the list, the place in it, what stands there, and its label


def _held_out(entries: Sequence[Entry], qa: Mapping[str, Any], settings: SystemSettings) -> Set[str]:
    """Requests and questions of the held-out labels: several labels share some, and none is trained on."""
    found: set[str] = set()
    for name, _, entry, label in entries:
        if split_of(label, settings.heldout_share) == "heldout":
            found.update(map(_told, _requests(name, entry)))
            found.update(_told(question) for question, _ in qa[label])
    return found


def _requests(name: str, entry: Any) -> list[str]:
    """The user's turns that are read; instructions are held out by their label."""
    return [str(entry.get(field, "")) for role, field, read in LISTS[name] if role == "user" and read]


def _told(text: str) -> str:
    return " ".join(text.casefold().split())


def _context(
    lm: LanguageModel, name: str, entry: Any, path: Path, place: int, number: int, split: Split, label: str, qa: str
) -> Context | LeftOut:
    turns = [*LISTS[name], *([("assistant", _ANSWER, True)] if entry.get(_ANSWER) else [])]
    messages = [{"role": role, "content": _text(entry, field, path, place)} for role, field, _ in turns]
    transcript = render_chat(lm, messages, "closed" if entry.get(_ANSWER) else "generation")
    if lm.max_positions is not None and len(transcript) > lm.max_positions:
        return LeftOut("the conversation is longer than the model can read")
    first = next(i for i, (_, _, read) in enumerate(turns) if read)
    labels = {"label": label, "list": name, "qa": qa, "read": str(first)}
    return context_of(lm, transcript, number, split, path.parent.name, f"{path.name}:{place}", labels)


def _pairs(found: Any, label: str, path: Path) -> list[list[str]]:
    if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair) for pair in found):
        raise _broken(path, f"the pairs of {label} are no [question, answer]")
    return found


def _object(path: Path, kind: type) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(
            f"There is no {path}.", "the folder lacks it", "name a folder in LatentQA format"
        ) from error
    except ValueError as error:
        raise _broken(path, str(error)) from error
    if not isinstance(found, kind):
        raise _broken(path, f"it holds a {type(found).__name__}")
    return found


def _text(entry: Any, field: str, path: Path, place: int) -> str:
    value = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise _broken(path, f"entry {place} has no {field}")
    return value


def _broken(path: Path, why: str) -> FormatError:
    return FormatError(f"{path} is not in the LatentQA format.", why, "mend it; docs/formats.md has the fields")


class SystemSource:
    """Draws a label's question about the turns that its instruction shaped."""

    def __init__(self, settings: SystemSettings, made: Made) -> None:
        self._settings, self._made = settings, made

    def draw(self, number: int, rng: random.Random) -> tuple[Example, ...]:
        """One question: half read the full span, half a window of 1 to 3 tokens in it."""
        settings, made = self._settings, self._made
        if not len(made.contexts):
            return ()
        context = made.contexts[rng.randrange(len(made.contexts))]
        span = readable(context)
        if rng.random() < settings.full:
            positions = tuple(span[-settings.window :])
        else:
            positions = window(span, min(rng.randint(1, SHORT), len(span)), rng)
        question, answer = rng.choice(json.loads(context.labels["qa"]))
        return (
            Example(
                "system", context.labels["list"], context.split, context.number, positions, question, answer, None,
                f"{context.labels['label']}:{question}", author=settings.path.name,
            ),
        )  # fmt: skip


def readable(context: Context) -> range:
    """The positions after the instruction: from the first turn that is read to the end, headers included."""
    return range(context.parts[int(context.labels["read"])].start, len(context.token_ids))
