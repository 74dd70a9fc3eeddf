"""Tier (c): a concept's direction is added below the layer that is read, and the text is as it was.

No reader of the text can tell, whatever it knows: it sees the same words with the concept and without. Asked about one
concept are texts in which it is planted, and the same texts with another one planted just as strongly.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from augury.bench.item import Item, State
from augury.bench.readings import Plants, concept_directions
from augury.bench.task import NO, REGISTRY, YES, Build, Items, Task
from augury.bench.texts import texts
from augury.lm import LanguageModel, transcript_of

STRENGTHS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
WINDOW = 10
BELOW = 6  # the direction is planted a sixth of the depth below what is read


def plants(lm: LanguageModel, layers: Sequence[int]) -> Plants:
    """The eight concepts' directions, below the lowest layer that is read."""
    found = texts("planted")
    block = max(0, min(layers) - max(1, lm.n_layers // BELOW))
    rows = {
        concept: [transcript_of(lm, sentence.format(concept=concept)).token_ids for sentence in found["sentences"]]
        for concept in found["concepts"]
    }
    return concept_directions(lm, block, rows)


def build(wanted: Build) -> Iterator[Item]:
    """Pairs of concepts in neutral texts, one strength a round, so that every beginning of the set is balanced."""
    found = texts("planted")
    rng = random.Random(f"{wanted.seed}:planted")
    pairs = rng.sample(list(itertools.combinations(found["concepts"], 2)), 28)
    neutral = [_context(wanted.lm, text) for text in found["texts"]]
    for number in range(-(-wanted.size // 4)):
        place, turn = number % len(neutral), number // len(neutral)
        strength = STRENGTHS[(place + turn) % len(STRENGTHS)]
        ids, span = neutral[place]
        pair = pairs[number % len(pairs)]
        for planted, asked in itertools.product(pair, repeat=2):
            yield Item(
                id=f"{place}-{strength:g}-{planted}-{asked}",
                problem=f"text {place}",
                token_ids=ids,
                positions=tuple(range(max(span[0], span[1] - WINDOW), span[1])),
                facts={"concept": asked, "truth": YES if planted == asked else NO, "strength": f"{strength:g}"},
                state=State(planted=planted, strength=strength),
                spans=(("user", *span),),
                cluster=" or ".join(pair),
            )


def _context(lm: LanguageModel, text: str) -> tuple[tuple[int, ...], tuple[int, int]]:
    transcript = transcript_of(lm, [{"role": "user", "content": text}])
    (span,) = (span for span in transcript.spans if span.role == "user")
    return transcript.token_ids[: span.stop], (span.start, span.stop)


REGISTRY.add(
    Items("planted", "templates of this package", "that of this package", build),
    Task(
        "planted",
        "a concept whose direction was added to the residual stream, in a text that has nothing to do with it",
        "planted",
        "yes_no",
        ("Is this about {concept}?", "Is the topic {concept}?", "Does the model have {concept} in mind here?"),
        window=WINDOW,
        sweep=(1, 5),
        stratum="concept",
        tier="planted state",
    ),
)
