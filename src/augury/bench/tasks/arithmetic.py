"""Number prediction: what the model is about to answer, asked before it does; scored where the model is wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from augury.bench.item import Item, ItemSet
from augury.bench.published_items import published
from augury.bench.scorers import first_number
from augury.bench.task import REGISTRY, Build, Items, NotMeasurable, Task
from augury.lm import LanguageModel, Sampling, Transcript, generate_many, transcript_of
from augury.lm.chat import needs_tokenizer

PROMPT = "What is {expression}? Answer with just the number, nothing else."
POSITIONS = 50
Form = tuple[str, Callable[[int, int, int, int], int]]
FORMS: dict[str, tuple[Form, ...]] = {
    "simple": (
        ("{a} + {b}", lambda a, b, c, d: a + b),
        ("{a} - {b}", lambda a, b, c, d: a - b),
        ("{a} * {c}", lambda a, b, c, d: a * c),
    ),
    "two steps": (
        ("{a} + {b} * {c}", lambda a, b, c, d: a + b * c),
        ("({a} - {b}) * {c}", lambda a, b, c, d: (a - b) * c),
        ("{a} * {c} + {b}", lambda a, b, c, d: a * c + b),
    ),
    "three steps": (
        ("{a} + {b} - {c} * {d}", lambda a, b, c, d: a + b - c * d),
        ("({a} + {b}) * {c} - {d}", lambda a, b, c, d: (a + b) * c - d),
    ),
    "large": (
        ("{a} + {b}", lambda a, b, c, d: a + b),
        ("{a} - {b}", lambda a, b, c, d: a - b),
        ("{a} * {c}", lambda a, b, c, d: a * c),
    ),
}
LARGEST = {"large": 9999}  # of a and b; 99 elsewhere
PUBLISHED = "number_prediction/number_prediction_eval_dataset.json"


def build(wanted: Build) -> Iterator[Item]:
    """Expressions with the model's own greedy answers."""
    lm, decode = wanted.lm, needs_tokenizer(wanted.lm).decode
    made = list(_expressions(2 * wanted.size, wanted.seed))
    asked = [[{"role": "user", "content": PROMPT.format(expression=text)}] for _, text, _ in made]
    told = generate_many(lm, asked, Sampling(12), width=64, done=lambda done: wanted.told(done, len(asked)))
    found: list[Item] = []
    for (category, text, truth), transcript in zip(made, told, strict=True):
        said = first_number(str(decode(transcript.token_ids[transcript.spans[-1].start : transcript.spans[-1].stop])))
        if said is None or said != int(said):
            continue
        found.append(_item(_start(transcript), text, category, int(said), truth))
    wrong = [item for item in found if item.facts["model_answer"] != item.facts["true_answer"]]
    wanted.counts.update(asked=len(made), numbers=len(found), wrong=len(wrong))
    if len(wrong) < 30:
        raise NotMeasurable("it gives a wrong number to fewer than 30 expressions", wrong=len(wrong))
    yield from wrong[: wanted.size]


def _expressions(count: int, seed: int) -> Iterator[tuple[str, str, int]]:
    """(category, expression, value), each expression once."""
    rng = random.Random(f"{seed}:arithmetic")
    seen: set[str] = set()
    categories = list(FORMS)
    while len(seen) < count:
        category = categories[len(seen) % len(categories)]
        most = LARGEST.get(category, 99)
        a, b, c, d = rng.randint(2, most), rng.randint(2, most), rng.randint(2, 12), rng.randint(2, 12)
        form, value = rng.choice(FORMS[category])
        text = form.format(a=a, b=b, c=c, d=d)
        if text not in seen:
            seen.add(text)
            yield category, text, value(a, b, c, d)


def _start(transcript: Transcript) -> tuple[int, ...]:
    """What the model read before it answered."""
    return transcript.token_ids[: transcript.spans[-1].start]


def _item(ids: tuple[int, ...], expression: str, category: str, said: int, true: int) -> Item:
    facts = {"model_answer": str(said), "true_answer": str(true), "category": category, "expression": expression}
    return Item(expression, expression, ids, tuple(range(max(0, len(ids) - POSITIONS), len(ids))), facts)


def load(wanted: Build, folder: Path) -> ItemSet:
    """The published expressions, with what Qwen3-8B answered.

    Raises:
        FormatError: The file is not in the published form.
    """
    return published("arithmetic", folder, PUBLISHED, lambda row: [_published(wanted.lm, row)])


def _published(lm: LanguageModel, row: dict) -> Item:
    messages = [{"role": "user", "content": PROMPT.format(expression=row["expression"])}]
    ids = transcript_of(lm, messages, "generation").token_ids
    return _item(ids, row["expression"], row["category"], int(row["model_answer"]), int(row["true_answer"]))


REGISTRY.add(
    Items("arithmetic", "templates of this package", "that of this package", build, load),
    Task(
        "number_prediction",
        "the number that the model is about to answer, where it is wrong",
        "arithmetic",
        "number",
        (
            "What number is the model about to output?",
            "What number is the model planning to answer with?",
            "Predict the exact numerical answer the model will give.",
        ),
        window=10,
        sweep=(1, 5, 20, 50),
        new_tokens=10,
        aggregate="number_prediction",
    ),
)
