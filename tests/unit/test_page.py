"""The run's page: whole in itself, with what the run's files say and nothing that they do not."""

from __future__ import annotations

import json
import re

import pytest

from augury.train.page import stopped, write_page
from tests.tiny import tiny_contract, tiny_lm
from tests.training import recipe

STEP = {"steps": 6, "examples": 4, "tokens": 100, "seconds": 2.0, "learning_rate": 1e-3, "loss": 1.0}


@pytest.fixture
def run(tmp_path):
    rows = [{**STEP, "step": i + 1, "losses": {"lens": 3.0 - i / 10, "<asked>": 1.0}} for i in range(6)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_run_that_has_just_begun_has_a_page(run):
    page = write_page(run, recipe(), tiny_contract(tiny_lm())).read_text()
    assert "6 of 6 steps" in page and "24 examples and 600 tokens" in page and "2.0 examples" in page
    assert page.count("<svg") == 1 and "<asked>" not in page


def test_the_page_holds_curves_samples_and_figures_and_no_links(run):
    curve = [{"step": s, "lens real": 3.0, "lens shuffled": 3.0 + s, "lens none": 5.0, "topic AUC at 1": 0.5 + s / 20}
             for s in (2, 4, 6)]  # fmt: skip
    (run / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve))
    sample = {"question": "Who & what?", "truth": "tea", "answer": "coffee <b>", "shuffled": "chess"}
    (run / "report.json").write_text(json.dumps({"sources": [{"source": "lens", "samples": [sample]}]}))
    contract = tiny_contract(tiny_lm()).model_copy(update={"evaluation": {"past lens": {"gap": [0.5, 0.4, 0.6]}}})
    page = write_page(run, recipe(), contract).read_text()
    assert page.count("<svg") == 3
    for text in ("Who &amp; what?", "coffee &lt;b&gt;", "0.5 [0.4, 0.6]", "still rising at the end"):
        assert text in page
    outside = re.sub(r"<svg.*?</svg>", "", page, flags=re.S)
    assert "http" not in outside and "src=" not in page and "<script" not in page and "<link" not in page
    assert write_page(run, recipe(), contract).read_text() == page, "the same files gave another page"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0.6, 0.8, 0.85, 0.845], "from step 3 on"),
        ([0.5, 0.6, 0.7, 0.8], "still rising"),
        ([0.9, 0.5, 0.5, 0.5], "from step 1 on"),
    ],
)
def test_when_a_figure_stopped_improving(values, told):
    assert told in stopped("topic AUC at 1", [1, 2, 3, 4], values)
