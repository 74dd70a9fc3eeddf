"""Tier (a): equal tokens are read behind different earlier text.

It shows reading beyond the window, not beyond the text: who sees all of the text knows as much.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from augury.bench.item import Item
from augury.bench.task import NO, REGISTRY, YES, Build, Items, Task
from augury.bench.texts import texts
from augury.errors import ModelError
from augury.lm import LanguageModel, transcript_of

WINDOW = 10


def build(wanted: Build) -> Iterator[Item]:
    """Pairs of contexts that differ in one early word, each asked about both words."""
    found = texts("same_window")
    rng = random.Random(f"{wanted.seed}:same window")
    families = list(found["families"].items())
    for number in range(-(-wanted.size // 4)):
        name, family = families[number % len(families)]
        pair = rng.sample(family["values"], 2)
        middle, end = rng.choice(found["between"]), rng.choice(found["read"])
        rows = [_read(wanted.lm, f"{family['early'].format(value=value)} {middle}", end) for value in pair]
        _check(rows)
        for (value, (ids, span)), asked in itertools.product(zip(pair, rows, strict=True), pair):
            questions = {f"ask{i}": text.format(value=asked) for i, text in enumerate(family["questions"])}
            yield Item(
                id=f"{number}-{value}-{asked}",
                problem=f"pair {number}",
                token_ids=ids,
                positions=tuple(range(span[1] - WINDOW, span[1])),
                facts={"truth": YES if value == asked else NO, "asked": asked, "family": name, **questions},
                spans=(("user", *span),),
            )


def _read(lm: LanguageModel, before: str, read: str) -> tuple[tuple[int, ...], tuple[int, int]]:
    transcript = transcript_of(lm, [{"role": "user", "content": f"{before} {read}"}])
    (span,) = (span for span in transcript.spans if span.role == "user")
    return transcript.token_ids[: span.stop], (span.start, span.stop)


def _check(rows: list[tuple[tuple[int, ...], tuple[int, int]]]) -> None:
    """Both contexts of a pair must be read at equal tokens, and differ before them."""
    windows = [ids[-WINDOW:] for ids, _ in rows]
    if windows[0] != windows[1] or rows[0][0] == rows[1][0]:
        raise ModelError(
            "A pair of contexts is not read at equal tokens.",
            "this tokenizer joins what is read to what stands before it",
            "report this with the name of the model: the texts need another ending",
        )


REGISTRY.add(
    Items("same_window", "templates of this package", "that of this package", build),
    Task(
        "same_window",
        "a code word, a job, a place or a premise that was given before the tokens that are read",
        "same_window",
        "yes_no",
        ("{ask0}", "{ask1}", "{ask2}"),
        window=WINDOW,
        sweep=(1, 5),
        stratum="asked",
        tier="same window",
    ),
)
