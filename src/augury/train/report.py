"""The closing report of a training run: one fixed protocol, good or bad, in JSON, in Markdown and in the contract."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter

from augury._version import __version__
from augury.contract import Contract
from augury.data.example import Context
from augury.data.sources.questions import Place
from augury.files import write_text
from augury.lm.adapters import adapter_parameters
from augury.lm.chat import needs_tokenizer
from augury.oracle.reading import default_layers
from augury.stats import Interval
from augury.train.lens_report import CONDITIONS, LensResult, lens_examples, lens_report
from augury.train.prepare import BankSet, Prepared
from augury.train.question_report import (
    YesNoResult,
    reader_results,
    yes_no_examples,
    yes_no_report,
)
from augury.train.ranks import ALONE, Ranks
from augury.train.reads import CachedReads, Reads, TextReads
from augury.train.source_report import SourceResult, source_report
from augury.train.topic_probe import TopicProbe, fit_topic_probe
from augury.train.topic_report import TopicResult, topic_report

PARTS = ("lens", "yes_no", "topic", "sources")
LENS_TASKS = ("past_lens", "future_lens")
WINDOWS = (1, 10)


@dataclass(frozen=True)
class ReportSize:
    """How many examples the report asks. The defaults are the protocol; smaller ones are for a first look.

    Not the `whole` protocol leaves out lens questions of more than 8 tokens, reads anywhere in the answer, and probes.
    """

    lens: int = 1000
    topic_pairs: int = 500
    anywhere_pairs: int = 500
    other_pairs: int = 25
    open_topics: int = 300
    source: int = 200
    whole: bool = True


SIZES = {"full": ReportSize(), "quick": ReportSize(24, 16, 16, 4, 16, 24, whole=False)}


@dataclass(frozen=True)
class Report:
    """All measured figures of an oracle."""

    lens: list[LensResult]
    yes_no: list[YesNoResult]
    topic: list[TopicResult]
    sources: list[SourceResult] = field(default_factory=list)  # reports from before 0.2 have none

    def to_dict(self) -> dict[str, Any]:
        return {name: [result.to_dict() for result in getattr(self, name)] for name in PARTS}

    def headline(self) -> dict[str, Any]:
        """What goes into the contract and the card: every figure that has a bar, beside its controls."""
        found: dict[str, Any] = {}
        for r in self.lens:
            row = {name: _numbers(getattr(r, name)) for name in (*CONDITIONS, "gap")}
            if r.target is not None and r.share_read is not None:
                row |= {"target's own": _numbers(r.target), "share read": _numbers(r.share_read)}
            found[f"{r.task.replace('_', ' ')}, k up to {r.max_k}, nats per token"] = row | {"examples": r.examples}
        for r in self.yes_no:
            row = {name: _numbers(interval) for name, interval in r.auc.items()}
            found[f"yes/no AUC, {r.kind.replace('_', ' ')}, {_at(r.window)}"] = row | {"questions": r.questions}
        for r in self.topic:
            row = {"real": _numbers(r.real), "shuffled": _numbers(r.shuffled)}
            row |= {} if r.nameless is None else {"name not in the window": _numbers(r.nameless)}
            row |= {"questions": r.questions}
            found[f"open topic named, {_at(r.window)}"] = row
        for r in self.sources:
            row = {name: _numbers(getattr(r, name)) for name in (*CONDITIONS, "gap")}
            found[f"held-out loss of {r.source.replace('_', ' ')}, nats"] = row | {"examples": r.examples}
        return found


def _at(window: int) -> str:
    return "at 1 activation" if window == 1 else f"at {window} activations"


def _numbers(interval: Interval) -> list[float]:
    return [round(value, 4) for value in (interval.estimate, interval.low, interval.high)]


Phase = Callable[[str, int, int], None]
Result = TypeVar("Result", LensResult, YesNoResult, TopicResult, SourceResult)


def make_report(
    prepared: Prepared,
    contract: Contract,
    adapter: str,
    size: ReportSize = SIZES["full"],
    progress: Phase = lambda phase, done, total: None,
    kept: Path | None = None,
    ranks: Ranks = ALONE,
) -> Report:
    """Measure the oracle on held-out data: each source's loss, and, where there are answers to the bank, all the rest.

    Args:
        kept: A file in which every part is kept as soon as it is measured; parts of the same adapter and size that
            stand there already are not measured again.
        ranks: The processes that share the work.
    """
    part = _Parts(kept, _fingerprint(prepared, contract, adapter, size), ranks)
    measure = _Measure(prepared, prepared.bank, contract, adapter, size, progress, ranks) if prepared.bank else None
    sources: list[SourceResult] = []
    for name, examples in prepared.heldout.items():
        progress(f"report: losses of {name}", 0, len(examples))
        sources += part(
            f"source {name}", SourceResult, lambda n=name: _source(prepared, contract, adapter, n, size, ranks)
        )
    if measure is None:
        return Report([], [], [], sources)
    if _reads_text(prepared):
        found = [row for w in WINDOWS for row in part(f"reader {w}", YesNoResult, lambda w=w, m=measure: m.reader(w))]
        return Report([], found, [], sources)
    short = measure.lens(part, 8)
    yes_no: list[YesNoResult] = []
    topic: list[TopicResult] = []
    for window in WINDOWS:
        yes_no += part(f"yes/no {window}", YesNoResult, lambda w=window: measure.yes_no(w))
        progress(f"report: open topic at {window}", 0, size.open_topics)
        topic += part(f"open topic {window}", TopicResult, lambda w=window: [measure.topic(w)])
    if not size.whole:
        return Report(short, yes_no, topic, sources)
    for window in WINDOWS:
        yes_no += part(f"anywhere {window}", YesNoResult, lambda w=window: measure.anywhere(w))
    return Report(short + measure.lens(part, 50), yes_no, topic, sources)


def _reads_text(prepared: Prepared) -> bool:
    """Whether what was trained is a reader."""
    return any(isinstance(reads, TextReads) for reads in prepared.reads.values())


def _source(
    prepared: Prepared, contract: Contract, adapter: str, name: str, size: ReportSize, ranks: Ranks
) -> list[SourceResult]:
    examples = prepared.heldout[name][: size.source]
    if not examples:
        return []
    where = examples[0].contexts
    found = source_report(
        prepared.lm, contract, adapter, examples, prepared.contexts[where], prepared.reads[where], ranks=ranks
    )
    return [found] if found else []


@dataclass(frozen=True)
class _Measure:
    """What asks about held-out answers to the bank."""

    prepared: Prepared
    bank: BankSet
    contract: Contract
    adapter: str
    size: ReportSize
    progress: Phase
    ranks: Ranks

    @property
    def _set(self) -> tuple[Sequence[Context], Reads]:
        return self.bank.rollouts["heldout"], self.bank.reads["heldout"]

    def lens(self, part: _Parts, max_k: int) -> list[LensResult]:
        found: list[LensResult] = []
        for task in LENS_TASKS:
            found += part(f"{task} {max_k}", LensResult, lambda t=task: [self._lens(t, max_k)])
        return found

    def _lens(self, task: str, max_k: int) -> LensResult:
        lm, (rollouts, reads) = self.prepared.lm, self._set
        examples = lens_examples(lm, rollouts, task, max_k, self.size.lens)
        return lens_report(
            lm, self.contract, self.adapter, examples, rollouts, reads, max_k=max_k, ranks=self.ranks,
            progress=lambda done, total: self.progress(f"report: {task}, k up to {max_k}", done, total),
        )  # fmt: skip

    def yes_no(self, window: int) -> list[YesNoResult]:
        """Every kind that was trained, where the request ends."""
        lm, (rollouts, reads), size = self.prepared.lm, self._set, self.size
        kinds = self.bank.kinds or ("topic",)
        counts = {kind: size.topic_pairs if kind == "topic" else size.other_pairs for kind in kinds}
        examples = yes_no_examples(rollouts, counts, window, needs_tokenizer(lm).decode)
        return yes_no_report(
            lm, self.contract, self.adapter, examples, rollouts, reads, topic_probe=self._probe(window),
            progress=lambda name, n: self.progress(f"report: yes/no at {window}, {name}", 0, n), ranks=self.ranks,
        )  # fmt: skip

    def reader(self, window: int) -> list[YesNoResult]:
        """The topic, as a trained reader answers from the text."""
        lm, (rollouts, _) = self.prepared.lm, self._set
        examples = yes_no_examples(rollouts, {"topic": self.size.topic_pairs}, window, needs_tokenizer(lm).decode)
        return reader_results(lm, self.contract, self.adapter, examples, rollouts, ranks=self.ranks)

    def anywhere(self, window: int) -> list[YesNoResult]:
        """The topic, read anywhere in the answer."""
        lm, (rollouts, reads) = self.prepared.lm, self._set
        decode = needs_tokenizer(lm).decode
        examples = yes_no_examples(rollouts, {"topic": self.size.anywhere_pairs}, window, decode, "anywhere")
        found = yes_no_report(
            lm, self.contract, self.adapter, examples, rollouts, reads, controls=("shuffled", "text-window"),
            topic_probe=self._probe(window, "anywhere"), ranks=self.ranks,
        )  # fmt: skip
        return [replace(result, kind="topic, anywhere") for result in found if result.kind == "topic"]

    def topic(self, window: int) -> TopicResult:
        return topic_report(
            self.prepared.lm, self.contract, self.adapter, *self._set,
            window=window, count=self.size.open_topics, ranks=self.ranks,
        )  # fmt: skip

    def _probe(self, window: int, place: Place = "request_end") -> TopicProbe | None:
        """Fitted on the training rollouts, where their activations are at hand."""
        reads = self.bank.reads.get("train")
        if not isinstance(reads, CachedReads) or not self.size.whole:
            return None
        layer = default_layers(self.contract)[0]
        return fit_topic_probe(self.prepared.lm, layer, self.bank.rollouts["train"], reads, window, place)


class _Parts:
    """Measured parts, kept in a file under the fingerprint of what was measured."""

    def __init__(self, path: Path | None, fingerprint: str, ranks: Ranks) -> None:
        self.path, self.fingerprint, self.ranks = path, fingerprint, ranks
        self.parts: dict[str, Any] = {}
        if path is not None and path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            self.parts = found["parts"] if found["fingerprint"] == fingerprint else {}
        ranks.wait()  # all know the same parts before one of them writes more

    def __call__(self, name: str, kind: type[Result], measure: Callable[[], Sequence[Result]]) -> list[Result]:
        if name not in self.parts:
            self.parts[name] = [asdict(result) for result in measure()]
            if self.path is not None and self.ranks.first:
                write_text(self.path, json.dumps({"fingerprint": self.fingerprint, "parts": self.parts}))
        return [TypeAdapter(kind).validate_python(row) for row in self.parts[name]]


def _fingerprint(prepared: Prepared, contract: Contract, adapter: str, size: ReportSize) -> str:
    """Of the adapter's bytes, the data, the contract and the report's size."""
    kinds = prepared.bank.kinds if prepared.bank else ()
    digest = hashlib.sha256(repr((__version__, size, contract.injection, contract.prompt, kinds)).encode())
    digest.update(prepared.fingerprint.encode())
    for name, parameter in sorted(adapter_parameters(prepared.lm.model, adapter).items()):
        digest.update(name.encode())
        digest.update(parameter.detach().to(torch.float32).cpu().numpy().tobytes())
    return digest.hexdigest()
