"""What the engine does, step by step: capture, ask, score, scan, generate; jobs of one key in one batch.

A request's first part is told before its controls are begun, and other callers' turns come between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from augury.activations import Activations, capture, resolve
from augury.activations.capture import capture_bytes
from augury.errors import InputError
from augury.lm import LanguageModel, Transcript, generate, transcript_of
from augury.lm.chat import End
from augury.oracle import Oracle, asking, scoring
from augury.oracle.answers import Answer, Score, Settings
from augury.oracle.choices import Spelled, prefixed, spell
from augury.oracle.controls import Item
from augury.oracle.passes import Runner
from augury.server.engine import Outcome
from augury.server.queue import ALONE, Job

Next = tuple[Hashable, "Step"]


@dataclass(frozen=True, eq=False)
class Context:
    """What the target reads, not tokenized yet: that too is one thread's at a time.

    Attributes:
        source: Text, messages or token ids.
        end: How a conversation ends.
        most: Tokens, at most.
    """

    source: Any
    end: End | None = None
    most: int | None = None

    def transcript(self, lm: LanguageModel) -> Transcript:
        """As the target reads it.

        Raises:
            InputError: It is longer than it may be, or cannot be read.
        """
        found = transcript_of(lm, self.source, self.end)
        if self.most is not None and len(found) > self.most:
            why = f"it has {len(found)} tokens, and this service takes {self.most}"
            raise InputError("The context is too long.", why, "leave some of it out")
        return found


@dataclass(frozen=True, eq=False)
class Tokenize:
    """Tell a context as tokens, as `tokens`."""

    context: Context

    key = ALONE


@dataclass(frozen=True, eq=False)
class Capture:
    """Let a target read a context, and go on with its activations, or tell them as `captured`."""

    target: str
    context: Context
    layers: tuple[int, ...]
    positions: Any
    then: Callable[[Activations], Next] | None = None

    @property
    def key(self) -> Hashable:
        return "capture", self.target, self.layers


@dataclass(frozen=True, eq=False)
class Ask:
    """Ask some questions about one reading; each answer is told as `answer`, with its number, and again with controls.

    Attributes:
        oracle: Its name.
        read: What is read.
        questions: The questions.
        settings: How answers are decoded.
        coefficient: Of the injection; None: the contract's.
        donors: With controls: how many donors; None: without.
    """

    oracle: str
    read: Activations
    questions: tuple[str, ...]
    settings: Settings
    coefficient: float | None = None
    donors: int | None = None

    @property
    def key(self) -> Hashable:
        return "ask", self.oracle, self.settings, self.coefficient


@dataclass(frozen=True, eq=False)
class AskControls:
    """The controls of answers that were told.

    By itself: in a batch `shuffled` takes its donors from the batch, and these would be another caller's activations.
    """

    asked: Ask
    answers: tuple[Answer, ...]

    key = ALONE


@dataclass(frozen=True, eq=False)
class ScoreAll:
    """Score some questions about one reading; each is told as `score`, with its number, and again with controls."""

    oracle: str
    read: Activations
    questions: tuple[str, ...]
    choices: tuple[str, ...]
    coefficient: float | None = None
    donors: int = 0
    controls: bool = False

    @property
    def key(self) -> Hashable:
        return "score", self.oracle, self.choices, self.coefficient, self.donors


@dataclass(frozen=True, eq=False)
class ScoreControls:
    """The controls of scores that were told; by itself, as `AskControls`."""

    asked: ScoreAll
    scores: tuple[Score, ...]

    key = ALONE


@dataclass(frozen=True, eq=False)
class Scan:
    """Score questions at every position of one reading; `progress` is told on the way, and each result as `scan`."""

    oracle: str
    read: Activations
    questions: tuple[str, ...]
    window: int = 1
    coefficient: float | None = None
    donors: int = 0
    at: int = 0

    key = ALONE


@dataclass(frozen=True, eq=False)
class Generate:
    """Let a target go on; told as `generated`."""

    target: str
    context: Context
    settings: Mapping[str, Any]

    key = ALONE


Step = Tokenize | Capture | Ask | AskControls | ScoreAll | ScoreControls | Scan | Generate
S = TypeVar("S", bound=Step)


@dataclass(frozen=True, eq=False)
class Steps:
    """The targets and the oracles that steps are done with.

    Attributes:
        targets: By name; the first is the base.
        oracles: By name.
        batch_size: Rows in a forward pass.
        most_bytes: Of what one context's activations may take.
    """

    targets: Mapping[str, LanguageModel]
    oracles: Mapping[str, Oracle]
    batch_size: int = 16
    most_bytes: int | None = None

    @property
    def base(self) -> LanguageModel:
        """The model without any adapter."""
        return next(iter(self.targets.values()))

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One step of each job, all of one kind and key."""
        first = jobs[0].work
        if isinstance(first, Capture):
            return self._capture([job.work for job in jobs])
        if isinstance(first, Ask):
            return self._ask([job.work for job in jobs])
        if isinstance(first, ScoreAll):
            return self._score([job.work for job in jobs])
        return [self._alone(job) for job in jobs]

    def _alone(self, job: Job) -> Outcome:
        step: Step = job.work
        if isinstance(step, AskControls):
            return self._ask_controls(step)
        if isinstance(step, ScoreControls):
            return self._score_controls(step)
        if isinstance(step, Scan):
            return self._scan(job)
        if isinstance(step, Tokenize):
            return Outcome((("tokens", step.context.transcript(self.base)),))
        assert isinstance(step, Generate)
        return self._generate(step)

    def _capture(self, steps: Sequence[Capture]) -> list[Outcome]:
        """Contexts that are read at the same positions together; a selector may match other tokens in each."""
        lm, found = self.targets[steps[0].target], dict[int, Activations]()
        by_selector: dict[str, list[int]] = {}
        for i, step in enumerate(steps):
            by_selector.setdefault(repr(step.positions), []).append(i)
        for members in by_selector.values():
            transcripts = [steps[i].context.transcript(lm) for i in members]
            for transcript in transcripts:
                self._check_size(transcript, steps[members[0]])
            taken = capture(lm, transcripts, steps[0].layers, steps[members[0]].positions)
            found.update(zip(members, taken, strict=True))
        return [
            Outcome((("captured", found[i]),)) if step.then is None else Outcome(more=step.then(found[i]))
            for i, step in enumerate(steps)
        ]

    def _check_size(self, transcript: Transcript, step: Capture) -> None:
        """Before anything is captured: memory that has run out may take the whole service with it."""
        rows = len(resolve(self.base, transcript, step.positions))
        size = capture_bytes(self.base, len(step.layers), rows)
        if self.most_bytes is not None and size > self.most_bytes:
            why = f"{len(step.layers)} layers at {rows} positions take {size} bytes, and {self.most_bytes} may be"
            raise InputError("These activations are too many.", why, "read fewer positions or layers")

    def _ask(self, steps: Sequence[Ask]) -> list[Outcome]:
        oracle, items = self._items(steps, lambda oracle, question: question)
        settings = steps[0].settings
        oracle.check_fits(items, settings.max_new_tokens)
        answers = _parted(steps, asking.ask_items(oracle, items, self._runner(oracle, steps[0]), settings))
        return [
            Outcome(_numbered("answer", own), None if step.donors is None else _next(AskControls(step, tuple(own))))
            for step, own in zip(steps, answers, strict=True)
        ]

    def _ask_controls(self, step: AskControls) -> Outcome:
        asked = step.asked
        oracle, items = self._items([asked], lambda oracle, question: question)
        runner, donors = self._runner(oracle, asked), asked.donors or 0
        found = asking.with_controls(oracle, items, runner, asked.settings, step.answers, donors)
        return Outcome(_numbered("answer", found))

    def _score(self, steps: Sequence[ScoreAll]) -> list[Outcome]:
        oracle, spelled, items = self._spelled(steps)
        runner = self._runner(oracle, steps[0])
        found = scoring.score_items(oracle, items, runner, spelled, donors=steps[0].donors, controls=False)
        return [
            Outcome(_numbered("score", own), _next(ScoreControls(step, tuple(own))) if step.controls else None)
            for step, own in zip(steps, _parted(steps, found), strict=True)
        ]

    def _score_controls(self, step: ScoreControls) -> Outcome:
        asked = step.asked
        oracle, spelled, items = self._spelled([asked])
        runner = self._runner(oracle, asked)
        found = scoring.with_controls(oracle, items, runner, spelled, step.scores, asked.donors)
        return Outcome(_numbered("score", found))

    def _spelled(self, steps: Sequence[ScoreAll]) -> tuple[Oracle, Spelled, list[Item]]:
        oracle = self.oracles[steps[0].oracle]
        spelled = spell(oracle.base, oracle.contract, steps[0].choices)
        _, items = self._items(steps, lambda who, question: prefixed(who.contract, question, spelled.choices))
        oracle.check_fits(items, spelled.new_tokens)
        return oracle, spelled, items

    def _scan(self, job: Job) -> Outcome:
        """One question at a time: other callers' turns come between."""
        step: Scan = job.work
        oracle = self.oracles[step.oracle]
        found = oracle.scan(
            step.read,
            step.questions[step.at],
            window=step.window,
            coefficient=step.coefficient,
            donors=step.donors,
            progress=partial(_progress, job, step.at),
        )
        rest = Scan(step.oracle, step.read, step.questions, step.window, step.coefficient, step.donors, step.at + 1)
        return Outcome((("scan", (step.at, found)),), _next(rest) if rest.at < len(step.questions) else None)

    def _generate(self, step: Generate) -> Outcome:
        context, lm = step.context, self.targets[step.target]
        context.transcript(lm)  # too long is told before anything is written
        return Outcome((("generated", generate(lm, context.source, end=context.end, **step.settings)),))

    def _items(
        self, steps: Sequence[Ask] | Sequence[ScoreAll], worded: Callable[[Oracle, str], str]
    ) -> tuple[Oracle, list[Item]]:
        """Every question of these steps, about each one's reading."""
        oracle = self.oracles[steps[0].oracle]
        reads = oracle.read([step.read for step in steps], None, None)
        found = [
            oracle.item(read, worded(oracle, question))
            for step, read in zip(steps, reads, strict=True)
            for question in step.questions
        ]
        return oracle, found

    def _runner(self, oracle: Oracle, step: Ask | ScoreAll) -> Runner:
        return oracle.runner(step.coefficient, self.batch_size)


def _progress(job: Job, number: int, done: int, total: int) -> None:
    """Told on the way; a scan that nobody waits for any more ends here."""
    over = job.over(time.monotonic())
    if over is not None:
        raise over
    job.tell("progress", (number, done, total))


def _next(step: S) -> tuple[Hashable, S]:
    return step.key, step


def _numbered(what: str, values: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((what, (number, value)) for number, value in enumerate(values))


def _parted(steps: Sequence[Ask] | Sequence[ScoreAll], found: Sequence[Any]) -> list[list[Any]]:
    """Results of all steps' questions, by step."""
    rest = iter(found)
    return [[next(rest) for _ in step.questions] for step in steps]
