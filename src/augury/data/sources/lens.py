"""Past and future lens: which tokens stood before the read window, which come after it.

Nothing of the answer lies inside the window, and the context is cut at the last activation, so a future token cannot
leak from the right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from augury.data.example import Example
from augury.data.rollouts import Rollout

WORDINGS = {
    "past_lens": "Can you predict the previous {k} tokens that came before this?",
    "future_lens": "Can you predict the next {k} tokens that come after this?",
}


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
    start, stop = rollout.assistant
    if task == "past_lens":
        first, last = start + k, stop - window
        begin = _place(first, last, rng)
        target = (begin - k, begin) if begin is not None else None
    else:
        first, last = start - 1, stop - k - window  # the header's last token is where the answer is planned
        begin = _place(first, last, rng)
        target = (begin + window, begin + window + k) if begin is not None else None
    if begin is None or target is None:
        return None
    ids = rollout.token_ids[slice(*target)]
    positions = tuple(range(begin, begin + window))
    wording = WORDINGS[task]
    return Example(task, task, rollout.id, positions, wording.format(k=k), decode(ids), ids, wording)


def _place(first: int, last: int, rng: random.Random) -> int | None:
    return rng.randint(first, last) if last >= first else None
