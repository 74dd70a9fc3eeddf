"""The user's own questions: one a line, about a text, a conversation, token ids or saved activations."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from augury.activations.positions import resolve
from augury.activations.store import load
from augury.data.bank import Split
from augury.data.example import Context, Example
from augury.data.rows import BadRow, Row, needs_table, read_rows, refuse, split_of
from augury.data.sources.base import Made, SourceSettings
from augury.data.texts import context_of
from augury.errors import AuguryError
from augury.lm import LanguageModel
from augury.lm.chat import transcript_of

KINDS = ("text", "messages", "token_ids", "vectors")
FIELDS = (*KINDS, "end", "positions", "question", "answer", "split", "item")
POSITIONS = "last 8"


class CustomSettings(SourceSettings):
    """A JSONL file of questions.

    Attributes:
        path: The file. A line has `question` and `answer`; one of `text`, `messages` (with `end`), `token_ids` or
            `vectors` (a file of saved activations, with `item` where it holds several); `positions` (a selector, "last
            8" where it says nothing; of saved activations all); and `split`, where it is not to be drawn.
        heldout_share: Share of the contexts that are never trained on.
    """

    type: Literal["custom"] = "custom"
    path: Path
    heldout_share: float = Field(default=0.1, ge=0, lt=1)


def custom_contexts(lm: LanguageModel, settings: CustomSettings, split: Split) -> Iterator[Context]:
    """The contexts of one split, a line at a time, each with its question.

    Raises:
        FormatError: Lines that cannot be used, each named with its reason; none is left out.
    """
    needs_table(settings.path)
    bad: list[BadRow] = []
    number = good = 0
    splits: dict[bytes, tuple[str, str]] = {}
    for row in read_rows(settings.path):
        try:
            found = _read(lm, settings, row, number)
            _one_split(splits, found)
        except _CannotUse as error:
            bad.append(BadRow(row.where, str(error)))
            continue
        except AuguryError as error:
            bad.append(BadRow(row.where, f"{error.what} {error.why}"))
            continue
        good += 1
        if found.split == split and not bad:
            yield found
            number += 1
    refuse(settings.path, bad, good)


def _one_split(splits: dict[bytes, tuple[str, str]], found: Context) -> None:
    """A text that one line puts into training and another one holds out measures nothing."""
    told = repr((found.token_ids, found.labels.get("vectors"), found.labels.get("item")))
    split, where = splits.setdefault(hashlib.sha256(told.encode()).digest(), (found.split, found.origin))
    if split != found.split:
        raise _CannotUse(f"its split is {found.split}, and {where} has the same text in {split}")


class _CannotUse(ValueError):
    """Why a line cannot be used."""


def _read(lm: LanguageModel, settings: CustomSettings, row: Row | BadRow, number: int) -> Context:
    if isinstance(row, BadRow):
        raise _CannotUse(row.why)
    fields = row.fields
    given = [name for name in KINDS if fields.get(name) is not None]
    if unknown := sorted(fields.keys() - set(FIELDS)):
        raise _CannotUse(f"it has the unknown fields {', '.join(unknown)}")
    if len(given) != 1:
        raise _CannotUse(f"it has {' and '.join(given) or 'no context'}; give one of {', '.join(KINDS)}")
    for name in ("question", "answer"):
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            raise _CannotUse(f"it has no {name}")
    split = fields.get("split") or split_of(_words(fields[given[0]]), settings.heldout_share)
    if split not in ("train", "heldout"):
        raise _CannotUse(f"its split is '{split}'; there are train and heldout")
    asked = {"question": fields["question"], "answer": fields["answer"]}
    if given[0] == "vectors":
        return _of_vectors(settings, row, number, split, asked)
    transcript = transcript_of(lm, fields[given[0]], fields.get("end"))
    positions = resolve(lm, transcript, fields.get("positions", POSITIONS))
    labels = {**asked, "positions": json.dumps(sorted(positions))}
    return context_of(lm, transcript, number, split, settings.path.name, row.where, labels)


def _words(source: Any) -> str:
    """What a line's split follows from: a text is in the split that it is in elsewhere, a conversation in that of its
    first request."""
    if isinstance(source, str):
        return source
    turns = [turn for turn in source if isinstance(turn, dict)] if isinstance(source, list) else []
    first = next((turn.get("content") for turn in turns if turn.get("role") == "user"), None)
    return first if isinstance(first, str) else json.dumps(source, ensure_ascii=False)


def _of_vectors(settings: CustomSettings, row: Row, number: int, split: Split, asked: dict[str, str]) -> Context:
    """A context that is read from a file: it has no tokens here, and its positions are the file's rows."""
    path = (settings.path.parent / str(row.fields["vectors"])).resolve()
    loaded: Any = load(path)
    items = loaded if isinstance(loaded, list) else [loaded]
    item = row.fields.get("item", 0)
    if not isinstance(item, int) or not 0 <= item < len(items):
        raise _CannotUse(f"{path.name} holds {len(items)} items, and it asks for {item!r}")
    count = len(items[item].positions)
    places = row.fields.get("positions", list(range(count)))
    if not isinstance(places, list) or not places or not all(isinstance(p, int) and 0 <= p < count for p in places):
        raise _CannotUse(f"of saved activations `positions` are rows from 0 to {count - 1}, and it has {places!r}")
    labels = {**asked, "positions": json.dumps(sorted(set(places))), "vectors": str(path), "item": str(item)}
    return Context(number, split, (), (), labels, row.where)


class CustomSource:
    """One example a line, in order; a yes/no question where the answer is Yes or No."""

    def __init__(self, settings: CustomSettings, made: Made) -> None:
        self._settings, self._made = settings, made

    def draw(self, number: int, rng: random.Random) -> tuple[Example, ...]:
        """The line of this number."""
        del rng
        contexts = self._made.contexts
        if not len(contexts):
            return ()
        context = contexts[number % len(contexts)]
        question, answer = context.labels["question"].strip(), context.labels["answer"].strip()
        task = "yes_no" if answer in ("Yes", "No") else "custom"
        return (
            Example(
                task, "custom", context.split, context.number, tuple(json.loads(context.labels["positions"])), question,
                answer, None, question, author=self._settings.path.name,
            ),
        )  # fmt: skip
