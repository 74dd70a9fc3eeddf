"""Past and future lens: which tokens stood before the read window, which come after it.

Nothing of the answer lies inside the window, and the context is cut at the last activation, so a future token cannot
leak from the right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from augury.data.example import Example
from augury.data.rollouts import Rollout
from augury.oracle.doctor_lens import LENS_WORDINGS

WORDINGS = {f"{direction}_lens": wording for direction, wording in LENS_WORDINGS.items()}  # the doctor asks by them


def lens_example(
    rollout: Rollout,
    task: str,
    k: int,
    window: int,
    rng: random.Random,
    decode: Callable[[Sequence[int]], str],
) -> Example | None:
    """One lens example inside the rollout's answer, or None where it is too short.

    Args:
        rollout: Where from.
        task: `past_lens` or `future_lens`.
        k: Tokens to be named.
        window: Activations to be read.
        rng: Chooses the place.
        decode: Token ids to text.
    """
    places = lens_places(rollout, task, k, window)
    if not places:
        return None
    begin = rng.randint(places[0], places[-1])
    ids = rollout.token_ids[begin - k : begin] if task == "past_lens" else rollout.token_ids[begin + window :][:k]
    positions = tuple(range(begin, begin + window))
    wording = WORDINGS[task]
    return Example(task, task, rollout.id, positions, wording.format(k=k), decode(ids), ids, wording)


def lens_places(rollout: Rollout, task: str, k: int, window: int) -> range:
    """Where a window can begin so that its `k` tokens lie inside the rollout's answer."""
    start, stop = rollout.assistant
    if task == "past_lens":
        return range(start + k, stop - window + 1)
    return range(start - 1, stop - k - window + 1)  # the header's last token is where the answer is planned
