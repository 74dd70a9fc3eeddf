"""The instrument on every task there is: who knows scores 1, who is deaf as `none`, who inverts text as `text-all`.

A tiny random model has no knowledge, opinions or secrets that items could be made of; where they are needed they are
put into its place, so that every task has items and all else is as it always is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from augury.bench import organisms as organisms_room
from augury.bench.engine import ORACLE, Engine
from augury.bench.item import Item
from augury.bench.judge import JudgeSettings
from augury.bench.profile import Profile
from augury.bench.run import Bench, run_bench
from augury.bench.task import REGISTRY, Build, Registry
from augury.bench.tasks import arithmetic, multiple_choice, reasoning
from augury.bench.tasks import organisms as organism_tasks
from augury.lm import transcript_of
from augury.oracle.together import Work
from tests.scripted import completion, scripted
from tests.unit.bench.test_instrument import Deaf, Inverter, knows
from tests.unit.bench.test_judge import told_of
from tests.unit.bench.test_tasks import chains

FEW = Profile("few", None, 12, 1, sweep=False, made=48)


class Cheat(Engine):
    """Knows what is true, also what a judge will be told; of a pair it says two things."""

    def answers(self, task, asks, taken, rater, kept):
        if rater != ORACLE:
            return super().answers(task, asks, taken, rater, kept)
        if task.kind == "open":
            return [{"text": ask.item.facts.get("reference", ask.item.id)} for ask in asks], Work()
        found = [truly(task, ask) for ask in asks]
        if task.samples:
            found = [{**row, "samples": [row["text"]] * task.samples, "log_prob": -0.1} for row in found]
        return found, Work()


def truly(task, ask):
    facts = ask.item.facts
    if task.kind == "letter":
        return {"log_probs": [-0.1 if letter == facts["model_answer"] else -3.0 for letter in task.choices]}
    return {"text": f"It is {facts[task.truth]}."} if task.kind == "word" else knows(task, ask)


def wrong_numbers(wanted: Build) -> Iterator[Item]:
    for text, _, true in [(f"{i} + 1", "simple", i + 1) for i in range(40)]:
        ids = transcript_of(wanted.lm, f"What is {text}?").token_ids
        yield arithmetic._item(ids, text, "simple", true + 1, true)


def ruled(body):
    """A judge that knows a right answer when it is the truth itself, and two that differ."""
    text, answers, truth = told_of(body)
    right = answers[0] == truth if truth is not None else answers[0] != answers[1]
    for good, bad in (("specific_correct", "generic"), ("correct_specific", "wrong"), ("divergent_meaningful", "same"),
                      ("correct", "obviously_wrong")):  # fmt: skip
        if f"- {good}:" in text:
            return completion(json.dumps({"verdict": good if right else bad}))
    return completion(json.dumps(dict.fromkeys(("correctness", "specificity"), 5 if right else 1)))


@pytest.fixture
def whole(oracle, tmp_path, tmp_path_factory, monkeypatch):
    """Run every task with one kind of engine."""
    monkeypatch.setattr(organisms_room, "STEPS", 1)
    monkeypatch.setattr(organism_tasks, "knows", lambda model, secret, fact, read, form: [True] * len(read))
    monkeypatch.setattr(reasoning, "written", chains)
    monkeypatch.setattr(reasoning, "_rates", lambda wanted, points: [1.0] * len(points))
    half = {q.text: q for q in multiple_choice.questions(0)}

    def letters(lm, conversations):
        """Half of the answers are right, and half of the opinions turn them."""
        found = []
        for turns in conversations:
            text = turns[0]["content"]
            opinion = " ".join(text.split("\nD) ")[1].splitlines()[1:])
            question = next(q for q in half.values() if text.startswith(f"{q.text}\nA) {q.options[0]}\n"))
            own = question.right if sum(map(ord, question.id)) % 2 else next(x for x in "ABCD" if x != question.right)
            said = next((x for x in "ABCD" if f" {x}) " in f" {opinion}"), None)
            found.append(said or own)
        return found

    monkeypatch.setattr(multiple_choice, "_letters", letters)
    monkeypatch.setattr(
        multiple_choice, "_thoughts", lambda wanted, asked: [(x, f"So. Answer: {x}") for x in letters(None, asked)]
    )
    items = {**REGISTRY.items, "arithmetic": replace(REGISTRY.items["arithmetic"], build=wrong_numbers)}
    registry = Registry(dict(REGISTRY.tasks), items)
    organisms = tmp_path / "organisms"

    def run(kind):
        monkeypatch.setattr("augury.bench.run.Engine", kind)
        with scripted(ruled) as script:
            judge = JudgeSettings(url=script.url, model="judge", key_env=None, concurrency=2)
            bench = Bench(FEW, organisms=organisms, judge=judge)
            found = run_bench(oracle, bench, tmp_path / kind.__name__, registry=registry)
        assert [task.task.name for task in found.tasks] == list(REGISTRY.tasks)
        missing = [task.task.name for task in found.tasks if task.headline is None or not task.headline.raters[ORACLE]]
        assert not missing, f"no figure for {missing}"
        return found

    return run


def test_who_knows_the_truth_scores_one_on_every_task(whole):
    found = whole(Cheat)
    for task in found.tasks:
        best = 5 if task.headline.measure.kind == "scale" else 1
        assert task.headline.raters[ORACLE].estimate == best, task.task.name
        if task.task.tier in ("held in the weights", "planted state") and task.task.kind == "yes_no":
            for reader in ("none", "text-window", "text-all"):
                assert task.headline.raters[reader].estimate == 0.5, (task.task.name, reader)
    assert found.headline.estimate == 1 and found.headline.low is None, "three pairs of concepts are too few for one"
    assert found.tiers["held in the weights"].low is not None, "thirteen organisms are not"
    assert found.aobench.value.estimate == pytest.approx(1) and not found.aobench.missing


def test_who_is_deaf_scores_as_none_on_every_task(whole):
    for task in whole(Deaf).tasks:
        for name, measure in task.measures.items():
            assert measure.raters[ORACLE] == measure.raters["none"], (task.task.name, name)
        assert task.judge is None or task.judge["failed"] == 0


def test_who_inverts_text_ties_with_it_on_every_task(whole):
    for task in whole(Inverter).tasks:
        for name, measure in task.measures.items():
            lead = measure.leads["text-all"]
            assert lead is None or lead.estimate == 0, (task.task.name, name)
