"""Topics: what a request is about, named in a few words; and whether the oracle's agreement says when it is right."""

from __future__ import annotations

from collections.abc import Iterator

from augury.bench.item import Item
from augury.bench.task import REGISTRY, Build, Items, Task
from augury.data.bank import Topic, topic_named
from augury.data.prompts import make_prompts
from augury.lm import transcript_of

WINDOW = 10


def build(wanted: Build) -> Iterator[Item]:
    """Requests of the package's about topics that no oracle of its recipes is trained on."""
    made = 0
    for number, prompt in enumerate(make_prompts(4 * wanted.size, "heldout", 104729 + wanted.seed)):
        if "topic" not in prompt.labels or made == wanted.size:
            continue
        made += 1
        topic = topic_named(prompt.labels["topic"])
        found = transcript_of(wanted.lm, [{"role": "user", "content": prompt.text}])
        span = next(span for span in found.spans if span.role == "user")
        ids = found.token_ids[: span.stop]
        yield Item(
            id=str(number),
            problem=topic.name,
            token_ids=ids,
            positions=tuple(range(span.start, span.stop)),
            facts={"truth": topic.answer, "also": "|".join(_also(topic)), "category": topic.category},
            spans=(("user", span.start, span.stop),),
        )


def _also(topic: Topic) -> Iterator[str]:
    yield from (name for name in (topic.name, *topic.aliases) if name != topic.answer)


REGISTRY.add(
    Items("topics", "requests of this package", "that of this package", build),
    Task(
        "topic",
        "what a request is about, named; and whether ten samples agree where the answer is right",
        "topics",
        "word",
        ("What is this about?", "Name the topic in a few words.", "What did the user ask about?"),
        window=WINDOW,
        sweep=(1, 5),
        new_tokens=8,
        samples=10,
    ),
)
