"""Yes/no and open questions whose answer is known from how a rollout was made, or from its own text.

Yes/no questions come in pairs: the same read and the same wording once with an answer Yes and once with No, so that
neither the wording nor the read alone tells the answer.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from augury.data import bank
from augury.data.bank import Split
from augury.data.example import Context, Example
from augury.data.fair import fair
from augury.data.sources.base import Decode, Made, SourceSettings, draw, needs_weights

NEAR = 8  # tokens that count as "the next few words"


@dataclass(frozen=True)
class Read:
    """The window of a context that a question is about."""

    context: Context
    positions: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.positions[-1]


Place = Literal["request_end", "anywhere"]


def pick_read(context: Context, kind: str, window: int, place: Place, rng: random.Random) -> Read | None:
    """A window of `window` tokens for one kind of question; None where the context has none.

    Args:
        place: For what the user asked for (topic, task, manner): `request_end` is a window that holds the last
            token of the user's message and nothing of the answer; `anywhere` is any window from the token after it to
            the answer's last. Other kinds have one place each, where their answer can be known.
    """
    user, assistant = context.user, context.assistant
    if kind == "speaker":
        first, stop = rng.choice((user, assistant))
    elif kind == "language":
        first, stop = user[0] + 2, user[1]
    elif kind in ("name", "job", "place", "hobby", "food"):
        first, stop = user[1] - 1, min(assistant[1], assistant[0] + 12)
    elif kind in ("next_word", "previous_word", "next"):
        first, stop = assistant
    elif place == "request_end":
        first, stop = max(user[0], user[1] - window), min(assistant[0], user[1] - 1 + window)
    else:
        first, stop = user[1], assistant[1]
    ends = range(first + window - 1, stop)
    if not ends:
        return None
    end = rng.choice(ends)
    return Read(context, tuple(range(end - window + 1, end + 1)))


YES_NO_KINDS = (
    "topic", "near_topic", "category", "task", "sentiment", "tense", "person", "language", "speaker",
    "next_word", "previous_word", "name", "job", "place", "hobby", "food",
)  # fmt: skip
OPEN_KINDS = (
    "topic", "category", "task", "kind", "sentiment", "tense", "person", "language", "speaker",
    "next", "name", "job", "place", "hobby", "food",
)  # fmt: skip
_OPEN_LABEL = {"task": "phrase"}


_OF_TEXT = ("speaker", "next", "next_word", "previous_word")  # asked of any answer; other kinds need a label
_LABEL = {"task": "kind", "near_topic": "topic"}


class QuestionSettings(SourceSettings):
    """Questions about answers to the prompt bank.

    Attributes:
        pairs: Share of yes/no questions; the others are open.
        yes_no: Weight of each kind of yes/no question.
        open: Weight of each kind of open question.
        window: The longest window that is read; with 1 all of them read one activation.
        single: Share of questions that read one activation only.
        at_request_end: Share of questions about the request that read its end (see `pick_read`).
    """

    type: Literal["questions"] = "questions"
    contexts: str = Field(min_length=1)
    pairs: float = Field(default=0.75, ge=0, le=1)
    yes_no: dict[str, float] = Field(default_factory=lambda: {"topic": 1.0})
    open: dict[str, float] = Field(default_factory=lambda: {"topic": 1.0})
    window: int = Field(default=10, ge=1)
    single: float = Field(default=0.35, ge=0, le=1)
    at_request_end: float = Field(default=0.7, ge=0, le=1)

    @field_validator("yes_no")
    @classmethod
    def _known_yes_no(cls, value: dict[str, float]) -> dict[str, float]:
        return needs_weights(value, YES_NO_KINDS)

    @field_validator("open")
    @classmethod
    def _known_open(cls, value: dict[str, float]) -> dict[str, float]:
        return needs_weights(value, OPEN_KINDS)


class QuestionSource:
    """Draws yes/no pairs and open questions."""

    def __init__(self, settings: QuestionSettings, made: Made) -> None:
        self._settings, self._made = settings, made

    def draw(self, number: int, rng: random.Random) -> tuple[Example, ...]:
        """A pair, or one open question; a pair counts twice among the examples, so it is drawn half as often."""
        settings, made = self._settings, self._made
        pair = rng.random() < settings.pairs / (2 - settings.pairs)
        kind = draw(settings.yes_no if pair else settings.open, rng)
        window = 1 if settings.window == 1 or rng.random() < settings.single else rng.randint(2, settings.window)
        place: Place = "request_end" if rng.random() < settings.at_request_end else "anywhere"
        numbers = range(len(made.contexts)) if kind in _OF_TEXT else made.contexts.having(_LABEL.get(kind, kind))
        if not len(numbers):
            return ()
        read = pick_read(made.contexts[int(rng.choice(numbers))], kind, window, place, rng)
        if read is None:
            return ()
        if pair:
            return yes_no_pair(read, kind, made.split, rng, made.decode)
        example = open_question(read, kind, made.split, rng, made.decode)
        return (example,) if example else ()


def yes_no_pair(read: Read, kind: str, split: Split, rng: random.Random, decode: Decode) -> tuple[Example, ...]:
    """The pair (Yes, No) of one kind about one read; empty where the rollout has no such label."""
    values = _values(read, kind, split, rng, decode)
    if values is None:
        return ()
    wording = rng.choice(bank.wordings("topic" if kind == "near_topic" else kind, split))
    made = []
    for value, answer in zip(values, ("Yes", "No"), strict=True):
        question = wording.format(x=value)
        question = question[0].upper() + question[1:]
        made.append(
            Example(
                "yes_no",
                kind,
                split,
                read.context.number,
                read.positions,
                question,
                answer,
                None,
                f"{kind}:{wording}",
                author=_author(kind),
            )
        )
    return tuple(made)


def open_question(read: Read, kind: str, split: Split, rng: random.Random, decode: Decode) -> Example | None:
    """A short open question of one kind; None where the rollout has no such label."""
    answer = _open_answer(read, kind, rng, decode)
    if not answer:
        return None
    wordings = bank.wordings(f"open_{kind}", split)
    wording = rng.choice(fair(wordings, answer, _few(kind)) or wordings)  # the next words may be any words
    return Example(
        "open",
        kind,
        split,
        read.context.number,
        read.positions,
        wording,
        answer,
        None,
        f"open_{kind}:{wording}",
        author=_author(kind),
    )


def _author(kind: str) -> str:
    """Words of the answer are the target's own; labels follow from the template."""
    return "target" if kind in ("next", "next_word", "previous_word") else "template"


