"""Past and future lens: which tokens stood before the read window, which come after it.

Nothing of the answer lies inside the window, and the context is cut at the last activation, so a future token cannot
leak from the right.
"""

from __future__ import annotations

import random
from typing import Annotated, Literal

from pydantic import Field, field_validator

from augury.data.example import Context, Example
from augury.data.sources.base import Decode, Made, SourceSettings, draw, needs_weights
from augury.oracle.doctor_lens import LENS_WORDINGS

WORDINGS = {f"{direction}_lens": wording for direction, wording in LENS_WORDINGS.items()}  # the doctor asks by them
Count = Annotated[int, Field(ge=1)]


class LensSettings(SourceSettings):
    """Tokens around a window, from answers or from any text.

    Attributes:
        directions: Weight of each direction.
        window: The longest window that is read; from 1 on each length is as likely.
        k: The most tokens to be named; from 1 on each number is as likely.
        short_k: The same for the examples that ask for few.
        short: Share of the examples that ask for few: they are easier to learn to read from.
    """

    type: Literal["lens"] = "lens"
    contexts: str = Field(min_length=1)
    directions: dict[str, float] = Field(default_factory=lambda: {"past": 1.0, "future": 1.0})
    window: Count = 8
    k: Count = 50
    short_k: Count = 8
    short: float = Field(default=0.0, ge=0, le=1)

    @field_validator("directions")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        return needs_weights(value, tuple(LENS_WORDINGS))


class LensSource:
    """Draws lens examples."""

    def __init__(self, settings: LensSettings, made: Made) -> None:
        self._settings, self._made = settings, made

    def draw(self, number: int, rng: random.Random) -> tuple[Example, ...]:
        """One example: direction, k and window first, then a context with room for them, so that long k are as
        frequent as short."""
        settings, made = self._settings, self._made
        task = f"{draw(settings.directions, rng)}_lens"
        k = rng.randint(1, settings.short_k if rng.random() < settings.short else settings.k)
        window = rng.randint(1, settings.window)
        roomy = made.contexts.at_least(k + window - (task == "future_lens"))
        if not len(roomy):
            return ()
        context = made.contexts[int(rng.choice(roomy))]
        example = lens_example(context, task, k, window, rng, made.decode)
        return (example,) if example else ()


def lens_example(
    context: Context, task: str, k: int, window: int, rng: random.Random, decode: Decode
) -> Example | None:
    """One lens example inside the context's last part, or None where it is too short.

    Args:
        context: Where from.
        task: `past_lens` or `future_lens`.
        k: Tokens to be named.
        window: Activations to be read.
        rng: Chooses the place.
        decode: Token ids to text.
    """
    places = lens_places(context, task, k, window)
    if not places:
        return None
    begin = rng.choice(places)
    ids = context.token_ids[begin - k : begin] if task == "past_lens" else context.token_ids[begin + window :][:k]
    positions = tuple(range(begin, begin + window))
    wording = WORDINGS[task]
    author = context.parts[-1].author if context.parts else context.origin
    return Example(
        task, task, context.split, context.number, positions, wording.format(k=k), decode(ids), ids, wording, author
    )


def lens_places(context: Context, task: str, k: int, window: int) -> range:
    """Where a window can begin so that its `k` tokens lie inside the context's last part."""
    start, stop = context.body
    if task == "past_lens":
        return range(start + k, stop - window + 1)
    return range(max(start - 1, 0), stop - k - window + 1)  # the header's last token is where the answer is planned
