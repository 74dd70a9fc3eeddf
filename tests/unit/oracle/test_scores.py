"""Scores, against forward passes written out by hand on a model whose adapter is merged into its weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augury.activations import Activations, capture
from augury.lm import LanguageModel
from augury.lm.adapters import add_adapter
from augury.oracle import Oracle, Score
from augury.oracle.choices import prefixed, spell
from augury.oracle.controls import CONTROLS, derangement, plans
from augury.oracle.donors import donor_bank
from augury.oracle.passes import Row
from tests.oracle_by_hand import (
    CONFIG,
    CONTEXT,
    COOKING,
    LAYER,
    OTHER,
    WHO,
    by_hand,
    contract_of,
    randomise,
    written_out,
)
from tests.tiny import tiny_lm

# --- scores


def test_score_is_what_the_forward_pass_says(oracle: Oracle, lm: LanguageModel, merged: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    score = oracle.score(acts, COOKING, donors=0)
    asked = "Answer with 'Yes' or 'No' only. " + COOKING
    expected = by_hand(merged, written_out(merged, asked, acts.vectors[0])[0])
    assert score.question == asked and score.method == "first-token"
    assert torch.tensor(score.log_probs) == pytest.approx(expected, abs=1e-4)
    assert score.margin == pytest.approx(float(expected[0] - expected[1]), abs=1e-4)
    assert score.probability == pytest.approx(float(expected.softmax(0)[0]), abs=1e-4)
    assert score.mass == pytest.approx(float(expected.exp().sum()), abs=1e-4)
    assert (score.mass < 0.5) == any("probability" in line for line in score.warnings)


def test_choices_without_a_token_are_scored_whole(oracle: Oracle, lm: LanguageModel, merged: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    choices = ("zebra", "giraffe", "an ox")
    score = oracle.score(acts, WHO, choices=choices, donors=0)
    tokenizer: Any = lm.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    expected = []
    for choice in choices:
        ids = (*tokenizer(choice, add_special_tokens=False)["input_ids"], end)
        log_probs = written_out(merged, WHO, acts.vectors[0], ids)
        expected.append(float(sum(log_probs[i, token] for i, token in enumerate(ids))))
    assert score.method == "whole-choice" and score.question == WHO
    assert score.log_probs == pytest.approx(expected, abs=1e-3)
    assert score.margin == pytest.approx(expected[0] - float(torch.tensor(expected[1:]).logsumexp(0)), abs=1e-3)


def test_spellings_belong_to_one_choice_and_are_single_tokens(lm: LanguageModel) -> None:
    spelled = spell(lm, contract_of(lm), ("Yes", "No"))
    flat = [token for ids in spelled.ids for token in ids]
    assert len(set(flat)) == len(flat)
    assert len(spelled.ids[0]) == len(spelled.ids[1]) >= 1
    tokenizer: Any = lm.tokenizer
    for texts, ids in zip(spelled.texts, spelled.ids, strict=True):
        assert [tokenizer.decode([token]) for token in ids] == list(texts)


def test_a_token_of_two_choices_serves_neither(lm: LanguageModel) -> None:
    spelled = spell(lm, contract_of(lm), ("Yes", "yes"))
    assert not set(spelled.ids[0]) & set(spelled.ids[1])


def test_the_prefix_is_not_doubled(oracle: Oracle) -> None:
    asked = "Answer with 'Yes' or 'No' only. " + COOKING
    assert oracle.score(CONTEXT, asked, donors=0).margin == oracle.score(CONTEXT, COOKING, donors=0).margin


def test_the_order_of_yes_and_no_does_not_matter(oracle: Oracle) -> None:
    forth, back = (oracle.score(CONTEXT, COOKING, choices=c, donors=0) for c in (("Yes", "No"), ("no", "yes")))
    assert back.question == forth.question == "Answer with 'Yes' or 'No' only. " + COOKING
    assert back.margin == pytest.approx(-forth.margin, abs=1e-5)
    for others in (("Yes", "No", "Maybe"), ("French", "German")):
        assert prefixed(oracle.contract, COOKING, others) == COOKING


def test_percentile_is_the_place_among_donors(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 2")
    score = oracle.score(acts, COOKING, donors=5, controls=True)
    vectors = donor_bank(lm, (LAYER,)).take(5, 2)
    margins = sorted(oracle.score(v, COOKING, layers=LAYER, donors=0).margin for v in vectors)
    assert sorted(score.donor_margins) == pytest.approx(margins, abs=1e-4)
    assert score.donor_median == pytest.approx(margins[2], abs=1e-4)
    assert score.percentile == pytest.approx(20 * sum(m < score.margin for m in margins))
    shuffled = score.controls["shuffled"]
    assert isinstance(shuffled, Score) and shuffled.margin == pytest.approx(margins[2], abs=1e-4)
    assert score.value == pytest.approx(score.margin - margins[2], abs=1e-4)


# --- batches


PIECE = st.sampled_from([CONTEXT, OTHER, "Who?", CONTEXT + " " + OTHER])
QUESTION = st.sampled_from([COOKING, WHO, "Is it so?", "De quoi parle ce texte ?"])


@settings(max_examples=8)
@given(st.lists(st.tuples(PIECE, QUESTION, st.integers(1, 5)), min_size=1, max_size=5))
def test_a_batch_equals_its_items(drawn: list[tuple[str, str, int]]) -> None:
    oracle, lm = _shared()
    pairs = [(capture(lm, text, LAYER, f"last {n}"), question) for text, question, n in drawn]
    together = oracle.score_batch(pairs, batch_size=3)
    answers = oracle.ask_batch(pairs, max_new_tokens=4, batch_size=3)
    for pair, score, answer in zip(pairs, together, answers, strict=True):
        alone = oracle.score(*pair, donors=0)
        assert score.log_probs == pytest.approx(alone.log_probs, abs=1e-4)
        assert answer.token_ids == oracle.ask(*pair, max_new_tokens=4).token_ids


_kept: list[tuple[Oracle, LanguageModel]] = []


def _shared() -> tuple[Oracle, LanguageModel]:
    """For hypothesis, which does not take function-scoped fixtures."""
    if not _kept:
        lm = tiny_lm()
        add_adapter(lm, CONFIG, "shared")
        randomise(lm, "shared")
        _kept.append((Oracle(lm, contract_of(lm), "shared", "shared"), lm))
    return _kept[0]


def test_a_batch_under_controls_equals_itself_in_other_order(oracle: Oracle) -> None:
    pairs = [(CONTEXT, COOKING), (OTHER, COOKING)]
    forth = oracle.score_batch(pairs, controls=True)
    back = oracle.score_batch(pairs[::-1], controls=True)[::-1]
    for one, two in zip(forth, back, strict=True):
        for name in CONTROLS:
            a, b = one.controls[name], two.controls[name]
            assert isinstance(a, Score) and isinstance(b, Score)
            assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)


def test_in_a_batch_shuffled_is_the_other_problem(oracle: Oracle, lm: LanguageModel) -> None:
    pairs = [(CONTEXT, COOKING), (OTHER, WHO)]
    scores = oracle.score_batch(pairs, controls=True)
    swapped = oracle.score_batch([(OTHER, COOKING), (CONTEXT, WHO)])
    for score, other in zip(scores, swapped, strict=True):
        shuffled = score.controls["shuffled"]
        assert isinstance(shuffled, Score)
        assert shuffled.log_probs == pytest.approx(other.log_probs, abs=1e-4)
        assert abs(shuffled.margin - score.margin) > 1e-3


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=12))
def test_derangement(drawn: list[tuple[int, int]]) -> None:
    problems, shapes = [p for p, _ in drawn], [s for _, s in drawn]
    found = derangement(problems, shapes)
    assert found == derangement(problems, shapes)
    for i, other in enumerate(found):
        candidates = [j for j in range(len(drawn)) if shapes[j] == shapes[i] and problems[j] != problems[i]]
        assert (other is None) == (not candidates)
        assert other is None or other in candidates


def test_a_tensor_is_not_its_own_donor(oracle: Oracle, lm: LanguageModel) -> None:
    """Choosing among layers or positions copies it; what it holds stays the same problem."""
    values = torch.randn(2, 4, lm.d_model)
    both = Activations.from_tensor(values, (1, LAYER))
    alike = [
        both.at_layers(LAYER)[:3],
        Activations.from_tensor(values[1, :3].clone(), LAYER),
        both.at_layers(LAYER)[:3],
    ]
    other = Activations.from_tensor(values[0, :3], LAYER)

    def donors(given: list[Activations]) -> list[Any]:
        items = [oracle.item(read, COOKING) for read in oracle.read(given, None, None)]
        return [plan["shuffled"] for plan in plans(lm, oracle.contract, items)]

    assert donors(alike) == [None] * 3
    for found in donors([*alike, other])[:3]:
        assert isinstance(found, Row) and found.vectors is not None and torch.equal(found.vectors, values[0, :3])
