"""The prompt bank that the package ships: topics, tasks, attributes, and the wordings of questions.

Whole topics, whole prompt templates and whole wordings are held out, each by a hash of its own text, so that a split
never changes when the bank grows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml

Split = Literal["train", "heldout"]
PROPER = ("countries", "cities", "mythology")
HELD_OUT_SHARE = {"topic": 0.15, "template": 0.2, "wording": 0.25}


@dataclass(frozen=True)
class Topic:
    """Something to write about; `aliases` name the same thing."""

    name: str
    aliases: tuple[str, ...]
    category: str

    @property
    def written(self) -> str:
        """How the topic stands inside a sentence ("the moon", "Spain")."""
        if self.category in PROPER:
            return self.name.title()
        return next((alias for alias in self.aliases if alias.startswith("the ")), self.name)

    @property
    def answer(self) -> str:
        """The topic as an answer names it ("moon", "Spain")."""
        return self.name.title() if self.category in PROPER else self.name


@dataclass(frozen=True)
class Task:
    """A kind of text that can be asked for."""

    kind: str
    phrase: str
    templates: tuple[str, ...]


_LOADER = (
    yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
)  # in C where PyYAML was built so: ten times as fast


@cache
def read(name: str) -> Any:
    """One YAML file of the bank."""
    text = resources.files("augury.data").joinpath("bank", f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=_LOADER)


@cache
def topics() -> tuple[Topic, ...]:
    return tuple(Topic(row["name"], tuple(row["aliases"]), row["category"]) for row in read("topics"))


@cache
def tasks() -> tuple[Task, ...]:
    return tuple(Task(row["kind"], row["phrase"], tuple(row["templates"])) for row in read("tasks"))


@cache
def overlapping_categories() -> frozenset[frozenset[str]]:
    """Pairs of categories of which neither is a safe "no" for a topic of the other."""
    return frozenset(frozenset(pair) for pair in read("attributes")["category_overlaps"])


@cache
def wordings(kind: str, split: Split) -> tuple[str, ...]:
    """The question wordings of one kind that belong to a split."""
    return tuple(text for text in read("questions")[kind] if split_of("wording", f"{kind}:{text}") == split)


def split_of(what: str, text: str) -> Split:
    """Whether a topic, template or wording is held out."""
    share = int.from_bytes(hashlib.sha256(f"{what}:{text}".encode()).digest()[:4], "big") / 2**32
    return "heldout" if share < HELD_OUT_SHARE[what] else "train"


@cache
def topics_of(split: Split) -> tuple[Topic, ...]:
    return tuple(topic for topic in topics() if split_of("topic", topic.name) == split)


def with_article(noun: str) -> str:
    """`a nurse`, `an engineer`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@cache
def _by_name() -> dict[str, Topic]:
    return {topic.name: topic for topic in topics()}


def topic_named(name: str) -> Topic:
    """The topic of this name."""
    return _by_name()[name]
