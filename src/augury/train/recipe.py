"""A training recipe: one frozen configuration, read from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from augury.contract import Injection, PromptFormat
from augury.data.mix import Mix
from augury.errors import FormatError, NotFoundError

Beta = Annotated[float, Field(ge=0, lt=1)]
LayerGroup = Annotated[tuple[int | str, ...], Field(min_length=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RolloutSettings(_Frozen):
    """The target's own answers that examples are made of."""

    train: int = Field(default=4000, gt=0)
    heldout: int = Field(default=500, gt=0)
    max_new_tokens: int = Field(default=64, gt=0)
    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    batch_size: int = Field(default=96, gt=0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0


class LoraSettings(_Frozen):
    """The adapter. Never change rank, alpha or the learning rate alone."""

    rank: int = Field(default=32, gt=0)
    alpha: float = Field(default=64, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    rslora: bool = False
    target_modules: str | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"


class Stage(_Frozen):
    """A mix that holds until a share of the run's examples."""

    until: float = Field(gt=0, le=1)
    mix: Mix


class OptimizerSettings(_Frozen):
    """AdamW with warm-up, a constant part, and linear decay to zero over the last part.

    The constant part lets a run be prolonged: a checkpoint before the decay goes on as if the total had been larger.
    `clip` is the longest gradient that is taken as it is; None takes all of them.
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
    checkpoint_every: int = Field(default=200, gt=0)
    autocast: Literal["bfloat16"] | None = None
    share_prefix: bool = True
    gradient_checkpointing: bool = False
    seed: int = 0


class Recipe(_Frozen):
    """Everything a training run depends on."""

    name: str
    model: str
    layers: tuple[LayerGroup, ...] = Field(min_length=1)
    injection: Injection = Injection()
    prompt: PromptFormat = PromptFormat()
    rollouts: RolloutSettings = RolloutSettings()
    lora: LoraSettings = LoraSettings()
    optimizer: OptimizerSettings
    stages: tuple[Stage, ...] = Field(min_length=1)

    @field_validator("stages")
    @classmethod
    def _cover_the_run(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        ends = [stage.until for stage in stages]
        if ends != sorted(set(ends)) or ends[-1] != 1:
            raise ValueError(f"`until` must rise and end at 1, not {ends}")
        return stages

    @property
    def longest_window(self) -> int:
        """The most activations of one layer that an example reads."""
        return max(max(stage.mix.max_window, stage.mix.lens_window) for stage in self.stages)

    def mix_at(self, share: float) -> Mix:
        """The mix in force when `share` of the examples has been seen."""
        return next((stage for stage in self.stages if share < stage.until), self.stages[-1]).mix


def read_recipe(path: Path, settings: list[str] | None = None) -> Recipe:
    """A recipe from a YAML file, with `a.b=c` settings laid over it.

    Raises:
        NotFoundError: No such file.
        FormatError: Not YAML, an unknown field, or a value out of range, in the file or in a setting; the message
            names each.
    """
    if not path.is_file():
        raise NotFoundError(f"There is no recipe {path}.", "the file does not exist", "see the folder recipes/")
    data = _yaml(_text(path), str(path), "mend the file")
    for setting in settings or ():
        _lay_over(data, setting)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise FormatError(
            f"{path} is no recipe.", reasons, "mend these fields, in the file or in --set; recipes/ has examples"
        ) from error


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
