"""The text-inversion audit: how often the base, reading the text in place of the activations, already answers.

An oracle trained on what the text answers learns to guess the text and to read that. So the base is asked each question
alone, with the text of the read window, and with everything up to the last read token; never with anything right of it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from augury.data.bank import Split
from augury.data.example import Example
from augury.data.opened import DataSet
from augury.data.readers import Asked, Reader
from augury.errors import InputError
from augury.oracle.consensus import LONGEST_COMPARED, normalise_answer
from augury.stats import Interval, auc_interval, bootstrap_interval, roc_auc, roc_auc_by_group, wilson

ALONE, WINDOW, ALL = READINGS = ("question", "text-window", "text-all")
Measure = Literal["AUC", "accuracy", "nats"]
MOST_CHOICES, REPEATS = 8, 4  # a kind has closed answers where it has few, each of them often
LOOKED_AT = 5000  # examples of a source among which closed answers are looked for
ANSWERED = 0.5  # of what the question alone leaves open: what is said to be answered by the text
BOOTSTRAP = 1000


@dataclass(frozen=True)
class Figure:
    """A value with its interval; no ends where too few contexts make one."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, interval: Interval) -> Figure:
        return cls(interval.estimate, interval.low, interval.high)

    def __str__(self) -> str:
        return f"{self.value:.2f}" if self.low is None else f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class AuditRow:
    """How one source's examples of one form fare under each reading.

    Attributes:
        source: Whose.
        split: Held-out examples where there are such.
        measure: `AUC` of yes/no questions (within pairs where there are pairs), `accuracy` among closed answers, or
            `nats`: the mean log-probability of an answer's token.
        examples: Measured.
        contexts: That these ask about.
        left_out: Examples whose text is longer than the reader takes, or that have no text.
        chance: What guessing gives; None for nats.
        scores: For each reading.
        gained: For nats, what each reading adds to the question alone.
        equal: For nats, the share of greedy answers that equal the truth in normal form.
    """

    source: str
    split: Split
    measure: Measure
    examples: int
    contexts: int
    left_out: int
    chance: float | None
    scores: dict[str, Figure]
    gained: dict[str, Figure]
    equal: dict[str, Figure]

    @property
    def closed(self) -> float:
        """The share of what the question alone leaves open that the better text closes."""
        best = 0.0 if self.measure == "nats" else 1.0
        start = max(self.scores[ALONE].value, self.chance if self.chance is not None else -np.inf)
        reached = max(self.scores[WINDOW].value, self.scores[ALL].value)
        return max(0.0, (reached - start) / (best - start)) if start < best else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "closed": self.closed}


@dataclass(frozen=True)
class Audit:
    """One row a source and form of answer."""

    rows: tuple[AuditRow, ...]

    @property
    def sentence(self) -> str:
        """What it means, in plain words."""
        told = [
            f"{row.source} ({row.measure})"
            for row in self.rows
            if max(row.closed, *(figure.value for figure in row.equal.values()), 0) >= ANSWERED
        ]
        found = (
            f"A reader of the text alone answers {', '.join(told)}: such a source teaches an oracle to guess the text "
            "and to read that (text inversion)."
            if told
            else "From the text alone this reader answers no source."
        )
        return f"{found} The reader is the base itself; where it is small, that it fails proves little."

    def to_dict(self) -> dict[str, Any]:
        return {"sentence": self.sentence, "rows": [row.to_dict() for row in self.rows]}


def pick(data: DataSet, count: int, only: str | None = None, seed: int = 0) -> dict[str, list[Example]]:
    """Whole units of each source, of `count` examples or a few more; held-out ones where there are such."""
    return {name: _pick(data, name, count, seed) for name in data.sources if only in (None, name)}


def _pick(data: DataSet, name: str, count: int, seed: int) -> list[Example]:
    split: Split = "heldout" if len(data.examples.get((name, "heldout"), ())) else "train"
    table = data.examples[name, split]
    units = np.asarray(table.column("unit"))
    starts = np.flatnonzero(np.r_[True, units[1:] != units[:-1]]) if len(units) else np.empty(0, dtype=int)
    ends = np.r_[starts[1:], len(units)]
    found: list[Example] = []
    for unit in random.Random(f"{seed}:audit:{name}").sample(range(len(starts)), len(starts)):
        if len(found) >= count:
            break
        found += table[int(starts[unit]) : int(ends[unit])]
    return found


