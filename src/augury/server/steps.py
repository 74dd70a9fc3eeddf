"""What the engine does, step by step: capture, ask, score, scan, generate; jobs of one key in one batch.

A request's first part is told before its controls are begun, and other callers' turns come between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

from augury.activations import Activations, capture, resolve
from augury.activations.capture import capture_bytes
from augury.errors import InputError
from augury.lm import LanguageModel, Transcript, generate
from augury.lm.locks import alone
from augury.oracle import Oracle, asking, scoring
from augury.oracle.choices import Spelled, prefixed, spell
from augury.oracle.controls import Item
from augury.oracle.passes import Runner
from augury.oracle.prompt import check_question
from augury.oracle.reading import at_positions
from augury.oracle.scanning import Scanning
from augury.server.engine import Outcome
from augury.server.events import ProgressEvent, WrittenEvent
from augury.server.queue import Job
from augury.server.shown import generated_out, so_far, tokens_out
from augury.server.telling import Texts, check
from augury.server.work import (
    Ask,
    AskControls,
    Capture,
    Captured,
    Context,
    Generate,
    Next,
    Scan,
    ScoreAll,
    ScoreControls,
    Select,
    Step,
    Tokenize,
)  # fmt: skip

SLICE = 64  # positions of a scan in one turn


@dataclass(frozen=True, eq=False)
class Steps:
    """The targets and the oracles that steps are done with.

    Attributes:
        targets: By name; the first is the base.
        oracles: By name.
        batch_size: Rows in a forward pass.
        most_bytes: Of what activations that are captured together may take.
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
            return self._ask(jobs)
        if isinstance(first, ScoreAll):
            return self._score([job.work for job in jobs])
        if isinstance(first, AskControls):
            return self._ask_controls(jobs)
        if isinstance(first, ScoreControls):
            return self._score_controls(jobs)
        return [self._alone(job) for job in jobs]

    def _alone(self, job: Job) -> Outcome:
        step: Step = job.work
        if isinstance(step, Scan):
            return self._scan(job)
        if isinstance(step, Tokenize):
            return Outcome((("tokens", tokens_out(self.base, step.context.transcript(self.base))),))
        if isinstance(step, Select):
            chosen = step.acts if step.layers is None else step.acts.at_layers(step.layers)
            return Outcome(more=step.then(at_positions(self.base, chosen, step.positions)))
        assert isinstance(step, Generate)
        return self._generate(job, step)

    def _capture(self, steps: Sequence[Capture]) -> list[Outcome]:
        """Contexts that are read at the same positions together; a selector may match other tokens in each.

        What does not fit in memory beside the others is read in a later turn.
        """
        lm, by_selector = self.targets[steps[0].target], dict[str, list[int]]()
        transcripts = [step.context.transcript(lm) for step in steps]
        fit = self._fit(lm, transcripts, steps)
        for i in range(fit):
            by_selector.setdefault(repr(steps[i].positions), []).append(i)
        found: dict[int, Activations] = {}
        for members in by_selector.values():
            read = [transcripts[i] for i in members]
            found.update(zip(members, capture(lm, read, steps[0].layers, steps[members[0]].positions), strict=True))
        later = zip(steps[fit:], transcripts[fit:], strict=True)
        return [
            *(_captured(lm, steps[i], found[i]) for i in range(fit)),
            *(Outcome(more=_next(replace(step, context=Context(transcript)))) for step, transcript in later),
        ]

    def _fit(self, lm: LanguageModel, transcripts: Sequence[Transcript], steps: Sequence[Capture]) -> int:
        """How many of these fit in memory together, told before: what runs out may take the whole service with it.

        Raises:
            InputError: One of them does not by itself.
        """
        rows = [len(resolve(lm, read, step.positions)) for read, step in zip(transcripts, steps, strict=True)]
        sizes = [capture_bytes(lm, len(steps[0].layers), count) for count in rows]
        if self.most_bytes is None:
            return len(steps)
        if max(sizes) > self.most_bytes:
            told = f"{len(steps[0].layers)} layers at {max(rows)} positions take {max(sizes)} bytes"
            why, instead = f"{told}, and {self.most_bytes} may be", "read fewer positions or layers"
            raise InputError("These activations are too many.", why, instead)
        return sum(used <= self.most_bytes for used in accumulate(sizes))

    def _ask(self, jobs: Sequence[Job]) -> list[Outcome]:
        steps: list[Ask] = [job.work for job in jobs]
        oracle, items = self._items(steps, lambda oracle, question: question)
        settings, told = steps[0].settings, Texts(jobs, self.base)
        oracle.check_fits(items, settings.max_new_tokens)
        found = asking.ask_items(oracle, items, self._runner(oracle, steps[0]), settings, told=told)
        answers = _parted(steps, found)
        return [
            Outcome(_numbered("answer", own), None if step.donors is None else _next(AskControls(step, tuple(own))))
            for step, own in zip(steps, answers, strict=True)
        ]

    def _ask_controls(self, jobs: Sequence[Job]) -> list[Outcome]:
        asked: list[Ask] = [job.work.asked for job in jobs]
        answers = [answer for job in jobs for answer in job.work.answers]
        oracle, items = self._items(asked, lambda oracle, question: question)
        runner, settings, donors = self._runner(oracle, asked[0]), asked[0].settings, asked[0].donors or 0
        found = asking.controlled(
            oracle, items, runner, settings, answers, donors, told=lambda texts: check(jobs), swap=False
        )
        return _in_parts(jobs, "answer", found)

    def _score(self, steps: Sequence[ScoreAll]) -> list[Outcome]:
        oracle, spelled, items = self._spelled(steps)
        runner = self._runner(oracle, steps[0])
        found = scoring.score_items(oracle, items, runner, spelled, donors=steps[0].donors, controls=False)
        return [
            Outcome(_numbered("score", own), _next(ScoreControls(step, tuple(own))) if step.controls else None)
            for step, own in zip(steps, _parted(steps, found), strict=True)
        ]

    def _score_controls(self, jobs: Sequence[Job]) -> list[Outcome]:
        asked: list[ScoreAll] = [job.work.asked for job in jobs]
        scores = [score for job in jobs for score in job.work.scores]
        oracle, spelled, items = self._spelled(asked)
        runner, donors = self._runner(oracle, asked[0]), asked[0].donors
        found = scoring.controlled(
            oracle, items, runner, spelled, scores, donors, done=lambda rows: check(jobs), swap=False
        )
        return _in_parts(jobs, "score", found)

    def _spelled(self, steps: Sequence[ScoreAll]) -> tuple[Oracle, Spelled, list[Item]]:
        oracle = self.oracles[steps[0].oracle]
        spelled = spell(oracle.base, oracle.contract, steps[0].choices)
        _, items = self._items(steps, lambda who, question: prefixed(who.contract, question, spelled.choices))
        oracle.check_fits(items, spelled.new_tokens)
        return oracle, spelled, items

    def _scan(self, job: Job) -> Outcome:
        """Some positions at a time: other callers' turns come between."""
        step: Scan = job.work
        oracle = self.oracles[step.oracle]
        with alone(oracle.lm.model):
            under = step.under or self._scanning(oracle, step)
            under.go_on(SLICE, partial(_progress, job, step.at))
            if under.left:
                return Outcome(more=_next(replace(step, under=under)))
            found = under.scan()
        rest = replace(step, at=step.at + 1, under=None)
        return Outcome((("scan", (step.at, found)),), _next(rest) if rest.at < len(step.questions) else None)

    def _scanning(self, oracle: Oracle, step: Scan) -> Scanning:
        asked, runner = check_question(step.questions[step.at]), oracle.runner(step.coefficient, self.batch_size)
        (read,) = oracle.read([step.read], None, None, window=step.window)
        return Scanning.of(oracle, read, asked, runner, window=step.window, donors=step.donors)

    def _generate(self, job: Job, step: Generate) -> Outcome:
        context, lm = step.context, self.targets[step.target]
        context.transcript(lm)  # too long is told before anything is written

        def told(ids: Sequence[int]) -> None:
            check([job])
            if step.stream:
                job.tell("written", WrittenEvent(text=so_far(lm, ids), tokens=len(ids)))

        found = generate(lm, context.source, end=context.end, told=told, **step.settings)
        return Outcome((("generated", generated_out(lm, found)),))

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
    check([job])
    job.tell("progress", ProgressEvent(number=number, done=done, total=total))


