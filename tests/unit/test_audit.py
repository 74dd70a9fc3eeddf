"""The text-inversion audit: a reader that knows scores one, one that guesses scores chance, and none sees too much."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augury.data.audit import ALL, ALONE, READINGS, WINDOW, audit, closed_answers, pick
from augury.data.build import build
from augury.data.example import Context, Example, Part
from augury.data.opened import open_data
from augury.data.readers import Asked, BaseReader, prompts_of, reader_contract
from augury.data.recipe import DataRecipe
from augury.lm.logprobs import continuation_logprobs
from augury.oracle.prompt import plain_prompt
from tests.tiny import tiny_lm


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def data(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    rows = "".join(f"words {i} of it,{('tea', 'rice', 'oil')[i % 3]}\n" for i in range(150))
    (folder / "labelled.csv").write_text("text,label\n" + rows)
    mine = [{"text": f"a text {i}", "question": "Why?", "answer": f"so {i}", "split": "train"} for i in range(9)]
    mine.append({"vectors": "x.safetensors", "question": "Why?", "answer": "so"})
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mine[:9]))
    found = {
        "name": "audit", "model": "tiny", "layers": [[1]],
        "contexts": {"answers": {"type": "rollouts", "train": 10, "heldout": 40, "max_new_tokens": 16,
                                 "temperature": 1.0}},
        "sources": {
            "lens": {"type": "lens", "contexts": "answers", "k": 4, "train": 10, "heldout": 80},
            "asked": {"type": "questions", "contexts": "answers", "pairs": 1, "train": 10, "heldout": 120},
            "labels": {"type": "classification", "path": folder / "labelled.csv", "heldout_share": 0.5,
                       "questions": ["Is it {label}?", "{label}?"], "open": ["Which?", "What?"],
                       "train": 100, "heldout": 200},
            "mine": {"type": "custom", "path": folder / "mine.jsonl"},
        },
    }  # fmt: skip
    build(lm, DataRecipe.model_validate(found), folder / "data")
    return open_data(folder / "data")


class Told:
    """A reader that is told the answer with the text, or guesses."""

    def __init__(self, lm, knows: Sequence[str]) -> None:
        self.lm, self.knows, self.rng = lm, knows, random.Random(0)

    def asked(self, example: Example, context: Context) -> Asked | None:
        return Asked(example, prompts_of(self.lm, context, example.positions, example.question))

    def margins(self, asked: Sequence[Asked], reading: str) -> list[float]:
        told = reading in self.knows
        return [(1.0 if one.example.yes else -1.0) if told else self.rng.random() for one in asked]

    def hits(self, asked: Sequence[Asked], reading: str) -> list[float]:
        told = reading in self.knows
        return [1.0 if told else float(self.rng.choice(one.choices) == one.example.answer) for one in asked]

    def nats(self, asked: Sequence[Asked], reading: str) -> list[float]:
        return [0.0 if reading in self.knows else -self.rng.random() - 2 for _ in asked]

    def greedy(self, asked: Sequence[Asked], reading: str) -> list[str]:
        return [f" {one.example.answer.upper()}." if reading in self.knows else "else" for one in asked]


def by_measure(found):
    return {(row.source, row.measure): row for row in found.rows}


def test_a_reader_that_is_told_the_answer_scores_one(lm, data):
    found = audit(data, pick(data, 100), Told(lm, (WINDOW, ALL)))
    rows = by_measure(found)
    assert set(rows) == {("lens", "nats"), ("asked", "AUC"), ("labels", "AUC"), ("labels", "accuracy"),
                         ("mine", "nats")}  # fmt: skip
    for row in found.rows:
        best = 0.0 if row.measure == "nats" else 1.0
        assert row.scores[WINDOW].value == row.scores[ALL].value == best
        assert row.closed == 1.0 and row.scores[ALONE].value < best
    lens = rows["lens", "nats"]
    assert lens.gained[ALL].low > 2 and lens.equal[ALL].value == 1.0 and lens.equal[ALONE].value == 0.0
    assert "answers asked (AUC), labels" in found.sentence and "text inversion" in found.sentence


def test_a_reader_that_guesses_scores_chance(lm, data):
    found = audit(data, pick(data, 200), Told(lm, ()))
    for row in found.rows:
        if row.measure != "nats":
            assert row.chance == pytest.approx(0.5 if row.measure == "AUC" else 1 / 3)
            for reading in READINGS:
                figure = row.scores[reading]
                assert figure.low < row.chance < figure.high, (row.source, reading, figure)
        else:
            assert abs(row.gained[ALL].value) < 0.4 and row.equal[ALL].value == 0
        assert row.closed < 0.3
    assert "answers no source" in found.sentence


def test_scores_are_compared_within_pairs(lm, data):
    """A question that every context answers alike tells nothing, however different its margins are."""

    class ByContext(Told):
        def margins(self, asked: Sequence[Asked], reading: str) -> list[float]:
            return [one.example.context + 0.1 * one.example.yes for one in asked]

    row = by_measure(audit(data, pick(data, 100, "asked"), ByContext(lm, ())))["asked", "AUC"]
    assert row.scores[ALONE].value == 1.0


@settings(max_examples=200)
@given(st.data())
def test_no_reading_holds_a_token_right_of_the_last_position(lm, data):
    length = data.draw(st.integers(1, 30))
    ids = tuple(data.draw(st.lists(st.integers(3, lm.vocab_size - 1), min_size=length, max_size=length)))
    positions = tuple(sorted(data.draw(st.sets(st.integers(0, length - 1), min_size=1, max_size=6))))
    last = positions[-1]
    context = Context(0, "train", ids, (Part("text", "file", 0, length),))
    found = prompts_of(lm, context, positions, "Why?")
    other = (*ids[: last + 1], *data.draw(st.lists(st.integers(3, lm.vocab_size - 1), max_size=9)))
    assert prompts_of(lm, Context(0, "train", other, ()), positions, "Why?") == found
    outside = tuple(i if p in positions else 3 + (i * 7 + 1) % 90 for p, i in enumerate(ids))
    changed = prompts_of(lm, Context(0, "train", outside, ()), positions, "Why?")
    assert changed["text-window"] == found["text-window"] and changed["question"] == found["question"] == "Why?"
    assert found["text-all"] == f'Text: "{lm.tokenizer.decode(list(ids[: last + 1])).strip()}"\n\nWhy?'


def test_examples_are_picked_in_whole_pairs_by_the_seed(data):
    found = pick(data, 31, seed=3)
    assert found == pick(data, 31, seed=3) != pick(data, 31, seed=4)
    assert 31 <= len(found["asked"]) <= 32 and {example.split for example in found["asked"]} == {"heldout"}
    for unit in {example.unit for example in found["asked"]}:
        assert [e.answer for e in found["asked"] if e.unit == unit] == ["Yes", "No"]
    assert {example.split for example in found["mine"]} == {"train"} and len(found["mine"]) == 9


def test_closed_answers_are_few_short_and_frequent(data):
    assert closed_answers(data, "labels") == {"labels": ("oil", "rice", "tea")}
    assert closed_answers(data, "mine") == closed_answers(data, "lens") == {}


def test_the_base_reads_the_text(lm, data):
    """Against the plain pass: the truth's tokens right behind the prompt."""
    reader = BaseReader(lm, reader_contract({}))
    example = pick(data, 1, "lens")["lens"][0]
    asked = reader.asked(example, data.context_of(example))
    assert asked is not None and asked.prompts == prompts_of(
        lm, data.context_of(example), example.positions, example.question
    )
    for reading in READINGS:
        prompt = plain_prompt(lm, reader.contract, asked.prompts[reading])
        (want,) = continuation_logprobs(lm, [prompt.token_ids], [example.answer_ids])
        assert reader.nats([asked], reading) == pytest.approx([float(want.mean())], abs=1e-5)
    long = Context(0, "train", tuple(np.full(600, 5)), ())
    assert reader.asked(example, long) is not None
    assert reader.asked(Example("open", "x", "train", 0, (599,), "Why?", "so", None, "Why?"), long) is None
    assert reader.asked(example, Context(0, "train", (), ())) is None


def test_a_folder_is_opened_as_it_lies(data, tmp_path: Path):
    assert data.sources == ["asked", "labels", "lens", "mine"] and data.target == "LlamaForCausalLM"
    example = data.examples["lens", "train"][0]
    assert data.context_of(example).number == example.context
