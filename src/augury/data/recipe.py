"""What a data set is made of: one frozen configuration, from a recipe's `contexts` and `sources`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from augury.data.contexts import BANK, HUB, ContextSettings, RolloutSettings
from augury.data.sources.base import Settings, nearest
from augury.data.sources.classification import ClassificationSettings
from augury.data.sources.conversation import ConversationSettings
from augury.data.sources.custom import CustomSettings
from augury.data.sources.lens import LensSettings
from augury.data.sources.questions import QuestionSettings
from augury.data.sources.system import SystemSettings
from augury.errors import FormatError, NotFoundError

AnySource = Annotated[
    LensSettings | QuestionSettings | ClassificationSettings | SystemSettings | CustomSettings | ConversationSettings,
    Field(discriminator="type"),
]
LayerGroup = Annotated[tuple[int | str, ...], Field(min_length=1)]
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


class DataRecipe(Settings):
    """The data part of a recipe.

    Attributes:
        name: The recipe's name.
        model: The target: a Hugging Face id, a folder or an alias.
        layers: The layer tuples that examples read, as indices or percents.
        contexts: Sets of contexts, by name.
        sources: What makes examples, by name.
        data_seed: Of all draws.
    """

    name: str
    model: str
    layers: tuple[LayerGroup, ...] = Field(min_length=1)
    contexts: dict[str, ContextSettings] = Field(default_factory=dict)
    sources: dict[str, AnySource] = Field(min_length=1)
    data_seed: int = 0

    @field_validator("contexts", "sources")
    @classmethod
    def _plain_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"the name {name!r} is part of file names: use a-z, 0-9 and _")
        return value

    @model_validator(mode="after")
    def _contexts_are_there(self) -> DataRecipe:
        for name, source in self.sources.items():
            if source.contexts and source.contexts not in self.contexts:
                known = nearest(source.contexts, self.contexts) if self.contexts else "; there are none"
                raise ValueError(f"sources.{name}: there are no contexts {source.contexts!r}{known}")
            of_answers = isinstance(source, ConversationSettings)
            if of_answers and not isinstance(self.contexts[source.contexts], RolloutSettings):
                raise ValueError(f"sources.{name}: {source.contexts} are no rollouts, and answers are cut in two")
            if name in self.contexts:
                raise ValueError(f"{name} is the name of contexts and of a source: rename one")
        return self


def files_of(settings: Any) -> list[Path]:
    """The files and folders that a set of contexts or a source reads."""
    if isinstance(settings, RolloutSettings):
        return [] if settings.prompts == BANK or settings.prompts.startswith(HUB) else [Path(settings.prompts)]
    path = dict(settings).get("path")
    return [] if path is None else [path]


def check_files(recipe: DataRecipe) -> None:
    """Refuse a recipe whose files are not there, before any model is loaded.

    Raises:
        NotFoundError: A file or folder is missing.
    """
    for path in (path for s in (*recipe.contexts.values(), *recipe.sources.values()) for path in files_of(s)):
        if not path.exists():
            raise NotFoundError(f"There is no {path}.", "the recipe reads it", "mend the recipe's path")


def explained(error: ValidationError, called: str) -> FormatError:
    """What is wrong with a recipe, field by field, with the nearest right word where one is misspelt."""
    reasons = "; ".join(f"{_where(e['loc'])}: {_reason(e)}".lstrip(": ") for e in error.errors())
    return FormatError(
        f"{called} is no recipe.", reasons, "mend these fields, in the file or in --set; recipes/ has examples"
    )


def _where(loc: Sequence[int | str]) -> str:
    """The field's path as it stands in the file: pydantic puts the type behind the name of a set or source."""
    typed = len(loc) > 2 and loc[0] in ("contexts", "sources")
    return ".".join(map(str, (*loc[:2], *loc[3:]) if typed else loc))


def _reason(error: Any) -> str:
    context = error.get("ctx", {})
    if error["type"] == "union_tag_invalid":
        known = [name.strip("' ") for name in context["expected_tags"].split(",")]
        return f"there is no type {context['tag']!r}{nearest(context['tag'], known)}"
    if error["type"] == "union_tag_not_found":
        return "it says no type"
    return error["msg"].removeprefix("Value error, ")