def audit(data: DataSet, picked: Mapping[str, Sequence[Example]], reader: Reader, told: Any = None) -> Audit:
    """Ask the reader.

    Args:
        data: Where the contexts stand.
        picked: Each source's examples.
        reader: Who reads the text.
        told: Called with (examples done, all).
    """
    rows: list[AuditRow] = []
    done, total = 0, sum(map(len, picked.values()))
    for name, examples in picked.items():
        asked = [one for e in examples if (one := reader.asked(e, data.context_of(e))) is not None]
        for measure, part in _forms(asked, closed_answers(data, name)).items():
            rows.append(_row(name, measure, part, len(examples) - len(asked), data, reader))
        done += len(examples)
        if told is not None:
            told(done, total)
    return Audit(tuple(rows))


def closed_answers(data: DataSet, name: str) -> dict[str, tuple[str, ...]]:
    """The kinds of a source whose answers are few and short, with these answers."""
    found: dict[str, dict[str, int]] = {}
    for split in ("train", "heldout"):
        for example in data.examples.get((name, split), ())[:LOOKED_AT]:
            if example.task != "yes_no" and example.answer_ids is None:
                answers = found.setdefault(example.kind, {})
                answers[example.answer] = answers.get(example.answer, 0) + 1
    return {kind: tuple(sorted(answers)) for kind, answers in found.items() if _closed(answers)}


def _closed(answers: Mapping[str, int]) -> bool:
    short = all(len(answer.split()) <= LONGEST_COMPARED for answer in answers)
    return short and 2 <= len(answers) <= MOST_CHOICES and sum(answers.values()) >= REPEATS * len(answers)


def _forms(asked: Sequence[Asked], closed: Mapping[str, tuple[str, ...]]) -> dict[Measure, list[Asked]]:
    """Which examples are measured how."""
    found: dict[Measure, list[Asked]] = {}
    yes_no = [one for one in asked if one.example.task == "yes_no"]
    both = len({one.example.yes for one in yes_no}) == 2
    for one in asked:
        if one.example.task == "yes_no" and both:
            found.setdefault("AUC", []).append(one)
        elif one.example.answer in closed.get(one.example.kind, ()):
            choices = closed[one.example.kind]
            found.setdefault("accuracy", []).append(one.among(choices))
        else:
            found.setdefault("nats", []).append(one)
    return found


def _row(name: str, measure: Measure, asked: Sequence[Asked], left_out: int, data: DataSet, reader: Reader) -> AuditRow:
    groups = [one.example.context for one in asked]
    gained: dict[str, Figure] = {}
    equal: dict[str, Figure] = {}
    chance: float | None = None
    if measure == "AUC":
        chance = 0.5
        scores = {reading: _auc(asked, groups, reader.margins(asked, reading)) for reading in READINGS}
    elif measure == "accuracy":
        chance = float(np.mean([1 / len(one.choices) for one in asked]))
        scores = {reading: _mean(reader.hits(asked, reading), groups) for reading in READINGS}
    else:
        nats = {reading: np.asarray(reader.nats(asked, reading)) for reading in READINGS}
        scores = {reading: _mean(values, groups) for reading, values in nats.items()}
        gained = {reading: _mean(nats[reading] - nats[ALONE], groups) for reading in (WINDOW, ALL)}
        equal = {reading: _equal(asked, reader.greedy(asked, reading)) for reading in READINGS}
    split = asked[0].example.split
    return AuditRow(name, split, measure, len(asked), len(set(groups)), left_out, chance, scores, gained, equal)


def _auc(asked: Sequence[Asked], groups: Sequence[int], margins: Sequence[float]) -> Figure:
    truth, units = [one.example.yes for one in asked], [one.example.unit for one in asked]
    paired = any(len({one.example.yes for one in asked if one.example.unit == unit}) == 2 for unit in set(units))
    within = units if paired else None
    try:
        return Figure.of(auc_interval(margins, truth, groups, within=within, n=BOOTSTRAP))
    except InputError:  # too few contexts for an interval
        return Figure(roc_auc_by_group(margins, truth, within) if paired else roc_auc(margins, truth))


def _mean(values: Any, groups: Sequence[int]) -> Figure:
    found = np.asarray(values, dtype=float)
    if len(set(groups)) < 2:
        return Figure(float(found.mean()))
    return Figure.of(bootstrap_interval(found, groups=groups, n=BOOTSTRAP))


def _equal(asked: Sequence[Asked], answers: Sequence[str]) -> Figure:
    pairs = zip(asked, answers, strict=True)
    hits = [normalise_answer(one.example.answer) == normalise_answer(answer) for one, answer in pairs]
    return Figure.of(wilson(sum(hits), len(hits)))
