"""The closing report as tables in Markdown."""

from __future__ import annotations

from augury.stats import Interval
from augury.train.lens_report import CONDITIONS
from augury.train.report import Report


def markdown(report: Report) -> str:
    """The report as tables."""
    return (
        "\n".join(
            [*(_bank_tables(report) if report.yes_no else ()), *(_source_table(report) if report.sources else ())]
        )
        + "\n"
    )


def _bank_tables(report: Report) -> list[str]:
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
    return [*lines, ""]


def _source_table(report: Report) -> list[str]:
    lines = ["### Loss of each source's held-out examples, nats", ""]
    lines += ["| source | real | shuffled | none | shuffled - real | examples (contexts) |", "|---" * 6 + "|"]
    for r in report.sources:
        cells = [str(getattr(r, name)) for name in (*CONDITIONS, "gap")]
        lines.append(f"| {r.source} | " + " | ".join(cells) + f" | {r.examples} ({r.contexts}) |")
    return lines


def _counted(share: Interval | None) -> str:
    return "-" if share is None else f"{share} ({share.n})"
