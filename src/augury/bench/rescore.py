"""Scoring saved answers again: no model, no judge, only what the answers say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from augury.bench.published import SCORERS, Metrics, Row
from augury.errors import FormatError, NotFoundError

# Each task's figure in the aggregate, as published.
HEADLINES = {
    "number_prediction": "matches_model_answer_rate",
    "mmlu_prediction_pre_answer": "roc_auc",
    "mmlu_prediction_post_answer": "roc_auc",
    "mmlu_letter_prediction": "matches_model_rate",
    "missing_info": "roc_auc",
    "sycophancy_no_cot": "roc_auc",
    "sycophancy_cot": "roc_auc",
    "vagueness": "specificity_rate",
    "backtracking": "mean_correctness",
    "activation_sensitivity": "activation_sensitivity",
    "domain_confusion": "domain_correct_specific_rate",
    "hallucination": "obvious_hallucination_rate",
}


def rescore(folder: Path) -> dict[str, dict[str, Metrics]]:
    """AObench's published metrics from recorded answers, `folder/TASK/ORACLE.jsonl`.

    Returns:
        For each task folder and oracle its metrics by their published names.

    Raises:
        NotFoundError: There is no such folder, or no task in it.
        FormatError: A line is no JSON object, or lacks what its task is scored by; or a folder is no task.
    """
    if not folder.is_dir():
        raise NotFoundError(
            f"There is no folder {folder}.", "nothing lies there", "name the folder of recorded answers"
        )
    found = {path: sorted(path.glob("*.jsonl")) for path in sorted(folder.iterdir()) if path.is_dir()}
    tasks = {path.name: files for path, files in found.items() if files}
    if not tasks:
        why = f"it has none of {', '.join(SCORERS)} with a .jsonl file inside"
        raise NotFoundError(
            f"{folder} holds no recorded answers.", why, "name the folder that holds the tasks' folders"
        )
    unknown = [name for name in tasks if name not in SCORERS]
    if unknown:
        why = f"tasks are {', '.join(SCORERS)}"
        raise FormatError(f"{folder / unknown[0]} is no task's folder.", why, "rename it, or move it elsewhere")
    return {name: {path.stem: _scored(name, path) for path in files} for name, files in tasks.items()}


def _scored(task: str, path: Path) -> Metrics:
    rows = _rows(path)
    try:
        return SCORERS[task](rows)
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path} cannot be scored as {task}.",
            f"a line lacks {error}" if isinstance(error, KeyError) else f"a field is of another kind: {error}",
            "restore the file from where it came, or put it into its own task's folder",
        ) from error


def _rows(path: Path) -> Sequence[Row]:
    rows: list[Row] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise _broken(path, number, str(error)) from error
            if not isinstance(row, dict):
                raise _broken(path, number, f"it is a {type(row).__name__}")
            rows.append(row)
    if not rows:
        raise FormatError(f"{path} is empty.", "it has no lines", "restore it, or remove it")
    return rows


def _broken(path: Path, number: int, why: str) -> FormatError:
    return FormatError(f"Line {number} of {path} is no JSON object.", why, "restore the file from where it came")
