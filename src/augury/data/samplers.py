"""Which positions of a span an example reads: pure functions of a random generator."""

from __future__ import annotations

import math
import random
from typing import Literal

Sampler = Literal["published", "contiguous", "single"]
MOST_SCATTERED = 100


def sample_positions(sampler: Sampler, span: range, longest: int, rng: random.Random) -> tuple[int, ...]:
    """Positions inside a span, rising; empty where the span is.

    Args:
        sampler: `single` is one position, any as likely. `contiguous` is one window of 1 to `longest`, each length as
            likely and then each place. `published` is that of "building better activation oracles" (Bauer et al. 2026)
            for conversational examples: the first and the last position (20%), the first and the last two (15%), the
            first and the last three (15%), or first, last and `k` others, `k` log-uniform on 2 to 100 (50%).
        span: Candidate positions.
        longest: The most positions of a contiguous window.
        rng: Draws.
    """
    if not len(span):
        return ()
    if sampler == "single":
        return (rng.choice(span),)
    if sampler == "contiguous":
        return window(span, rng.randint(1, min(longest, len(span))), rng)
    return _published(span, rng)


def window(span: range, length: int, rng: random.Random) -> tuple[int, ...]:
    """One contiguous window, each place in the span as likely; empty where it does not fit."""
    if length > len(span):
        return ()
    first = rng.randrange(len(span) - length + 1)
    return tuple(span[first : first + length])


def _published(span: range, rng: random.Random) -> tuple[int, ...]:
    drawn = rng.random()
    if drawn < 0.5:
        last = 1 if drawn < 0.2 else 2 if drawn < 0.35 else 3
        return tuple(sorted({span[0], *span[-last:]}))
    most = math.log(MOST_SCATTERED / 2)
    k = min(round(2 * math.exp(rng.random() * most)), len(span))
    return tuple(sorted({span[0], span[-1], *rng.sample(span, k)}))


def ending_before(stop: int, start: int, slack: int, longest: int, single: float, rng: random.Random) -> range:
    """A window that ends 1 to `slack` tokens before `stop` and does not begin before `start`.

    It holds one position with probability `single`, else 1 to `longest`, each length as likely; it is shorter where the
    text is.
    """
    end = max(start + 1, stop - rng.randint(1, slack) + 1)
    length = 1 if rng.random() < single else rng.randint(1, longest)
    return range(max(start, end - length), end)
