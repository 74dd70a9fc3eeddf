"""The closing report of a training run: one fixed protocol, good or bad, in JSON, in Markdown and in the contract."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter

from augury._version import __version__
from augury.contract import Contract
from augury.data.sources.questions import Place
from augury.files import write_text
from augury.lm.adapters import adapter_parameters
from augury.lm.chat import needs_tokenizer
from augury.oracle.reading import default_layers
from augury.oracle.save import save_oracle
from augury.stats import Interval
from augury.train.lens_report import CONDITIONS, LensResult, lens_examples, lens_report
from augury.train.loop import ADAPTER, lora_config
from augury.train.question_report import TopicResult, YesNoResult, topic_report, yes_no_examples, yes_no_report
from augury.train.recipe import Recipe
from augury.train.run import Prepared
from augury.train.topic_probe import TopicProbe, fit_topic_probe

LENS_TASKS = ("past_lens", "future_lens")
WINDOWS = (1, 10)
# What a report says about what it measured.
_MADE = (
    "base_model", "revision", "weights_fingerprint", "tokenizer_hash", "chat_template_hash", "layers", "injection",
    "trained_on", "versions", "git_commit", "created",
)  # fmt: skip


@dataclass(frozen=True)
class ReportSize:
    """How many examples the report asks. The defaults are the protocol; smaller ones are for tests and curves."""

    lens: int = 1000
    topic_pairs: int = 500
    anywhere_pairs: int = 500
    other_pairs: int = 25
    open_topics: int = 300


FULL = ReportSize()


@dataclass(frozen=True)
class Report:
    """All measured figures of an oracle."""

    lens: list[LensResult]
    yes_no: list[YesNoResult]
    topic: list[TopicResult]

    def to_dict(self) -> dict[str, Any]:
        return {name: [result.to_dict() for result in getattr(self, name)] for name in ("lens", "yes_no", "topic")}

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
        return found


def _at(window: int) -> str:
    return "at 1 activation" if window == 1 else f"at {window} activations"


def _numbers(interval: Interval) -> list[float]:
    return [round(value, 4) for value in (interval.estimate, interval.low, interval.high)]


Phase = Callable[[str, int, int], None]
Result = TypeVar("Result", LensResult, YesNoResult, TopicResult)


def make_report(
    prepared: Prepared,
    contract: Contract,
    adapter: str,
    size: ReportSize = FULL,
    progress: Phase = lambda phase, done, total: None,
    kept: Path | None = None,
) -> Report:
    """Measure the oracle on the held-out rollouts.

    Args:
        kept: A file in which every part is kept as soon as it is measured; parts of the same adapter and size that
            stand there already are not measured again.
    """
    part = _Parts(kept, _fingerprint(prepared, contract, adapter, size))

    def lens(max_k: int) -> list[LensResult]:
        found: list[LensResult] = []
        for task in LENS_TASKS:
            found += part(f"{task} {max_k}", LensResult, lambda t=task: [
                _lens(prepared, contract, adapter, t, max_k, size.lens, progress)
            ])  # fmt: skip
        return found

    short = lens(8)
    yes_no: list[YesNoResult] = []
    topic: list[TopicResult] = []
    for window in WINDOWS:
        yes_no += part(
            f"yes/no {window}", YesNoResult, lambda w=window: _yes_no(prepared, contract, adapter, w, size, progress)
        )
        progress(f"report: open topic at {window}", 0, size.open_topics)
        topic += part(f"open topic {window}", TopicResult, lambda w=window: [
            topic_report(
                prepared.lm, contract, adapter, prepared.rollouts["heldout"], prepared.reads["heldout"],
                window=w, count=size.open_topics,
            )
        ])  # fmt: skip
    for window in WINDOWS:
        yes_no += part(
            f"anywhere {window}", YesNoResult, lambda w=window: _anywhere(prepared, contract, adapter, w, size)
        )
    return Report(short + lens(50), yes_no, topic)


def _lens(
    prepared: Prepared, contract: Contract, adapter: str, task: str, max_k: int, count: int, progress: Phase
) -> LensResult:
    rollouts, reads = prepared.rollouts["heldout"], prepared.reads["heldout"]
    return lens_report(
        prepared.lm, contract, adapter, lens_examples(prepared.lm, rollouts, task, max_k, count), rollouts, reads,
        max_k=max_k, progress=lambda done, total: progress(f"report: {task}, k up to {max_k}", done, total),
    )  # fmt: skip


def _yes_no(
    prepared: Prepared, contract: Contract, adapter: str, window: int, size: ReportSize, progress: Phase
) -> list[YesNoResult]:
    """Every kind that was trained, where the request ends."""
    rollouts, reads = prepared.rollouts["heldout"], prepared.reads["heldout"]
    kinds = sorted({kind for stage in prepared.kinds for kind in stage})
    counts = {kind: size.topic_pairs if kind == "topic" else size.other_pairs for kind in kinds}
    examples = yes_no_examples(rollouts, counts, window, needs_tokenizer(prepared.lm).decode)
    return yes_no_report(
        prepared.lm, contract, adapter, examples, rollouts, reads, topic_probe=_probe(prepared, contract, window),
        progress=lambda name, n: progress(f"report: yes/no at {window}, {name}", 0, n),
    )  # fmt: skip


def _anywhere(prepared: Prepared, contract: Contract, adapter: str, window: int, size: ReportSize) -> list[YesNoResult]:
    """The topic, read anywhere in the answer."""
    rollouts, reads = prepared.rollouts["heldout"], prepared.reads["heldout"]
    decode = needs_tokenizer(prepared.lm).decode
    examples = yes_no_examples(rollouts, {"topic": size.anywhere_pairs}, window, decode, "anywhere")
    controls = ("shuffled", "text-window")
    probe = _probe(prepared, contract, window, "anywhere")
    found = yes_no_report(
        prepared.lm, contract, adapter, examples, rollouts, reads, controls=controls, topic_probe=probe
    )
    return [replace(result, kind="topic, anywhere") for result in found if result.kind == "topic"]


def _probe(prepared: Prepared, contract: Contract, window: int, place: Place = "request_end") -> TopicProbe | None:
    """Fitted on the training rollouts, where there are any."""
    if "train" not in prepared.rollouts:
        return None
    layer = default_layers(contract)[0]
    return fit_topic_probe(prepared.lm, layer, prepared.rollouts["train"], prepared.reads["train"], window, place)


class _Parts:
    """Measured parts, kept in a file under the fingerprint of what was measured."""

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.parts: dict[str, Any] = {}
        if path is not None and path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            self.parts = found["parts"] if found["fingerprint"] == fingerprint else {}

    def __call__(self, name: str, kind: type[Result], measure: Callable[[], Sequence[Result]]) -> list[Result]:
        if name not in self.parts:
            self.parts[name] = [asdict(result) for result in measure()]
            if self.path is not None:
                write_text(self.path, json.dumps({"fingerprint": self.fingerprint, "parts": self.parts}))
        return [TypeAdapter(kind).validate_python(row) for row in self.parts[name]]


def _fingerprint(prepared: Prepared, contract: Contract, adapter: str, size: ReportSize) -> str:
    """Of the adapter's bytes, the held-out rollouts, the contract and the report's size."""
    digest = hashlib.sha256(repr((__version__, size, contract.injection, contract.prompt, prepared.kinds)).encode())
    for rollout in prepared.rollouts["heldout"]:
        digest.update(repr(rollout.token_ids).encode())
    for name, parameter in sorted(adapter_parameters(prepared.lm.model, adapter).items()):
        digest.update(name.encode())
        digest.update(parameter.detach().to(torch.float32).cpu().numpy().tobytes())
    return digest.hexdigest()


def markdown(report: Report) -> str:
    """The report as tables."""
    lines = [
        "### Lens loss, nats per token (held-out topics and prompts)",
        "",
        "| direction | k | real | shuffled | none | ref - real | target's own | share read | examples (rollouts) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in report.lens:
        cells = [str(getattr(r, name)) for name in CONDITIONS]
        rest = [str(r.gap), str(r.target or "-"), str(r.share_read or "-"), f"{r.examples} ({r.rollouts})"]
        lines.append(f"| {r.task.split('_')[0]} | 1..{r.max_k} | " + " | ".join(cells + rest) + " |")
    names = list(dict.fromkeys(name for r in report.yes_no for name in r.auc))
    lines += ["", "### Yes/no questions, ROC AUC within wordings (held-out topics, prompts and wordings)", ""]
    lines += ["| kind | activations | questions | " + " | ".join(names) + " |", "|---" * (len(names) + 3) + "|"]
    for r in report.yes_no:
        cells = [str(r.auc[name]) if name in r.auc else "-" for name in names]
        lines.append(f"| {r.kind} | {r.window} | {r.questions} | " + " | ".join(cells) + " |")
    lines += ["", "### Open topic question: share of answers that name the topic", ""]
    lines += ["| activations | questions | real | shuffled | real, name not in the window |", "|---|---|---|---|---|"]
    lines += [
        f"| {r.window} | {r.questions} | {r.real} | {r.shuffled} | {_counted(r.nameless)} |" for r in report.topic
    ]
    return "\n".join(lines) + "\n"


def _counted(share: Interval | None) -> str:
    return "-" if share is None else f"{share} ({share.n})"


def finish_run(
    recipe: Recipe,
    run: Path,
    prepared: Prepared,
    contract: Contract,
    size: ReportSize = FULL,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Path:
    """Measure the trained adapter, write the report, and save the oracle with its figures in `run/oracle`."""
    config, folder = lora_config(recipe), run / "oracle"
    save_oracle(prepared.lm, ADAPTER, config, contract, folder)  # before hours of measuring, in which much can happen
    report = make_report(prepared, contract, ADAPTER, size, progress, run / "report-parts.json")
    write_report(report, contract, run)
    return save_oracle(
        prepared.lm, ADAPTER, config, contract.model_copy(update={"evaluation": report.headline()}), folder
    )


def write_report(report: Report, contract: Contract, run: Path) -> None:
    """`report.json`, with what was measured and by which versions, and `report.md`, in the run's folder."""
    made = contract.model_dump(mode="json", include=set(_MADE))
    write_text(run / "report.json", json.dumps({**made, **report.to_dict()}, indent=1) + "\n")
    write_text(run / "report.md", markdown(report))
