"""Rubrics: what a judge is asked about an open answer, and what its replies mean."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from augury.bench.texts import texts
from augury.data.requests import Request
from augury.lm.chat import Message

VERDICT = "verdict"
SCALE_ENDS: tuple[int, int] = (1, 5)
Given = dict[str, Any]  # what a judge says of an answer: `verdict`, or a number for each scale


@dataclass(frozen=True)
class Rubric:
    """How a kind of open answer is judged.

    Attributes:
        name: Its name.
        about: What the judge is told of where the answer comes from.
        verdicts: Each with what it means; empty where there are scales.
        scales: Each with what some of its numbers mean.
        headline: The first scale that is reported.
        measures: Shares that are reported, by name, the first the headline.
        pair: Whether two answers are compared with each other.
        planted: Two answers that differ and mean it, where two are compared.
        right: Verdicts of an answer that is right.
        wrong: Of one that is wrong.
    """

    name: str
    about: str
    verdicts: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    headline: str = VERDICT
    measures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pair: bool = False
    planted: Sequence[str] = ()
    right: Sequence[str] = ()
    wrong: Sequence[str] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The measures that part all answers among them."""
        found: list[str] = []
        seen: set[str] = set()
        for name, verdicts in self.measures.items():
            if not seen & set(verdicts):
                found.append(name)
                seen |= set(verdicts)
        return tuple(found)

    def is_right(self, given: Given) -> bool:
        """Whether this is what a right answer gets."""
        return given[VERDICT] in self.right if self.verdicts else given[self.headline] >= SCALE_ENDS[1] - 1

    def agree(self, one: Given, other: Given) -> bool:
        """Whether two judgements of one answer are the same, on a scale by one at most."""
        if self.verdicts:
            return one[VERDICT] == other[VERDICT]
        return abs(one[self.headline] - other[self.headline]) <= 1

    def is_wrong(self, given: Given) -> bool:
        """Whether this is what a wrong one gets."""
        return given[VERDICT] in self.wrong if self.verdicts else given[self.headline] <= SCALE_ENDS[0] + 1


@cache
def rubrics() -> dict[str, Rubric]:
    """All rubrics by name."""
    return {name: Rubric(name, **row) for name, row in texts("judge")["rubrics"].items()}


def version() -> int:
    """Of all that a judge is told."""
    return int(texts("judge")["version"])


@dataclass(frozen=True)
class Job:
    """What a judge looks at.

    Attributes:
        rubric: The rubric's name.
        question: What was asked.
        answers: The answer; two of a pair, whose order means nothing.
        reference: What is true; of a pair nothing is told.
        turn: 1 is the same job with its parts in the opposite order.
    """

    rubric: str
    question: str
    answers: tuple[str, ...]
    reference: str = ""
    turn: int = 0


def request_of(job: Job, structured: bool) -> Request:
    """What the judge is asked: nothing says who answered, and the order of all parts is drawn from the job itself."""
    rubric = rubrics()[job.rubric]
    answers = sorted(job.answers)  # so that to swap a pair changes nothing
    rng = random.Random(f"{job.question}:{answers}:{job.reference}")
    rng.shuffle(answers)
    names = rng.sample(list(rubric.verdicts or rubric.scales), len(rubric.verdicts or rubric.scales))
    parts = [f"<answer>\n{_quoted(answer)}\n</answer>" for answer in answers]
    if not rubric.pair:
        parts.insert(0, f"<truth>\n{job.reference}\n</truth>")
    if job.turn:
        parts.reverse()
        names.reverse()
    parts = [rubric.about, f"The question:\n{job.question}", *parts, _legend(rubric, names), _form(rubric)]
    messages = (Message("system", texts("judge")["system"].strip()), Message("user", "\n\n".join(parts)))
    return Request(messages, extra={"response_format": _schema(rubric)} if structured else {})


def given_in(rubric: Rubric, reply: str) -> Given | None:
    """What a reply says; None where it says nothing that the rubric knows."""
    row = _object_in(reply, frozenset(rubric.scales) or frozenset((VERDICT,)))
    if row is None:
        return None
    if rubric.verdicts:
        told = row.get(VERDICT)
        return {VERDICT: told} if isinstance(told, str) and told in rubric.verdicts else None
    found: Given = {}
    for scale in rubric.scales:
        told = row.get(scale)
        number = int(told) if isinstance(told, str) and re.fullmatch(r"\d", told) else told
        number = int(number) if isinstance(number, float) and number.is_integer() else number
        if not isinstance(number, int) or isinstance(number, bool) or not SCALE_ENDS[0] <= number <= SCALE_ENDS[1]:
            return None
        found[scale] = number
    return found


def _object_in(reply: str, fields: frozenset[str]) -> Mapping[str, Any] | None:
    """The last JSON object of a reply with one of these fields, whatever words stand around it."""
    decoder = json.JSONDecoder()
    for start in reversed([place for place, letter in enumerate(reply) if letter == "{"]):
        try:
            found, _ = decoder.raw_decode(reply, start)
        except ValueError:
            continue
        if isinstance(found, dict) and not fields.isdisjoint(found):
            return found
    return None


def _quoted(answer: str) -> str:
    """An answer that cannot end its own frame."""
    return re.sub(r"<(?=/?\s*(answer|truth))", "\u2039", answer, flags=re.IGNORECASE) or "(nothing)"


def _legend(rubric: Rubric, names: Sequence[str]) -> str:
    if rubric.verdicts:
        return "Verdicts:\n" + "\n".join(f"- {name}: {rubric.verdicts[name]}" for name in names)
    return "Scales:\n" + "\n".join(_scale(name, rubric.scales[name]) for name in names)


def _scale(name: str, meanings: Mapping[int, str]) -> str:
    told = "; ".join(f"{number} {meaning}" for number, meaning in meanings.items())
    return f"- {name}, a whole number from {SCALE_ENDS[0]} to {SCALE_ENDS[1]}: {told}"


def _form(rubric: Rubric) -> str:
    fields = ['"reason": "one short sentence"']
    fields += ['"verdict": "..."'] if rubric.verdicts else [f'"{scale}": ...' for scale in rubric.scales]
    return "Reply with {" + ", ".join(fields) + "}."


def _schema(rubric: Rubric) -> dict[str, Any]:
    """The reply's form, for endpoints that hold a model to one."""
    fields: dict[str, Any] = {"reason": {"type": "string"}}
    if rubric.verdicts:
        fields[VERDICT] = {"type": "string", "enum": list(rubric.verdicts)}
    for scale in rubric.scales:
        fields[scale] = {"type": "integer", "enum": list(range(SCALE_ENDS[0], SCALE_ENDS[1] + 1))}
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "judgement", "strict": True, "schema": schema}}
