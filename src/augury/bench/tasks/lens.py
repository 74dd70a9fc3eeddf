"""The lens: the tokens before and behind what is read, in answers of the target's own."""

from __future__ import annotations

import random
from collections.abc import Iterator

from augury.bench.item import Item
from augury.bench.task import REGISTRY, Build, Items, Task
from augury.data.prompts import make_prompts
from augury.lm import Sampling, generate_many

WINDOW, TOKENS, NEW = 10, 8, 64


def build(wanted: Build) -> Iterator[Item]:
    """One window in each held-out prompt's answer, and the tokens next to it."""
    prompts = list(make_prompts(wanted.size, "heldout", 7919 + wanted.seed))
    asked = [[{"role": "user", "content": prompt.text}] for prompt in prompts]
    told = generate_many(
        wanted.lm, asked, Sampling(NEW, 0.8, 0.95, wanted.seed), width=64,
        done=lambda done: wanted.told(done, len(asked)),
    )  # fmt: skip
    rng = random.Random(f"{wanted.seed}:lens")
    for number, transcript in enumerate(told):
        spans = tuple((span.role, span.start, span.stop) for span in transcript.spans)
        _, start, stop = spans[-1]
        first, last = start + TOKENS, stop - TOKENS - WINDOW
        if last <= first:
            continue
        at = rng.randrange(first, last)
        ids = transcript.token_ids
        sides = {"past": ids[at - TOKENS : at], "future": ids[at + WINDOW : at + WINDOW + TOKENS]}
        for side, tokens in sides.items():
            facts = {"side": side, "k": str(TOKENS), "tokens": " ".join(map(str, tokens))}
            yield Item(f"{number}-{side}", str(number), ids, tuple(range(at, at + WINDOW)), facts, spans=spans)


def past(item: Item) -> bool:
    """Whether the tokens before the window are asked for."""
    return item.facts["side"] == "past"


def future(item: Item) -> bool:
    """Whether the tokens behind it are."""
    return item.facts["side"] == "future"


REGISTRY.add(
    Items("lens", "answers of the target to prompts of this package", "that of this package", build),
    Task(
        "past_lens",
        "the eight tokens before what is read",
        "lens",
        "tokens",
        (
            "Can you predict the previous {k} tokens that came before this?",
            "What are the {k} tokens just before this?",
            "Which {k} tokens led up to this?",
        ),
        window=WINDOW,
        where=past,
    ),
    Task(
        "future_lens",
        "the eight tokens behind what is read",
        "lens",
        "tokens",
        (
            "Can you predict the next {k} tokens that come after this?",
            "What are the {k} tokens just after this?",
            "Which {k} tokens follow this?",
        ),
        window=WINDOW,
        where=future,
    ),
)