def _in_parts(jobs: Sequence[Job], what: str, found: Iterable[Mapping[int, Any]]) -> list[Outcome]:
    """Results by number, each time there are more of their controls: told at once, or the last of each at the end."""
    owners = [(job, number) for job in jobs for number in range(len(job.work.asked.questions))]
    last: dict[int, Any] = {}
    for some in found:
        last |= some
        for i, value in some.items():
            job, number = owners[i]
            if job.work.asked.stream and not job.gone.is_set():
                job.tell(what, (number, value))
        check(jobs)
    results = [(owner, (what, (number, last[i]))) for i, (owner, number) in enumerate(owners)]
    return [
        Outcome() if job.work.asked.stream else Outcome(tuple(part for owner, part in results if owner is job))
        for job in jobs
    ]


def _captured(lm: LanguageModel, step: Capture, acts: Activations) -> Outcome:
    if step.then is not None:
        return Outcome(more=step.then(acts))
    assert acts.transcript is not None
    return Outcome((("captured", Captured(acts, tokens_out(lm, acts.transcript))),))


def _next(step: Step) -> Next:
    return step.key, step


def _numbered(what: str, values: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((what, (number, value)) for number, value in enumerate(values))


def _parted(steps: Sequence[Ask] | Sequence[ScoreAll], found: Sequence[Any]) -> list[list[Any]]:
    """Results of all steps' questions, by step."""
    rest = iter(found)
    return [[next(rest) for _ in step.questions] for step in steps]
