"""The report of a training run, for an oracle that exists already: every figure of docs/quality.md again.

Rollouts and activations are made as the recipe says (or found in the folder, where an earlier call was cut off); parts
that were measured before are kept. The probe is fitted on the training rollouts, so fewer of them make it weaker.

    python benchmarks/report.py recipes/smollm2.yaml --oracle smollm2 -o runs/report
    python benchmarks/report.py recipes/smollm2.yaml --oracle older --bars -o runs/report    # only what has a bar
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import augury
from augury.lm.chat import needs_tokenizer
from augury.train.finish import write_report
from augury.train.lens_report import lens_examples, lens_report
from augury.train.prepare import Prepared
from augury.train.question_report import yes_no_examples, yes_no_report
from augury.train.recipe import read_recipe
from augury.train.report import LENS_TASKS, WINDOWS, ReportSize, make_report
from augury.train.report_tables import markdown
from augury.train.run import Progress, prepare_run


def told(phase: str, done: int, total: int | None) -> None:
    """One line a part, overwritten as it goes on."""
    print(f"\r\033[K{phase}: {done} of {total or '?'}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path, help="how the held-out rollouts are made")
    parser.add_argument("--oracle", required=True, help="a folder, a hub id or an alias")
    parser.add_argument("--out", "-o", type=Path, required=True, help="a folder for rollouts, activations and report")
    parser.add_argument("--bars", action="store_true", help="only the figures that have a bar, as a table")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="A.B=C", help="over the recipe")
    options = parser.parse_args()
    try:
        measure(options)
    except augury.AuguryError as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


def measure(options: argparse.Namespace) -> None:
    """Make the data, measure, and write report.json and report.md."""
    recipe = read_recipe(options.recipe, options.settings)
    prepared = prepare_run(recipe, options.out, Progress(phase=told))
    with augury.load_oracle(options.oracle, prepared.lm) as oracle:
        made = replace(prepared, contract=oracle.contract)
        if options.bars:
            print("\n".join(["", "| figure | oracle | shuffled |", "|---|---|---|", *bars(made, oracle)]))
            return
        report = make_report(
            made, oracle.contract, oracle.adapter, progress=told, kept=options.out / "report-parts.json"
        )
        write_report(report, oracle.contract, options.out)
    print(file=sys.stderr)
    print(markdown(report))


def bars(prepared: Prepared, oracle: augury.Oracle) -> Iterator[str]:
    """The lens in both directions and the topic questions at one activation and at ten: the closing report's own."""
    lm, contract, bank = prepared.lm, oracle.contract, prepared.bank
    assert bank is not None, "the recipe has no answers to the bank"
    rollouts, reads, size = bank.rollouts["heldout"], bank.reads["heldout"], ReportSize()
    for task in LENS_TASKS:
        asked = lens_examples(lm, rollouts, task, 8, size.lens)
        lens = lens_report(lm, contract, oracle.adapter, asked, rollouts, reads, max_k=8, own=False)
        yield f"| {task.replace('_', ' ')}, reference less real | {lens.gap} | |"
    decode = needs_tokenizer(lm).decode
    for window in WINDOWS:
        asked = yes_no_examples(rollouts, {"topic": size.topic_pairs}, window, decode)
        found = yes_no_report(lm, contract, oracle.adapter, asked, rollouts, reads, controls=("shuffled",))
        for row in found:
            if row.kind == "topic":
                yield f"| topic AUC, {window} | {row.auc['oracle']} | {row.auc['shuffled']} |"


if __name__ == "__main__":
    sys.exit(main())
