"""The stream of training examples: a function of (seed, number) alone, so that a resumed run continues it exactly."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from augury.data.bank import Split
from augury.data.example import Example
from augury.data.rollouts import Rollout
from augury.data.sources.lens import lens_example, lens_places
from augury.data.sources.questions import OPEN_KINDS, YES_NO_KINDS, Place, open_question, pick_read, yes_no_pair
from augury.errors import InputError

TASKS = ("past_lens", "future_lens", "yes_no", "open")


class Mix(BaseModel):
    """What examples are made of.

    Attributes:
        weights: Share of each task among the examples.
        yes_no: Weight of each kind of yes/no question.
        open: Weight of each kind of open question.
        max_window: The longest window that questions read; with 1 all of them read one activation.
        lens_window: The longest window that lens examples read; from 1 on each length is as likely.
        single: Share of questions that read one activation only.
        at_request_end: Share of questions about the request that read its end (see `pick_read`).
        long_k: Share of lens examples with k drawn from 1 to 50 instead of 1 to 8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weights: dict[str, float]
    yes_no: dict[str, float] = Field(default_factory=lambda: {"topic": 1.0})
    open: dict[str, float] = Field(default_factory=lambda: {"topic": 1.0})
    max_window: int = Field(default=10, ge=1)
    lens_window: int = Field(default=8, ge=1)
    single: float = Field(default=0.35, ge=0, le=1)
    at_request_end: float = Field(default=0.7, ge=0, le=1)
    long_k: float = Field(default=0.15, ge=0, le=1)

    @field_validator("weights", "yes_no", "open")
    @classmethod
    def _known(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        names = {"weights": TASKS, "yes_no": YES_NO_KINDS, "open": OPEN_KINDS}[str(info.field_name)]
        unknown = sorted(value.keys() - set(names))
        if unknown or not any(weight > 0 for weight in value.values()) or min(value.values()) < 0:
            raise ValueError(f"weights must be >= 0, not all 0, over {', '.join(names)}; unknown: {unknown}")
        return value


TRIES = 1000


class Stream:
    """Examples by number; `stream.unit(i, mix)` makes one unit (an example, or a yes/no pair)."""

    def __init__(
        self, rollouts: Sequence[Rollout], split: Split, seed: int, decode: Callable[[Sequence[int]], str]
    ) -> None:
        self.rollouts, self.seed, self.decode = rollouts, seed, decode
        self.split: Split = split
        self._with: dict[str, list[Rollout]] = {}
        self._longer: dict[tuple[str, int], list[Rollout]] = {}

    def unit(self, number: int, mix: Mix) -> tuple[Example, ...]:
        """The unit of this number under a mix."""
        rng = random.Random(f"{self.seed}:{number}")
        for _ in range(TRIES):
            task = _draw({**mix.weights, "yes_no": mix.weights.get("yes_no", 0) / 2}, rng)  # a pair counts twice
            if found := self._make(task, mix, rng):
                return found
        raise InputError(
            "No example could be made.",
            f"none of {TRIES} draws from the mix found a rollout with the label or the length that it needs",
            "sample more rollouts, longer ones, or weigh other kinds of questions",
        )

    def _make(self, task: str, mix: Mix, rng: random.Random) -> tuple[Example, ...]:
        if task in ("past_lens", "future_lens"):
            return self._lens(task, mix, rng)
        kind = _draw(mix.yes_no if task == "yes_no" else mix.open, rng)
        window = 1 if rng.random() < mix.single or mix.max_window == 1 else rng.randint(2, mix.max_window)
        place: Place = "request_end" if rng.random() < mix.at_request_end else "anywhere"
        read = pick_read(rng.choice(self.rollouts_with(kind)), kind, window, place, rng)
        if read is None:
            return ()
        if task == "yes_no":
            return yes_no_pair(read, kind, self.split, rng, self.decode)
        example = open_question(read, kind, self.split, rng, self.decode)
        return (example,) if example else ()

    def _lens(self, task: str, mix: Mix, rng: random.Random) -> tuple[Example, ...]:
        """A lens example; where the rollout is too short for k another is drawn, never another k: long ones count."""
        k = rng.randint(1, 50 if rng.random() < mix.long_k else 8)
        rollout, window = rng.choice(self.rollouts), rng.randint(1, mix.lens_window)
        if not lens_places(rollout, task, k, window):
            longer = self._long_enough(task, k, window)
            if not longer:
                return ()
            rollout = rng.choice(longer)
        example = lens_example(rollout, task, k, window, rng, self.decode)
        return (example,) if example else ()

    def _long_enough(self, task: str, k: int, window: int) -> list[Rollout]:
        key = (task, k + window)  # only their sum matters
        if key not in self._longer:
            self._longer[key] = [r for r in self.rollouts if lens_places(r, task, k, window)]
        return self._longer[key]

    def rollouts_with(self, kind: str) -> list[Rollout]:
        """The rollouts that a kind of question can be asked about."""
        if kind not in self._with:
            label = {"task": "kind", "near_topic": "topic"}.get(kind, kind)
            of_text = kind in ("speaker", "next", "next_word", "previous_word")
            self._with[kind] = [r for r in self.rollouts if of_text or label in r.labels] or list(self.rollouts)
        return self._with[kind]


def _draw(weights: dict[str, float], rng: random.Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]
