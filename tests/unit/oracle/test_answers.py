"""Answers and scans, against the forward pass written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from augury.activations import capture
from augury.errors import ContractError, InputError
from augury.lm import LanguageModel, Sampling
from augury.oracle import Oracle
from augury.oracle.donors import DonorBank
from augury.oracle.passes import decode_rows
from tests.oracle_by_hand import COEFFICIENT, CONTEXT, COOKING, LAYER, WHO, written_out

# --- answers


def test_greedy_answer_is_the_forward_passes_argmax(oracle: Oracle, lm: LanguageModel, merged: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    answer = oracle.ask(acts, WHO, max_new_tokens=5)
    ids: tuple[int, ...] = ()
    while len(ids) < 5 and not (ids and ids[-1] in lm.end_ids):
        ids = (*ids, int(written_out(merged, WHO, acts.vectors[0], ids)[-1].argmax()))
    assert answer.token_ids == ids
    assert answer.samples == () and answer.agreement is None


def test_samples_share_a_prefill_and_lose_nothing(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    answer = oracle.ask(acts, WHO, samples=6, max_new_tokens=5, seed=3)
    row = oracle.item(oracle.read([acts], None, "all")[0], WHO).row  # the same prompt, prefilled six times
    texts = decode_rows(oracle.runner(), [row] * 6, Sampling(5, 1.0, 1.0, 3))
    tokenizer: Any = lm.tokenizer
    expected = [tokenizer.decode(text[0], skip_special_tokens=True).strip() for text in texts]
    assert list(answer.samples) == expected
    assert len(set(answer.samples)) > 1 and sum(group.count for group in answer.groups) == 6
    assert answer.text == answer.groups[0].text
    assert answer.samples == oracle.ask(acts, WHO, samples=6, max_new_tokens=5, seed=3).samples
    assert answer.samples != oracle.ask(acts, WHO, samples=6, max_new_tokens=5, seed=4).samples


def test_an_override_of_the_coefficient_is_recorded_and_felt(oracle: Oracle) -> None:
    plain, stronger = (oracle.score(CONTEXT, COOKING, donors=0, coefficient=c) for c in (None, 5.0))
    assert (plain.coefficient, stronger.coefficient) == (COEFFICIENT, 5.0)
    assert stronger.to_dict()["trained_coefficient"] == COEFFICIENT
    assert abs(plain.margin - stronger.margin) > 1e-3


def test_contexts_of_all_kinds_read_the_same(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 8")
    ids = list(acts.transcript.token_ids)
    kinds = [oracle.score(kind, COOKING, donors=0).margin for kind in (CONTEXT, acts, ids, acts.transcript)]
    tensor = oracle.score(acts.vectors[0], COOKING, layers=LAYER, donors=0).margin
    assert {*kinds, tensor} == {kinds[0]}
    chat = oracle.score([{"role": "user", "content": CONTEXT}], COOKING, donors=0)
    assert chat.margin != kinds[0]


def test_positions_select_among_activations_by_token(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 5")
    for selector, places in (("last 2", [3, 4]), ([-1, -3], [4, 2]), ("all", range(5)), (None, range(5))):
        want = oracle.score(acts[list(places)], COOKING, donors=0)
        found = oracle.score(acts, COOKING, positions=selector, donors=0)
        assert found.positions == want.positions and found.margin == want.margin
    assert len(oracle.scan(acts, COOKING, positions="last 2", donors=0).margins) == 2
    assert len(oracle.scan(CONTEXT, COOKING, donors=0).margins) == len(acts.transcript)
    assert len(oracle.score(CONTEXT, COOKING, donors=0).positions) == 8


@pytest.mark.parametrize("selector", ["last 6", "first 1", [0]])
def test_positions_that_were_not_captured_are_refused(oracle: Oracle, lm: LanguageModel, selector: Any) -> None:
    with pytest.raises(InputError, match="not all captured"):
        oracle.ask(capture(lm, CONTEXT, LAYER, "last 5"), WHO, positions=selector)


def test_a_tensor_has_no_tokens_to_select(oracle: Oracle) -> None:
    with pytest.raises(InputError, match="bare tensor"):
        oracle.ask(torch.randn(3, oracle.base.d_model), WHO, layers=LAYER, positions="last 1")


@pytest.mark.parametrize(("stated", "length"), [({"max_new_tokens": 3}, 3), ({}, 24), ({"max_new_tokens": None}, 24)])
def test_an_answer_is_as_long_as_the_contract_says(
    oracle: Oracle, lm: LanguageModel, stated: dict[str, Any], length: int
) -> None:
    known = oracle.contract.model_copy(update={"generation": stated})
    other = Oracle(lm, known, oracle.adapter, "o")
    assert other.ask(CONTEXT, WHO).token_ids == oracle.ask(CONTEXT, WHO, max_new_tokens=length).token_ids
    assert other.ask(CONTEXT, WHO).settings.max_new_tokens == length
    assert len(other.ask(CONTEXT, WHO, max_new_tokens=2).token_ids) <= 2


def test_a_contract_that_states_no_length_is_refused(oracle: Oracle, lm: LanguageModel) -> None:
    for stated in ("many", 0, True, 2.5):
        known = oracle.contract.model_copy(update={"generation": {"max_new_tokens": stated}})
        with pytest.raises(ContractError, match="max_new_tokens"):
            Oracle(lm, known, oracle.adapter, "o").ask(CONTEXT, WHO)


# --- scan


def test_scan_scores_every_position(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "all")
    scan = oracle.scan(CONTEXT, COOKING, donors=4, batch_size=5)
    alone = oracle.score_batch([(acts[i], COOKING) for i in range(len(acts))])
    assert scan.margins == pytest.approx([score.margin for score in alone], abs=1e-4)
    median = oracle.score(acts[0], COOKING, donors=4).donor_median
    assert scan.donor_median == pytest.approx(median, abs=1e-4)
    assert scan.values == pytest.approx([margin - median for margin in scan.margins], abs=1e-4)
    assert "".join(scan.token_texts) == CONTEXT


def test_a_scans_window_reaches_left_only(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "first 5")
    scan = oracle.scan(acts, COOKING, window=3, donors=0)
    pairs = [(acts[max(0, i - 2) : i + 1], COOKING) for i in range(5)]
    assert scan.margins == pytest.approx([score.margin for score in oracle.score_batch(pairs)], abs=1e-4)
    assert scan.donor_median is None and scan.values == scan.margins


def test_one_scan_has_one_scale(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of one length have no donors: then no value is set off by a median."""
    real = DonorBank.take
    monkeypatch.setattr(DonorBank, "take", lambda self, count, n: [] if n == 1 else real(self, count, n))
    scan = oracle.scan(CONTEXT, COOKING, window=2, donors=3)
    assert scan.values == scan.margins and scan.donor_median is None
    assert any("raw margins" in note for note in scan.notes)
    whole = oracle.scan(CONTEXT, COOKING, window=1, donors=0)
    assert whole.values == whole.margins