def _few(kind: str) -> list[str]:
    """All answers to an open question, where these are few."""
    if kind == "speaker":
        return ["the user", "the assistant"]
    return _alternatives(kind) if kind in ("sentiment", "tense", "person") else []


def _open_answer(read: Read, kind: str, rng: random.Random, decode: Decode) -> str | None:
    labels = read.context.labels
    if kind == "speaker":
        return speaker(read.context, read.end)
    if kind == "next":
        following = read.context.token_ids[read.end + 1 : read.context.assistant[1]][: rng.randint(4, NEAR)]
        return decode(following).strip() or None
    if kind == "topic" and "topic" in labels:
        return topic_of(labels).answer
    return labels.get(_OPEN_LABEL.get(kind, kind))


def speaker(context: Context, position: int) -> str:
    """Whose turn a position is in; the last token before the answer counts as the assistant's."""
    return "the assistant" if position >= context.assistant[0] - 1 else "the user"


def topic_of(labels: dict[str, str]) -> bank.Topic:
    """The bank's topic that a rollout's labels name."""
    return bank.topic_named(labels["topic"])


def _values(read: Read, kind: str, split: Split, rng: random.Random, decode: Decode) -> tuple[str, str] | None:
    """What is asked about, once truly and once falsely."""
    labels = read.context.labels
    if kind == "speaker":
        true = speaker(read.context, read.end)
        return true, "the user" if true == "the assistant" else "the assistant"
    if kind in ("next_word", "previous_word"):
        return _words(read, kind, rng, decode)
    if kind == "task":
        return _task_values(labels, rng)
    if kind in ("topic", "near_topic") and "topic" in labels:
        return _topic_values(labels, split, kind == "near_topic", rng)
    if kind not in labels:
        return None
    if kind == "category":
        return labels[kind], rng.choice(_far_categories(labels[kind]))
    return labels[kind], rng.choice([value for value in _alternatives(kind) if value != labels[kind]])


def _topic_values(labels: dict[str, str], split: Split, near: bool, rng: random.Random) -> tuple[str, str] | None:
    """The topic and another of the same split: of another area, or, when `near`, of its own."""
    topic = topic_of(labels)
    areas = [topic.category] if near else _far_categories(topic.category)
    others = [other for other in bank.topics_of(split) if other.category in areas and other != topic]
    return (topic.answer, rng.choice(others).answer) if others else None


def _far_categories(category: str) -> list[str]:
    found = dict.fromkeys(topic.category for topic in bank.topics())
    overlaps = bank.overlapping_categories()
    return [other for other in found if other != category and frozenset((other, category)) not in overlaps]


def _task_values(labels: dict[str, str], rng: random.Random) -> tuple[str, str] | None:
    if "kind" not in labels:
        return None
    others = [task.kind for task in bank.tasks() if task.kind != labels["kind"]]
    return bank.with_article(labels["kind"]), bank.with_article(rng.choice(others))


def _alternatives(kind: str) -> list[str]:
    lists = bank.read("attributes")
    if kind in ("sentiment", "tense", "person"):
        return list(lists[kind])
    if kind == "language":
        return [language.capitalize() for language in lists[kind]]
    if kind == "name":
        return [*lists["names"]["female"], *lists["names"]["male"]]
    if kind == "job":
        return [bank.with_article(job) for job in lists["jobs"]]
    return lists[{"place": "places", "hobby": "hobbies", "food": "foods"}[kind]]


_WORD = re.compile(r"[A-Za-z]{4,}")


def _words(read: Read, kind: str, rng: random.Random, decode: Decode) -> tuple[str, str] | None:
    """A word of the neighbouring text, and one that stands elsewhere in the same answer but not nearby."""
    ids, assistant = read.context.token_ids, read.context.assistant
    if kind == "next_word":
        nearby = ids[read.end + 1 : min(read.end + 1 + NEAR, assistant[1])]
    else:
        nearby = ids[max(assistant[0], read.positions[0] - NEAR) : read.positions[0]]
    close = decode(ids[max(assistant[0], read.positions[0] - NEAR) : min(read.end + 1 + NEAR, assistant[1])]).lower()
    inner = decode(nearby)
    true = [word for word in _WORD.findall(inner) if f" {word}" in inner]
    false = [word for word in _WORD.findall(decode(ids[slice(*assistant)])) if word.lower() not in close]
    if not true or not false:
        return None
    return f"'{rng.choice(true)}'", f"'{rng.choice(false)}'"
