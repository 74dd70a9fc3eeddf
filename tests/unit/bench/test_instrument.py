"""The bench itself: what it says of readers of which one knows what they can."""

from __future__ import annotations

import json

import pytest

from augury.bench.engine import ORACLE, Engine
from augury.bench.task import REGISTRY, YES
from augury.oracle.together import Work
from tests.unit.bench.conftest import MEASURABLE


class Cheat(Engine):
    """Knows what is true."""

    def answers(self, task, asks, taken, rater, kept):
        if rater == ORACLE:
            return [knows(task, ask) for ask in asks], Work()
        return super().answers(task, asks, taken, rater, kept)


def knows(task, ask):
    facts, choices = ask.item.facts, task.choices_of(ask.item)
    if choices:
        return {"log_probs": [-0.1 if choice == facts["truth"] else -3.0 for choice in choices]}
    if task.kind == "tokens":
        count = len(facts["tokens"].split())
        return {"log_probs": [0.0] * count, "likeliest": [True] * count}
    return {"text": f"It is {facts.get('model_answer') or facts['truth']}."}


class Deaf(Engine):
    """Answers as if nothing were injected."""

    def answers(self, task, asks, taken, rater, kept):
        return super().answers(task, asks, taken, "none" if rater == ORACLE else rater, kept)


class Inverter(Engine):
    """Sees the whole text in the activations, and nothing else."""

    def answers(self, task, asks, taken, rater, kept):
        return super().answers(task, asks, taken, "text-all" if rater == ORACLE else rater, kept)


def with_engine(monkeypatch, kind):
    monkeypatch.setattr("augury.bench.run.Engine", kind)


def test_who_knows_the_truth_scores_one(run, monkeypatch):
    with_engine(monkeypatch, Cheat)
    found = run()
    assert [task.task.name for task in found.tasks] == [name for name in REGISTRY.tasks if name in MEASURABLE]
    for task in found.tasks:
        own = task.headline.raters[ORACLE]
        assert own.estimate == 1, task.task.name
        assert task.headline.leads["none"].estimate > 0
    assert found.tiers["held in the weights"] is None and found.headline is None
    assert found.tiers["planted state"].estimate == 1


def test_who_ignores_activations_scores_as_none(run, monkeypatch):
    with_engine(monkeypatch, Deaf)
    found = {task.task.name: task for task in run().tasks}
    for task in found.values():
        for measure in task.measures.values():
            assert measure.raters[ORACLE] == measure.raters["none"]
            assert measure.leads["none"].estimate == measure.leads["none"].low == measure.leads["none"].high == 0
    # In pairs that differ in what was injected alone, that is chance to the digit.
    assert found["planted"].headline.raters[ORACLE].estimate == 0.5


def test_who_inverts_text_ties_with_the_text_and_is_at_chance_on_what_no_text_says(run, monkeypatch):
    with_engine(monkeypatch, Inverter)
    found = {task.task.name: task for task in run().tasks}
    for task in found.values():
        lead = task.headline.leads["text-all"]
        assert (lead.estimate, lead.low, lead.high) == (0, 0, 0), task.task.name
    planted = found["planted"].headline
    assert planted.raters[ORACLE].estimate == 0.5
    assert all(part[ORACLE].estimate == 0.5 for part in planted.parts["strength"].values())


def test_each_tier_has_its_comparator_at_chance(run, tmp_path):
    found = {task.task.name: task.headline for task in run("planted", "same_window", "missing_info").tasks}
    assert found["missing_info"].raters["text-window"].estimate == found["missing_info"].raters["none"].estimate == 0.5
    for rater in ("none", "text-window", "text-all"):
        assert found["planted"].raters[rater].estimate == 0.5, rater
    assert found["same_window"].raters["text-window"].estimate == found["same_window"].raters["none"].estimate == 0.5
    rows = [json.loads(line) for line in (tmp_path / "run" / "answers" / "same_window.jsonl").open()][1:]
    by = {}
    for row in rows:
        by.setdefault((row["rater"], row["problem"], row["question"], row["window"]), set()).add(str(row["log_probs"]))
    answers = {
        rater: {len(found) for (who, *_), found in by.items() if who == rater} for rater in ("text-window", "text-all")
    }
    assert answers == {"text-window": {1}, "text-all": {2}}, "one text or two, in each pair"


def test_pairs_ask_both_ways(run, tmp_path):
    """Every question that is asked with one truth is asked of an equal text with the other."""
    run("planted", "same_window")
    for name in ("planted", "same_window"):
        items = [json.loads(line) for line in (tmp_path / "run" / "items" / f"{name}.jsonl").open()]
        items = [row for row in items if "item" in row]
        yes = sum(row["facts"]["truth"] == YES for row in items)
        assert 2 * yes == len(items)


@pytest.mark.parametrize("name", ["planted", "same_window", "missing_info"])
def test_the_order_of_items_changes_no_score(run, name, oracle, tmp_path):
    from augury.bench.item import read_items
    from augury.bench.kept import read_answers
    from augury.bench.summary import task_summary
    from tests.unit.bench.conftest import SMALL

    first = run(name).tasks[0]
    out, task = tmp_path / "run", REGISTRY.tasks[name]
    found = read_items(out / "items" / f"{task.items}.jsonl")
    asks = SMALL.asks(task, found.items)
    results = read_answers(out / "answers" / f"{name}.jsonl", asks)
    turned = {rater: list(reversed(rows)) for rater, rows in results.items()}
    again = task_summary(task, found.manifest, list(reversed(asks)), turned)
    for rater, figure in ((name, found) for name, found in first.headline.raters.items() if found is not None):
        assert again.headline.raters[rater].estimate == pytest.approx(figure.estimate, abs=1e-12)
        assert again.headline.raters[rater].low == pytest.approx(figure.low, abs=1e-9)
