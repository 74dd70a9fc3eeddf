"""Sampling in a running batch: what a conversation is given depends on it alone, whoever runs beside it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from augury.lm import Sampling, generate, generate_many
from tests.tiny import tiny_lm

WORDS = ["a", "one two three four five six", "yes", "seven eight nine", "to be or not to be that is the question", "b"]
TALKS = [[{"role": "user", "content": text}] for text in WORDS * 4]


@pytest.fixture(scope="module")
def lm():
    """One whose answers end at different places: every eleventh token ends one."""
    lm = tiny_lm()
    lm.model.generation_config.eos_token_id = list(range(0, lm.vocab_size, 11))
    return lm


def ids(lm, sampling, **settings):
    return [found.token_ids for found in generate_many(lm, TALKS, sampling, **settings)]


@pytest.mark.parametrize("sampling", [Sampling(24, 1.0), Sampling(24, 1.0, 0.9, seed=3), Sampling(24)])
def test_neither_width_nor_neighbours_decide_an_answer(lm, sampling):
    one_by_one = ids(lm, sampling, width=1)
    assert len(set(map(len, one_by_one))) > 4
    for width in (2, 5, 8, 100):
        assert ids(lm, sampling, width=width) == one_by_one
    part = generate_many(lm, TALKS[7:9], sampling, numbers=[7, 8])
    assert [found.token_ids for found in part] == one_by_one[7:9]


def test_greedy_answers_are_those_of_one_conversation(lm):
    assert ids(lm, Sampling(24), width=5) == [generate(lm, talk, max_new_tokens=24).token_ids for talk in TALKS]


def test_a_finished_rows_place_is_given_away(lm, monkeypatch):
    rows, forward = [], type(lm.model).forward

    def counted(self, *args, **kwargs):
        if kwargs["input_ids"].shape[1] == 1:
            rows.append(len(kwargs["input_ids"]))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(lm.model), "forward", counted)
    done = []
    found = ids(lm, Sampling(24, 1.0), width=8, done=done.append)
    new = sum(map(len, found)) - sum(len(t.token_ids) for t in generate_many(lm, TALKS, Sampling(1), width=8))
    passes = -(-new // 8)
    assert max(rows) == 8 and len(rows) <= 1.6 * passes, "without refilling it is 24 passes for each eight"
    assert done == sorted(done) and done[-1] == len(TALKS)


def test_samples_follow_the_models_probabilities(lm):
    count = 4000
    found = generate_many(lm, [TALKS[1]] * count, Sampling(1, 1.0), width=500)
    drawn = Counter(transcript.token_ids[-1] for transcript in found)
    start = found[0].token_ids[:-1]
    with torch.no_grad():
        expected = lm.model(torch.tensor([start])).logits[0, -1].softmax(-1) * count
    often = [i for i in range(lm.vocab_size) if expected[i] >= 5]
    squares = sum((drawn[i] - float(expected[i])) ** 2 / float(expected[i]) for i in often)
    assert squares < len(often) + 4 * (2 * len(often)) ** 0.5
    assert len({generate_many(lm, TALKS[:1], Sampling(8, 1.0, seed=s))[0].token_ids for s in range(6)}) > 4
