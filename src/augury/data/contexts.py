"""Sets of contexts: the target's own answers to prompts, or texts that are at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from augury.data.bank import Split
from augury.data.example import Context
from augury.data.hub_prompts import hub_prompts
from augury.data.prompts import Prompt, make_prompts
from augury.data.requests import TargetSettings
from augury.data.rows import BadRow, needs_table, read_rows, refuse, split_of
from augury.data.sources.base import Settings
from augury.data.texts import Form, as_form, context_of
from augury.errors import InputError
from augury.lm import LanguageModel

BANK, HUB = "bank", "hub:"


class RolloutSettings(Settings):
    """The target's own answers.

    Attributes:
        prompts: `bank` (the list that ships); a file with a prompt a line (`.txt`) or in its column; or
            `hub:OWNER/NAME`, a data set on the Hugging Face hub.
        column: Of the prompts in a file or data set; there it may hold messages, whose first user turn is taken.
        hub_split: The split of a data set on the hub.
        train: Training prompts, at most.
        heldout: Held-out prompts, at most.
        heldout_share: Of a file's prompts, the share that is never trained on.
        max_new_tokens: Tokens of an answer, at most.
        temperature: 0 is greedy.
        top_p: Nucleus sampling.
        thinking: Whether the target thinks first, where its template knows that.
        batch_size: Prompts in a batch.
        dtype: What the target samples in.
        seed: Of prompts and answers.
        endpoint: An endpoint that serves the target and samples in its place; None: it is sampled here.
    """

    type: Literal["rollouts"] = "rollouts"
    prompts: str = BANK
    column: str = "prompt"
    hub_split: str = "train"
    train: int = Field(default=4000, gt=0)
    heldout: int = Field(default=500, ge=0)
    heldout_share: float = Field(default=0.1, ge=0, lt=1)
    max_new_tokens: int = Field(default=64, gt=0)
    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    thinking: bool = False
    batch_size: int = Field(default=96, gt=0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    endpoint: TargetSettings | None = None

    def count(self, split: Split) -> int:
        """Prompts of a split, at most."""
        return self.train if split == "train" else self.heldout


class TextSettings(Settings):
    """Texts from a file, read as they are.

    Attributes:
        path: The table (see `read_rows`).
        text: Its column.
        form: Whether a text is read as a user's message or as it is.
        heldout_share: Share of the texts that is never trained on.
    """

    type: Literal["text"] = "text"
    path: Path
    text: str = "text"
    form: Form = "text"
    heldout_share: float = Field(default=0.1, ge=0, lt=1)


ContextSettings = Annotated[RolloutSettings | TextSettings, Field(discriminator="type")]


def prompts_of(settings: RolloutSettings, split: Split) -> Iterator[Prompt]:
    """The prompts of a split, in order.

    Raises:
        NotFoundError: There is no such file.
        FormatError: Rows without a prompt, each named.
    """
    if settings.prompts == BANK:
        return iter(make_prompts(settings.count(split), split, settings.seed))
    name = settings.prompts.removeprefix(HUB)
    if settings.prompts.startswith(HUB):
        rows = hub_prompts(name, settings.hub_split, settings.column)
    else:
        path = Path(name)
        name, rows = path.name, _column(path, "text" if path.suffix == ".txt" else settings.column)
    return islice(_of_split(rows, name, settings.heldout_share, split), settings.count(split))


def _of_split(rows: Iterable[tuple[str, str]], name: str, heldout: float, split: Split) -> Iterator[Prompt]:
    """The prompts of one split, each once: which split a prompt is in follows from its words."""
    seen: set[str] = set()
    for where, text in rows:
        if split_of(text, heldout) == split and text not in seen:
            seen.add(text)
            yield Prompt(text, split, {"prompt": where}, name)


def text_contexts(lm: LanguageModel, settings: TextSettings, split: Split) -> Iterator[Context]:
    """The texts of a split, a row at a time.

    Raises:
        NotFoundError: There is no such file.
        FormatError: Rows without a text, or with one that the model cannot read, each named.
    """
    number = good = 0
    bad: list[BadRow] = []
    for where, text in _column(settings.path, settings.text):
        if split_of(text, settings.heldout_share) == split:
            try:
                found = context_of(lm, as_form(text, settings.form), number, split, settings.path.name, where)
            except InputError as error:
                bad.append(BadRow(where, f"{error.what} {error.why}"))
                continue
            if not bad:
                yield found
            number += 1
        good += 1
    refuse(settings.path, bad, good)


def _column(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """(where, text) of each row; what cannot be used is told at the end, and nothing comes after the first of it."""
    needs_table(path)
    bad: list[BadRow] = []
    good = 0
    for row in read_rows(path):
        if isinstance(row, BadRow):
            bad.append(row)
        elif not isinstance(text := row.fields.get(column), str) or not text.strip():
            bad.append(BadRow(row.where, f"it has no {column} (columns: {', '.join(row.fields)})"))
        else:
            good += 1
            if not bad:
                yield row.where, text
    refuse(path, bad, good)
