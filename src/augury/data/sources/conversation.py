"""Questions about what an answer has not said yet (Bauer et al. 2026): the oracle reads its beginning alone.

An answer is cut in two between sentences. What is asked is said after the cut and cannot be read before it; the
activations are those of the part before. An annotating model makes the questions (see `annotate`), or rules do.
"""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cached_property
from typing import Literal

from pydantic import Field, field_validator, model_validator

from augury.data import bank
from augury.data.coming import KINDS, finished, first_new, new_words, stands_in
from augury.data.example import Context, Example
from augury.data.requests import EndpointSettings
from augury.data.samplers import Sampler, sample_positions
from augury.data.sentences import Cut, cut_before, sentences
from augury.data.sources.base import Made, SourceSettings, draw, needs_weights
from augury.oracle.consensus import normalise_answer

PAIR = "coming_word"
PLACES = 50  # that are looked at for a kind before another is drawn: few answers have a list, most have new words


class ConversationSettings(SourceSettings):
    """Questions about the second half of answers.

    Attributes:
        contexts: A set of rollouts.
        endpoint: The annotating model; None: the questions are made by rules.
        kinds: By rules: the weight of each kind; `coming_word` is a yes/no pair, the others are open.
        positions: How positions before the cut are chosen (see `sample_positions`).
        window: The longest contiguous window.
        sentences: An answer has at least so many.
        each_side: At least so many stand on each side of the cut.
        text_answered: What becomes of annotated questions that the annotating model answers from the text before the
            cut just as well: left out, kept with the weight `text_weight`, or kept.
        text_weight: Of the loss of such questions, where they are weighed.
        most: Answers that are annotated in a split, at most; None: all.
    """

    type: Literal["conversation"] = "conversation"
    contexts: str = Field(min_length=1)
    endpoint: EndpointSettings | None = None
    kinds: dict[str, float] = Field(default_factory=lambda: {PAIR: 2.0, **dict.fromkeys(KINDS, 1.0)})
    positions: Sampler = "published"
    window: int = Field(default=50, ge=1)
    sentences: int = Field(default=8, ge=2)
    each_side: int = Field(default=3, ge=1)
    text_answered: Literal["filter", "weight", "keep"] = "filter"
    text_weight: float = Field(default=0.25, gt=0, le=1)
    most: int | None = Field(default=None, gt=0)

    @field_validator("kinds")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        return needs_weights(value, (PAIR, *KINDS))

    @model_validator(mode="after")
    def _two_sides(self) -> ConversationSettings:
        if self.sentences < 2 * self.each_side:
            raise ValueError(f"{self.sentences} sentences have no {self.each_side} on each side: raise `sentences`")
        return self

    @property
    def makes_contexts(self) -> bool:
        """Annotated answers are a set of their own."""
        return self.endpoint is not None


