"""The learning curve: a few held-out figures at intervals during training, appended to `curve.jsonl`.

Most of the uplift is there after a tenth of a run, and falling loss is not capability (Bauer et al. 2026): so the
figures that count are measured along the way and stand over the loss in the run's report.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from augury.files import write_text
from augury.lm.chat import needs_tokenizer
from augury.train.lens_report import lens_examples, lens_report
from augury.train.loop import ADAPTER
from augury.train.metrics import CURVE, StepReport, read_curve
from augury.train.prepare import BankSet, Prepared
from augury.train.question_report import yes_no_examples, yes_no_report
from augury.train.ranks import ALONE, Ranks
from augury.train.recipe import Recipe
from augury.train.source_report import CONDITIONS, source_report


@dataclass(frozen=True)
class CurveSize:
    """How many examples an evaluation asks: of each lens, of topic pairs, and of each source."""

    lens: int
    pairs: int
    source: int


SIZES = {"full": CurveSize(60, 100, 48), "quick": CurveSize(16, 12, 16)}


class Measure(Protocol):
    """Measures where it is time to, and says whether it did."""

    def __call__(self, report: StepReport, resumed: bool = False) -> bool:
        """Of the step with which a run goes on (`resumed`), only what had not been measured when it was cut off."""
        ...


def curve_at(recipe: Recipe, prepared: Prepared, run: Path, ranks: Ranks = ALONE) -> Measure:
    """What measures, after a step of `train_run`, as often as the recipe says, at equal distances and at the end."""
    path, evaluations, steps = run / CURVE, recipe.evaluations, recipe.optimizer.steps

    def measure(report: StepReport, resumed: bool = False) -> bool:
        if not evaluations or report.step * evaluations // steps == (report.step - 1) * evaluations // steps:
            return False
        if resumed and ranks.any(ranks.first and any(old["step"] == report.step for old in read_curve(run))):
            return False
        row = {"step": report.step, **measure_once(prepared, SIZES[recipe.report], ranks)}
        if ranks.first:
            kept = [old for old in read_curve(run) if old["step"] < report.step]
            write_text(path, "".join(json.dumps(line) + "\n" for line in [*kept, row]))
        return True

    return measure


def measure_once(prepared: Prepared, size: CurveSize, ranks: Ranks = ALONE) -> dict[str, float]:
    """Each source's held-out losses and, with answers to the bank, lens gaps and the topic questions' AUC."""
    lm, contract = prepared.lm, prepared.contract
    found: dict[str, float] = {}
    for name, examples in prepared.heldout.items():
        if not examples:
            continue
        part, where = examples[: size.source], examples[0].contexts
        result = source_report(
            lm, contract, ADAPTER, part, prepared.contexts[where], prepared.reads[where], samples=0, ranks=ranks
        )
        if result is not None:
            found |= {f"{name} {condition}": getattr(result, condition).estimate for condition in CONDITIONS}
    if prepared.bank is not None:
        found |= _of_bank(prepared, prepared.bank, size, ranks)
    return {name: round(value, 4) for name, value in found.items()}


def _of_bank(prepared: Prepared, bank: BankSet, size: CurveSize, ranks: Ranks) -> dict[str, float]:
    lm, contract = prepared.lm, prepared.contract
    rollouts, reads = bank.rollouts["heldout"], bank.reads["heldout"]
    found: dict[str, float] = {}
    for task in ("past_lens", "future_lens"):
        examples = lens_examples(lm, rollouts, task, 8, size.lens)
        result = lens_report(lm, contract, ADAPTER, examples, rollouts, reads, max_k=8, own=False, ranks=ranks)
        found[f"{task} gap"] = result.gap.estimate
    for window in (1, 10):
        asked = yes_no_examples(rollouts, {"topic": size.pairs}, window, needs_tokenizer(lm).decode)
        results = yes_no_report(lm, contract, ADAPTER, asked, rollouts, reads, controls=(), ranks=ranks)
        if results:
            found[f"topic AUC at {window}"] = results[0].auc["oracle"].estimate
    return found
