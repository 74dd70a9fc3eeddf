"""The learning curve: a few held-out figures at intervals during training, appended to `curve.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from augury.files import write_text
from augury.lm.chat import needs_tokenizer
from augury.train.lens_report import lens_examples, lens_report
from augury.train.loop import ADAPTER
from augury.train.metrics import StepReport
from augury.train.question_report import yes_no_examples, yes_no_report
from augury.train.run import Prepared

LENS, PAIRS = 100, 100


def curve_every(steps: int, prepared: Prepared, run: Path) -> Callable[[StepReport], None]:
    """A callback for `train_run` that measures every `steps` steps (about 40 s each on two cores; 0: never)."""
    path = run / "curve.jsonl"

    def measure(report: StepReport) -> None:
        if steps and report.step % steps == 0:
            row = {"step": report.step, **measure_once(prepared)}
            kept = [line for line in _lines(path) if json.loads(line)["step"] < report.step]
            write_text(path, "".join(f"{line}\n" for line in [*kept, json.dumps(row)]))

    return measure


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def measure_once(prepared: Prepared) -> dict[str, float]:
    """Lens gaps at k up to 8 and the topic questions' AUC, on a small fixed held-out sample."""
    lm, contract = prepared.lm, prepared.contract
    rollouts, reads = prepared.rollouts["heldout"], prepared.reads["heldout"]
    found: dict[str, float] = {}
    for task in ("past_lens", "future_lens"):
        examples = lens_examples(lm, rollouts, task, 8, LENS)
        result = lens_report(lm, contract, ADAPTER, examples, rollouts, reads, max_k=8, own=False)
        found[f"{task}_real"], found[f"{task}_gap"] = result.real.estimate, result.gap.estimate
    for window in (1, 10):
        examples = yes_no_examples(rollouts, {"topic": PAIRS}, window, needs_tokenizer(lm).decode)
        results = yes_no_report(lm, contract, ADAPTER, examples, rollouts, reads, controls=())
        found[f"topic_auc_at_{window}"] = results[0].auc["oracle"].estimate
    return {name: round(value, 4) for name, value in found.items()}
