"""Labelled texts: yes/no questions in pairs about a text's label, and open ones that name it."""

from __future__ import annotations

import hashlib
import math
import random
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from augury.data.bank import Split
from augury.data.example import Context, Example
from augury.data.fair import fair
from augury.data.rows import BadRow, Row, needs_table, read_rows, refuse, split_of
from augury.data.samplers import ending_before
from augury.data.sources.base import Made, SourceSettings
from augury.data.texts import Form, as_form, context_of
from augury.errors import InputError
from augury.lm import LanguageModel

SLACK = 5  # a window ends one to so many tokens before the text does
HELD_OUT_WORDINGS = 0.25
Wordings = Annotated[tuple[str, ...], Field(min_length=1)]


class ClassificationSettings(SourceSettings):
    """A table of texts and labels.

    Attributes:
        path: The table (see `read_rows`).
        text: The column of the text.
        label: The column of the label.
        questions: Yes/no wordings in which `{label}` stands for a label; or for each label those that it answers Yes
            to.
        open: Open wordings whose answer is the label.
        form: Whether the text is read as a user's message or as it is.
        heldout_share: Share of the texts, and a quarter of the wordings, that are never trained on.
        window: The longest window that is read.
        single: Share of windows of one activation.
    """

    type: Literal["classification"] = "classification"
    path: Path
    text: str = "text"
    label: str = "label"
    questions: Wordings | dict[str, Wordings]
    open: tuple[str, ...] = ()
    form: Form = "user"
    heldout_share: float = Field(default=0.1, ge=0, lt=1)
    window: int = Field(default=50, ge=1)
    single: float = Field(default=0.5, ge=0, le=1)

    @field_validator("questions")
    @classmethod
    def _name_the_label(cls, value: Wordings | dict[str, Wordings]) -> Wordings | dict[str, Wordings]:
        if not isinstance(value, dict) and not all("{label}" in wording for wording in value):
            raise ValueError("a wording has no {label} in it; give wordings without it label by label")
        return value

    @model_validator(mode="after")
    def _enough_wordings(self) -> ClassificationSettings:
        lists = list(self.questions.values()) if isinstance(self.questions, dict) else [self.questions]
        lists += [self.open] if self.open else []
        if self.heldout_share and any(len(wordings) < 2 for wordings in lists):
            raise ValueError(
                "one wording cannot be both trained on and held out: give two or more, or heldout_share: 0"
            )
        return self

    def wordings(self, label: str) -> tuple[str, ...]:
        """The wordings that a label answers Yes to, where it is filled in."""
        return self.questions.get(label, ()) if isinstance(self.questions, dict) else self.questions


def classification_contexts(lm: LanguageModel, settings: ClassificationSettings, split: Split) -> Iterator[Context]:
    """The contexts of one split, a row at a time.

    Raises:
        FormatError: Rows without the text or the label, each named.
    """
    needs_table(settings.path)
    bad: list[BadRow] = []
    number = good = 0
    for row in read_rows(settings.path):
        why = _wrong(row, settings)
        if why or isinstance(row, BadRow):
            bad.append(row if isinstance(row, BadRow) else BadRow(row.where, why))
            continue
        text, label = str(row.fields[settings.text]), str(row.fields[settings.label])
        if split_of(text, settings.heldout_share) == split and not bad:
            try:
                found = context_of(
                    lm, as_form(text, settings.form), number, split, settings.path.name, row.where, {"label": label}
                )
            except InputError as error:
                bad.append(BadRow(row.where, f"{error.what} {error.why}"))
                continue
            yield found
            number += 1
        good += 1
    refuse(settings.path, bad, good)


def _wrong(row: Row | BadRow, settings: ClassificationSettings) -> str:
    if isinstance(row, BadRow):
        return row.why
    missing = [name for name in (settings.text, settings.label) if not str(row.fields.get(name) or "").strip()]
    if missing:
        return f"it has no {' and no '.join(missing)} (columns: {', '.join(row.fields)})"
    label = str(row.fields[settings.label])
    if isinstance(settings.questions, dict) and label not in settings.questions:
        return f"there is no question for the label {label}"
    return ""


class ClassificationSource:
    """Draws yes/no pairs, and open questions where there are wordings for them; labels are drawn alike."""

    def __init__(self, settings: ClassificationSettings, made: Made) -> None:
        self._settings, self._made = settings, made
        self._of_label: dict[str, array[int]] = defaultdict(lambda: array("q"))
        for number, context in enumerate(made.contexts):
            self._of_label[context.labels["label"]].append(number)
        if len(self._of_label) < 2:
            raise InputError(
                f"{settings.path} has nothing to tell apart.",
                f"its {made.split} texts have {len(self._of_label)} label: {', '.join(self._of_label)}",
                "give texts of two labels or more",
            )

    def draw(self, number: int, rng: random.Random) -> tuple[Example, ...]:
        """A pair: the same window and wording with the text's own label and with another."""
        settings, made = self._settings, self._made
        label, other = rng.sample(sorted(self._of_label), 2)
        context = made.contexts[rng.choice(self._of_label[label])]
        start, stop = context.body
        positions = tuple(ending_before(stop, start, SLACK, settings.window, settings.single, rng))
        if settings.open and rng.random() < 1 / 3:  # a fifth of the examples: a pair counts twice
            wording = rng.choice(self._open_wordings(label))
            return (self._example("open", context, positions, wording, wording, label),)
        place = rng.random()
        pair = []
        for name, answer in ((label, "Yes"), (other, "No")):
            found = _of_split(settings.wordings(name), made.split)
            wording = found[int(place * len(found))]  # the same for both, unless each label has its own
            pair.append(self._example("yes_no", context, positions, wording, wording.replace("{label}", name), answer))
        return tuple(pair)

    def _open_wordings(self, label: str) -> list[str]:
        found = fair(_of_split(self._settings.open, self._made.split), label, list(self._of_label))
        if not found:
            raise InputError(
                f"The open questions of {self._made.name} name their own answer.",
                f"each {self._made.split} wording has a word of the label {label} in it, and not of all the others",
                "give open wordings that name no label, or every label",
            )
        return found

    def _example(
        self, task: str, context: Context, positions: tuple[int, ...], wording: str, question: str, answer: str
    ) -> Example:
        return Example(
            task, self._made.name, context.split, context.number, positions, question, answer, None, wording,
            author=self._settings.path.name,
        )  # fmt: skip


def _of_split(wordings: Sequence[str], split: Split) -> list[str]:
    """The wordings of a split: the quarter with the lowest hashes is held out; all of them where there is only one."""
    if len(wordings) < 2:
        return list(wordings)
    order = sorted(wordings, key=lambda wording: hashlib.sha256(f"wording:{wording}".encode()).digest())
    held = math.ceil(HELD_OUT_WORDINGS * len(order))
    return order[:held] if split == "heldout" else order[held:]
