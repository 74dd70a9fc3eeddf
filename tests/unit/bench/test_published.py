"""AObench's published metrics, from the answers that were published with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from augury.bench.published import SCORERS
from augury.bench.rescore import HEADLINES, rescore
from augury.errors import FormatError, NotFoundError
from tests.conftest import require

RECORDED = Path(__file__).resolve().parents[4] / "shared" / "data" / "aobench_recorded"
WITHOUT_ROWS = {"domain_confusion", "hallucination"}


@pytest.fixture(scope="module")
def published():
    require(RECORDED.is_dir(), "the recorded answers")
    return json.loads((RECORDED / "metrics.json").read_text())


def test_every_recorded_metric_comes_out_of_its_rows(published):
    found = rescore(RECORDED)
    assert set(found) == set(published) - WITHOUT_ROWS
    for task, by_oracle in found.items():
        assert set(by_oracle) == set(published[task]) and len(by_oracle) == 4
        for oracle, metrics in by_oracle.items():
            assert metrics == pytest.approx(published[task][oracle], abs=1e-9)
            assert HEADLINES[task] in metrics


@pytest.mark.parametrize("task", sorted(WITHOUT_ROWS))
def test_categories_that_were_recorded_only_as_counts(published, task):
    for metrics in published[task].values():
        categories = [name for name, value in metrics.items() if isinstance(value, int)]
        rows = [{"category": name} for name in categories for _ in range(int(metrics[name]))]
        assert SCORERS[task](rows) == pytest.approx(metrics, abs=1e-9)


def test_numbers_are_read_again_from_the_answers(published, tmp_path):
    """What the rows say about their own answers is not taken over."""
    name = "cot-oracle-paper-ablation-ours-3layers"
    (tmp_path / "number_prediction").mkdir()
    rows = [json.loads(line) for line in (RECORDED / "number_prediction" / f"{name}.jsonl").open()]
    for row in rows:
        row |= {"ao_number": 7, "matches_model_answer": True, "matches_true_answer": True}
    (tmp_path / "number_prediction" / "one.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = rescore(tmp_path)["number_prediction"]["one"]
    assert found == pytest.approx(published["number_prediction"][name], abs=1e-9)


def test_what_cannot_be_scored_is_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"no folder"):
        rescore(tmp_path / "none")
    with pytest.raises(NotFoundError, match=r"(?s)no recorded answers.*vagueness"):
        rescore(tmp_path)
    folder = tmp_path / "vagueness"
    folder.mkdir()
    for text, told in (("", "is empty"), ("{}\n[1]", "Line 2"), ("{", "Line 1"), ("{}", r"lacks 'category'")):
        (folder / "one.jsonl").write_text(text)
        with pytest.raises(FormatError, match=told):
            rescore(tmp_path)
    folder.rename(tmp_path / "vagueness2")
    with pytest.raises(FormatError, match=r"(?s)vagueness2 is no task.*vagueness,"):
        rescore(tmp_path)
