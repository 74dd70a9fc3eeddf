"""The end of a run: the trained adapter is measured and saved with its figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from augury.contract import Contract
from augury.files import write_text
from augury.oracle.reader import save_reader
from augury.oracle.save import save_oracle
from augury.train.loop import ADAPTER, lora_config
from augury.train.page import write_page
from augury.train.prepare import Prepared
from augury.train.ranks import ALONE, Ranks
from augury.train.recipe import Recipe
from augury.train.report import SIZES, Report, ReportSize, make_report
from augury.train.report_tables import markdown

# What a report says about what it measured.
_MADE = (
    "base_model", "revision", "weights_fingerprint", "tokenizer_hash", "chat_template_hash", "layers", "injection",
    "trained_on", "versions", "git_commit", "created",
)  # fmt: skip


def finish_run(
    recipe: Recipe,
    run: Path,
    prepared: Prepared,
    contract: Contract,
    size: ReportSize | None = None,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
    ranks: Ranks = ALONE,
) -> Path:
    """Measure the trained adapter, write the report, and save the oracle with its figures in `run/oracle`."""
    reader = recipe.reads == "text"
    config, folder = lora_config(recipe), run / ("reader" if reader else "oracle")
    save = save_reader if reader else save_oracle
    if ranks.first:  # before hours of measuring, in which much can happen
        save(prepared.lm, ADAPTER, config, contract, folder)
    size = size or SIZES[recipe.report]
    report = make_report(prepared, contract, ADAPTER, size, progress, run / "report-parts.json", ranks)
    if ranks.first:
        write_report(report, contract, run)
        measured = contract.model_copy(update={"evaluation": report.headline()})
        save(prepared.lm, ADAPTER, config, measured, folder)
        write_page(run, recipe, measured)
    return folder


def write_report(report: Report, contract: Contract, run: Path) -> None:
    """`report.json`, with what was measured and by which versions, and `report.md`, in the run's folder."""
    made = contract.model_dump(mode="json", include=set(_MADE))
    write_text(run / "report.json", json.dumps({**made, **report.to_dict()}, indent=1) + "\n")
    write_text(run / "report.md", markdown(report))
