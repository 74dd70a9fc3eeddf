"""The closing report of a training run: one fixed protocol, good or bad, in JSON, in Markdown and in the contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augury.contract import Contract
from augury.lm.chat import needs_tokenizer
from augury.oracle.save import save_oracle
from augury.stats import Interval
from augury.train.lens_report import CONDITIONS, LensResult, lens_examples, lens_report
from augury.train.loop import ADAPTER, lora_config
from augury.train.question_report import TopicResult, YesNoResult, topic_report, yes_no_examples, yes_no_report
from augury.train.recipe import Recipe
from augury.train.run import Prepared

LENS_TASKS = ("past_lens", "future_lens")
WINDOWS = (1, 10)


@dataclass(frozen=True)
class ReportSize:
    """How many examples the report asks. The defaults are the protocol; smaller ones are for tests and curves."""

    lens: int = 1000
    topic_pairs: int = 300
    other_pairs: int = 40
    open_topics: int = 400


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
        """The few figures that go into the contract."""
        short = {r.task: r for r in self.lens if r.max_k == min(x.max_k for x in self.lens)}
        found: dict[str, Any] = {f"{task}_gap_nats": _numbers(result.gap) for task, result in short.items()}
        for result in self.yes_no:
            if result.kind in ("all", "topic"):
                for name in ("oracle", "shuffled"):
                    found[f"yes_no_{result.kind}_auc_{name}_at_{result.window}"] = _numbers(result.auc[name])
        for result in self.topic:
            found[f"open_topic_at_{result.window}"] = _numbers(result.real)
            found[f"open_topic_shuffled_at_{result.window}"] = _numbers(result.shuffled)
        return found


def _numbers(interval: Interval) -> list[float]:
    return [round(value, 4) for value in (interval.estimate, interval.low, interval.high)]


def make_report(
    prepared: Prepared,
    contract: Contract,
    adapter: str,
    size: ReportSize = FULL,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Report:
    """Measure the oracle on the held-out rollouts."""
    lm, rollouts, reads = prepared.lm, prepared.rollouts["heldout"], prepared.reads["heldout"]
    lens = []
    for max_k in (8, 50):
        for task in LENS_TASKS:
            examples = lens_examples(lm, rollouts, task, max_k, size.lens)
            lens.append(
                lens_report(
                    lm, contract, adapter, examples, rollouts, reads, max_k=max_k,
                    progress=lambda d, t, task=task, k=max_k: progress(f"report: {task}, k up to {k}", d, t),
                )
            )  # fmt: skip
    yes_no, topic = [], []
    weights = {kind for stage in prepared.kinds for kind in stage}
    for window in WINDOWS:
        counts = {kind: size.topic_pairs if kind == "topic" else size.other_pairs for kind in sorted(weights)}
        examples = yes_no_examples(rollouts, counts, window, needs_tokenizer(lm).decode)
        yes_no += yes_no_report(
            lm, contract, adapter, examples, rollouts, reads,
            progress=lambda name, n, w=window: progress(f"report: yes/no at {w}, {name}", 0, n),
        )  # fmt: skip
        progress(f"report: open topic at {window}", 0, size.open_topics)
        topic.append(topic_report(lm, contract, adapter, rollouts, reads, window=window, count=size.open_topics))
    return Report(lens, yes_no, topic)


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
    lines += ["| activations | questions | real | shuffled |", "|---|---|---|---|"]
    lines += [f"| {r.window} | {r.questions} | {r.real} | {r.shuffled} |" for r in report.topic]
    return "\n".join(lines) + "\n"


def finish_run(
    recipe: Recipe,
    run: Path,
    prepared: Prepared,
    contract: Contract,
    size: ReportSize = FULL,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Path:
    """Measure the trained adapter, write the report, and save the oracle with its figures in `run/oracle`."""
    report = make_report(prepared, contract, ADAPTER, size, progress)
    write_report(report, run)
    measured = contract.model_copy(update={"evaluation": report.headline()})
    return save_oracle(prepared.lm, ADAPTER, lora_config(recipe), measured, run / "oracle")


def write_report(report: Report, run: Path) -> None:
    """`report.json` and `report.md` in the run's folder."""
    (run / "report.json").write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    (run / "report.md").write_text(markdown(report), encoding="utf-8")
