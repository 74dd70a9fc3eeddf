"""The report of a run: whole in itself, safe with any text, and every answer in it is the run's."""

from __future__ import annotations

import json
import re

from augury.bench.browse import shown
from augury.bench.item import read_items
from augury.bench.kept import read_answers
from augury.bench.page import page
from augury.bench.task import REGISTRY
from tests.unit.bench.conftest import SMALL


def embedded(text):
    return json.loads(re.search(r"id=answers>(.*?)</script>", text, re.DOTALL)[1])


def test_it_needs_nothing_else_and_shows_every_task(run, tmp_path):
    run("planted", "past_lens", "number_prediction")
    text = (tmp_path / "run" / "report.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text.replace("http://www.w3.org", ""))
    assert "number_prediction: not measurable on this model" in text
    found = embedded(text)
    assert set(found) == {"planted", "past_lens"}
    for rows in found.values():
        assert all(len(row["answers"]) == 6 and row["read"] and row["truth"] for row in rows)


def test_single_answers_are_the_runs(run, tmp_path, lm):
    run("same_window")
    out, task = tmp_path / "run", REGISTRY.tasks["same_window"]
    asks = SMALL.asks(task, read_items(out / "items" / "same_window.jsonl").items)
    results = read_answers(out / "answers" / "same_window.jsonl", asks)
    rows = shown(task, asks, results, lm.tokenizer.decode)
    assert len(rows) == sum(ask.window == task.window for ask in asks)
    own = [i for i, ask in enumerate(asks) if ask.window == task.window]
    for row, i in zip(rows, own, strict=True):
        assert lm.tokenizer.decode([asks[i].item.token_ids[p] for p in asks[i].positions]) == "".join(
            row["tokens"][place] for place in row["read"]
        )
        yes, no = results["oracle"][i]["log_probs"]
        assert row["answers"]["oracle"].startswith("Yes" if yes >= no else "No")


def test_text_is_no_markup(run, tmp_path):
    run("planted")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    evil = "</script><script>alert(1)</script>"
    summary["oracle"]["name"] = summary["tasks"]["planted"]["about"] = evil
    answers = [{"item": evil, "problem": evil, "question": evil, "truth": evil, "state": "", "tokens": [evil],
                "read": [0], "cut": False, "answers": {"oracle": evil}}]  # fmt: skip
    text = page(summary, {"planted": answers})
    assert "alert(1)</script>" not in text and embedded(text) == {"planted": answers}