class ConversationSource:
    """Draws from annotated answers, or by rules from any."""

    def __init__(self, settings: ConversationSettings, made: Made) -> None:
        self._settings, self._made = settings, made

    def draw(self, number: int, rng: random.Random) -> tuple[Example, ...]:
        """One question, or a pair by rules; annotated answers take turns."""
        contexts = self._made.contexts
        if not len(contexts):
            return ()
        if self._settings.endpoint is not None:
            return (self._annotated(contexts[number % len(contexts)], rng),)
        kind = draw(self._settings.kinds, rng)
        for _ in range(PLACES):
            if found := self._by_rule(kind, contexts[rng.randrange(len(contexts))], rng):
                return found
        return ()

    def _annotated(self, context: Context, rng: random.Random) -> Example:
        labels = context.labels
        known = labels["text_answers"] == "yes"
        weight = self._settings.text_weight if known and self._settings.text_answered == "weight" else 1.0
        notes = {"form": "annotated", "text_answer": labels["text_answer"], "text_answers": labels["text_answers"]}
        return Example(
            "conversation", "annotated", context.split, context.number, self._read(context, int(labels["cut"]), rng),
            labels["question"], labels["answer"], None, labels["question"], author=labels["annotator"], weight=weight,
            notes=notes,
        )  # fmt: skip

    def _by_rule(self, kind: str, context: Context, rng: random.Random) -> tuple[Example, ...]:
        cut = self._cut(context, rng)
        if cut is None:
            return ()
        earlier, rest = self._made.decode(context.token_ids[: cut.token]), _rest(context, cut)
        positions = self._read(context, cut.token, rng)
        if kind == PAIR:
            return self._pair(context, positions, earlier, rest, rng)
        wording = rng.choice(bank.wordings(f"open_coming_{kind}", self._made.split))
        answer = first_new(kind, earlier, rest)
        if answer is None or says(wording, answer):
            return ()
        return (self._example("conversation", kind, context, positions, wording, wording, answer),)

    def _pair(
        self, context: Context, positions: tuple[int, ...], earlier: str, rest: str, rng: random.Random
    ) -> tuple[Example, ...]:
        """A word that the rest says for the first time, and one that it would say in another answer."""
        said, unsaid = new_words(earlier, rest), self._elsewhere(context, rng)
        text = self._made.decode(context.token_ids)
        unsaid = [word for word in unsaid if not stands_in(word, text)]
        if not said or not unsaid:
            return ()
        wording = rng.choice(bank.wordings(PAIR, self._made.split))
        words = ((rng.choice(said), "Yes"), (rng.choice(unsaid), "No"))
        asked = [(wording.format(x=word), answer) for word, answer in words]
        return tuple(
            self._example("yes_no", PAIR, context, positions, wording, question, answer) for question, answer in asked
        )

    def _elsewhere(self, context: Context, rng: random.Random) -> list[str]:
        """The new words of another answer, found as this one's are: of the same topic half the time, if there is one,
        so that the topic does not tell."""
        same = self._of_topic.get(context.labels.get("topic", ""), []) if rng.random() < 0.5 else []
        others = [number for number in same if number != context.number] or range(len(self._made.contexts))
        other = self._made.contexts[rng.choice(others)]
        cut = self._cut(other, rng)
        return new_words(self._made.decode(other.token_ids[: cut.token]), _rest(other, cut)) if cut else []

    def _cut(self, context: Context, rng: random.Random) -> Cut | None:
        """A random cut that leaves enough sentences on each side."""
        start, stop = context.assistant
        found = sentences(self._made.decode(context.token_ids[start:stop]))
        if len(found) < self._settings.sentences:
            return None
        first = rng.randint(self._settings.each_side, len(found) - self._settings.each_side)
        return cut_before(context.token_ids, start, stop, found[first].start, self._made.decode)

    def _read(self, context: Context, cut: int, rng: random.Random) -> tuple[int, ...]:
        """Positions from the user's end to the cut."""
        span = range(context.user[1], cut)
        return sample_positions(self._settings.positions, span, self._settings.window, rng)

    def _example(
        self, task: str, kind: str, context: Context, positions: tuple[int, ...], wording: str, question: str,
        answer: str,
    ) -> Example:  # fmt: skip
        return Example(
            task, kind, context.split, context.number, positions, question, answer, None,
            f"{kind}:{wording}", author="rule", notes={"form": "rule"},
        )  # fmt: skip

    @cached_property
    def _of_topic(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for number in map(int, self._made.contexts.having("topic")):
            found[self._made.contexts[number].labels["topic"]].append(number)
        return found


def _rest(context: Context, cut: Cut) -> str:
    """What comes after the cut, without the sentence in which the longest length cut it off."""
    return finished(cut.after, ended=len(context.token_ids) > context.assistant[1])


def says(question: str, answer: str) -> bool:
    """Whether a question contains its answer, as whole words."""
    return f" {normalise_answer(answer)} " in f" {normalise_answer(question)} "
