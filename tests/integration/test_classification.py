"""The benchmark out of distribution: what is asked is balanced, and its figure is of the activations."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import ROOT

ENTRY: dict[str, Any] = {"file": "tea.jsonl", "paraphrase_path": ["drinks", "tea"], "labels": ["tea", "other"]}
PARAPHRASES = {"drinks": {"tea": [f"Is it about {{}}, in words {i}?" for i in range(7)]}}


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("classification", ROOT / "benchmarks" / "classification.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"text": f"text {i} of {label}", "label": label} for label in ("tea", "other") for i in range(30)]
    rows.append({"text": "long " * 200, "label": "tea"})
    (tmp_path / "tea.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_each_wording_has_as_many_of_either_answer(benchmark: ModuleType, data: Path) -> None:
    asked = list(benchmark.questions(data, "tea", ENTRY, 40, PARAPHRASES))
    counts = Counter((a.question, a.yes) for a in asked)
    assert len(counts) == 10 and set(counts.values()) == {4}
    assert all(a.text.endswith("of tea") == a.yes and len(a.text) <= benchmark.LONGEST for a in asked)
    assert all(a.question.startswith("Is it about tea, in words") for a in asked)
    assert len({a.text for a in asked}) == 40


def test_a_perfect_margin_is_1_and_a_wordings_own_level_does_not_count(benchmark: ModuleType, data: Path) -> None:
    asked = list(benchmark.questions(data, "tea", ENTRY, 40, PARAPHRASES))
    levels = {question: 100.0 * i for i, question in enumerate(sorted({a.question for a in asked}))}
    assert benchmark.auc([levels[a.question] + a.yes for a in asked], asked).estimate == 1.0
    assert benchmark.auc([levels[a.question] for a in asked], asked).estimate == 0.5
