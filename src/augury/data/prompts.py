"""Prompts for rollouts, each with what is known about it from how it was made."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from string import Formatter

from augury.data import bank
from augury.data.bank import Split, Task, Topic

KINDS = {"task": 0.62, "sentiment": 0.1, "tense": 0.08, "person": 0.06, "persona": 0.1, "language": 0.04}


@dataclass(frozen=True)
class Prompt:
    """A user turn and its labels.

    Attributes:
        text: The user's message.
        split: `heldout` prompts use held-out topics and held-out templates only.
        labels: What is known: `topic`, `category`, `kind`, `phrase`, `sentiment`, `tense`, `person`, `language`,
            `name`, `job`, `place`, `hobby`, `food`.
        author: Who wrote it: the bank, or the file it was read from.
    """

    text: str
    split: Split
    labels: dict[str, str] = field(default_factory=dict)
    author: str = "bank"


def make_prompts(count: int, split: Split, seed: int) -> Iterator[Prompt]:
    """`count` prompts of all kinds in random order, one at a time; equal for equal arguments."""
    return islice(_prompts(split, seed), count)


def _prompts(split: Split, seed: int) -> Iterator[Prompt]:
    """Without end."""
    rng = random.Random(f"{seed}:{split}")
    makers: dict[str, Callable[[Topic, Split, random.Random], Prompt]] = {
        "task": _task,
        "persona": _persona,
        "language": _language,
    }
    pool = bank.topics_of(split)
    while True:
        round_of_topics = rng.sample(pool, len(pool))  # every topic once before any twice
        kinds = rng.choices(list(KINDS), list(KINDS.values()), k=len(pool))
        for topic, kind in zip(round_of_topics, kinds, strict=True):
            make = makers.get(kind) or (lambda t, s, r, kind=kind: _attribute(kind, t, s, r))
            yield make(topic, split, rng)


def _of_split(what: str, templates: list[str] | tuple[str, ...], split: Split) -> list[str]:
    return [template for template in templates if bank.split_of("template", template) == split]


def _pick_task(split: Split, rng: random.Random) -> tuple[Task, str]:
    """A task with one of its templates; a task all of whose templates fall in the other split is not used."""
    while True:
        task = rng.choice(bank.tasks())
        found = [template for template in task.templates if bank.split_of("template", template) == split]
        if found:
            return task, rng.choice(found)


def _topic_labels(topic: Topic) -> dict[str, str]:
    return {"topic": topic.name, "category": topic.category}


def _task(topic: Topic, split: Split, rng: random.Random) -> Prompt:
    task, template = _pick_task(split, rng)
    labels = {**_topic_labels(topic), "kind": task.kind, "phrase": task.phrase.format(topic=topic.written)}
    return Prompt(template.format(topic=topic.written), split, labels)


def _attribute(kind: str, topic: Topic, split: Split, rng: random.Random) -> Prompt:
    value, templates = rng.choice(list(bank.read("attributes")[kind].items()))
    template = rng.choice(_of_split("template", templates, split))
    return Prompt(template.format(topic=topic.written), split, {**_topic_labels(topic), kind: value})


def _persona(topic: Topic, split: Split, rng: random.Random) -> Prompt:
    """A statement about the user, then a request; the topic is the request's."""
    lists = bank.read("attributes")
    frame = rng.choice(_of_split("template", lists["statements"], split))
    plain = {
        "name": rng.choice(lists["names"][rng.choice(("female", "male"))]),
        "job": rng.choice(lists["jobs"]),
        "place": rng.choice(lists["places"]),
        "hobby": rng.choice(lists["hobbies"]),
        "food": rng.choice(lists["foods"]),
        "pet": rng.choice(lists["animals"]),
        "color": rng.choice(lists["colors"]),
    }
    written = {**plain, "job": bank.with_article(plain["job"]), "pet": bank.with_article(plain["pet"])}
    used = {name for _, name, _, _ in Formatter().parse(frame) if name}
    labels = {key: written[key] for key in used if key in ("name", "job", "place", "hobby", "food")}
    request = _task(topic, split, rng)
    return Prompt(f"{frame.format(**written)} {request.text}", split, {**labels, **request.labels, "persona": "yes"})


def _language(topic: Topic, split: Split, rng: random.Random) -> Prompt:
    language, sentences = rng.choice(list(bank.read("attributes")["language"].items()))
    sentence = rng.choice(_of_split("template", sentences, split))
    return Prompt(sentence, split, {"language": language.capitalize()})
