"""A training recipe: one frozen configuration, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from augury.contract import Injection, PromptFormat
from augury.data.mix import Stage, check_stages, expected
from augury.data.recipe import DataRecipe, explained
from augury.data.settings_file import read_settings
from augury.data.sources.base import Settings
from augury.errors import FormatError

AnyRecipe = TypeVar("AnyRecipe", bound=DataRecipe)
Beta = Annotated[float, Field(ge=0, lt=1)]


class LoraSettings(Settings):
    """The adapter. Never change rank, alpha or the learning rate alone."""

    rank: int = Field(default=32, gt=0)
    alpha: float = Field(default=64, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    rslora: bool = False
    target_modules: str | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"


class OptimizerSettings(Settings):
    """AdamW with warm-up, a constant part, and linear decay to zero over the last part.

    The constant part lets a run be prolonged before its decay: a sound run, though not step by step the one that the
    larger total would have given, since stages, warm-up and the order of the examples follow from the total.

    Attributes:
        examples: Of the whole run.
        batch_size: Examples of a step, over all processes.
        clip: The longest gradient that is taken as it is; None takes all of them.
        pool: Steps whose examples are drawn together and sorted by length.
        pass_tokens: Tokens in one pass through the model, at most; a step takes as many passes as it needs.
        processes: How many share each batch.
        autocast: The dtype of matrix products; None is the model's own.
        share_prefix: Whether the tokens before the first slot, which all prompts have, are run once a pass.
        gradient_checkpointing: Whether blocks run again in the backward pass, for memory; no prefix is shared then.
    """

    examples: int = Field(gt=0)
    batch_size: int = Field(default=16, gt=0)
    learning_rate: float = Field(default=4e-4, gt=0)
    warmup: float = Field(default=0.02, ge=0, lt=1)
    decay: float = Field(default=0.25, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip: float | None = Field(default=1.0, gt=0)
    pool: int = Field(default=32, gt=0)
    pass_tokens: int = Field(default=8192, gt=0)
    processes: int = Field(default=1, gt=0)
    checkpoint_every: int = Field(default=200, gt=0)
    autocast: Literal["bfloat16"] | None = None
    share_prefix: bool = True
    gradient_checkpointing: bool = False
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return -(-self.examples // self.batch_size)

    @property
    def shares(self) -> bool:
        """Whether prompts share their beginning: what is recomputed in the backward pass cannot."""
        return self.share_prefix and not self.gradient_checkpointing


class Recipe(DataRecipe):
    """Everything a training run depends on.

    Attributes:
        injection: How slots receive activations.
        prompt: The oracle's prompt.
        lora: The adapter.
        optimizer: The steps.
        stages: Shares of the sources over the run.
        reads: What stands in the prompt; with `text` the run trains a reader (see `augury train --reader`).
        data: Where the data set lies (see `augury data build`); None: in the run's folder.
        cache_activations: Whether contexts are captured once, to disk, and looked up; else each batch captures its own.
        init_from: An oracle (a folder, a hub id or an alias) whose adapter training begins with.
        evaluations: How often a small held-out sample is measured during the run.
        report: How many examples the closing report asks: thousands, or some hundreds for a first look.
    """

    injection: Injection = Injection()
    prompt: PromptFormat = PromptFormat()
    lora: LoraSettings = LoraSettings()
    optimizer: OptimizerSettings
    stages: tuple[Stage, ...] = Field(min_length=1)
    reads: Literal["activations", "text"] = "activations"
    data: Path | None = None
    cache_activations: bool = True
    init_from: str | None = None
    evaluations: int = Field(default=10, ge=0)
    report: Literal["full", "quick"] = "full"

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        check_stages(self.stages, list(self.sources))
        if self.reads == "text" and self.init_from:
            raise ValueError("init_from: a reader does not begin with an oracle: leave it out")
        return self

    @property
    def longest_window(self) -> int:
        """The most positions of an example, as far as the settings say."""
        return max(source.longest_window for source in self.sources.values())

    @property
    def drawn(self) -> dict[str, int]:
        """Examples that the run draws from each source, about."""
        return expected(self.stages, self.optimizer.examples)


def read_recipe(path: Path, settings: list[str] | None = None) -> Recipe:
    """A recipe from a YAML file, with `a.b=c` settings laid over it.

    Raises:
        NotFoundError: No such file.
        FormatError: Not YAML, an unknown field, or a value out of range, in the file or in a setting; the message
            names each.
    """
    return _validated(Recipe, read_settings(path, settings), path)


def laid_over(recipe: Recipe, settings: Mapping[str, Any], called: str) -> Recipe:
    """The recipe with other values at some paths (`injection.coefficient`).

    Raises:
        FormatError: There is no such field, or a value is out of range.
    """
    data = recipe.model_dump(mode="json")
    for path, value in settings.items():
        *parents, last = path.split(".")
        group = data
        for parent in parents:
            group = group.setdefault(parent, {}) if isinstance(group, dict) else None
        if not isinstance(group, dict):
            raise FormatError(f"{called} is no recipe.", f"{path} is no field of a group of settings", "mend its path")
        group[last] = value
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise explained(error, called) from error


def read_data_recipe(path: Path, settings: list[str] | None = None) -> DataRecipe:
    """What a data set is made of, from a training recipe or from one that has the data part alone.

    Of a training recipe all fields must be right, those of training too: the same file is trained from later.

    Raises:
        NotFoundError: No such file.
        FormatError: As `read_recipe`.
    """
    data = read_settings(path, settings)
    return _validated(Recipe if _trains(data) else DataRecipe, data, path)


def _trains(data: Any) -> bool:
    """Whether a field of training is in it, misspelt ones too, so that the right field is named."""
    nearest = [
        get_close_matches(str(name), Recipe.model_fields, 1) for name in (data if isinstance(data, dict) else ())
    ]
    return any(found and found[0] not in DataRecipe.model_fields for found in nearest)


def _validated(kind: type[AnyRecipe], data: Any, path: Path) -> AnyRecipe:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise explained(error, str(path)) from error
