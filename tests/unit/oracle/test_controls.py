"""What stands beside an answer: each control against what it claims to be, and the donors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from augury.activations import capture
from augury.lm import LanguageModel
from augury.oracle import Answer, Oracle, Score, Unavailable
from augury.oracle.controls import CONTROLS, plans
from augury.oracle.donors import cache_file, donor_bank, donor_texts
from augury.oracle.passes import Row
from augury.oracle.prompt import plain_prompt
from tests.oracle_by_hand import CONTEXT, COOKING, LAYER, WHO, by_hand, written_out
from tests.tiny import tiny_lm

# --- controls


def test_none_injects_nothing(oracle: Oracle, lm: LanguageModel, merged: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    score = oracle.score(acts, COOKING, controls=True, donors=2)
    none, real = score.controls["none"], score
    expected = by_hand(merged, written_out(merged, score.question, None)[0])
    assert isinstance(none, Score) and torch.tensor(none.log_probs) == pytest.approx(expected, abs=1e-4)
    assert abs(none.margin - real.margin) > 1e-3


def test_untrained_is_the_plain_base_with_the_same_injection(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    score = oracle.score(acts, COOKING, controls=True, donors=2)
    plain = tiny_lm()
    untrained = score.controls["untrained"]
    expected = by_hand(plain, written_out(plain, score.question, acts.vectors[0])[0])
    assert isinstance(untrained, Score) and torch.tensor(untrained.log_probs) == pytest.approx(expected, abs=1e-4)
    assert untrained.source.adapters == ()


def test_text_controls_show_only_what_may_be_seen(oracle: Oracle, lm: LanguageModel) -> None:
    transcript = capture(lm, "one two three four five six", LAYER, "all").transcript
    tokenizer: Any = lm.tokenizer
    pieces = [tokenizer.decode([token]) for token in transcript.token_ids]
    middle = capture(lm, transcript, LAYER, [4, 5])
    item = oracle.item(oracle.read([middle], None, "all")[0], COOKING)
    plan = plans(lm, oracle.contract, [item])[0]
    window, whole = plan["text-window"], plan["text-all"]
    assert isinstance(window, Row) and isinstance(whole, Row)
    for row, shown in ((window, "".join(pieces[4:6])), (whole, "".join(pieces[:6]))):
        assert row.vectors is None and row.prompt.slots == ()
        expected = plain_prompt(lm, oracle.contract, f'Text: "{shown.strip()}"\n\n{COOKING}')
        assert row.prompt.token_ids == expected.token_ids
        assert "".join(pieces[6:]).strip() not in tokenizer.decode(row.prompt.token_ids)


def test_a_text_needs_room_for_its_answer_too(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, "The philosopher drank tea. " * 40, LAYER, "last 1")
    item = oracle.item(oracle.read([acts], None, "all")[0], COOKING)
    whole = plans(lm, oracle.contract, [item])[0]["text-all"]
    assert isinstance(whole, Row)
    room = (lm.max_positions or 0) - len(whole)
    assert isinstance(plans(lm, oracle.contract, [item], room)[0]["text-all"], Row)
    assert isinstance(plans(lm, oracle.contract, [item], room + 1)[0]["text-all"], Unavailable)
    answer = oracle.ask(item.acts, COOKING, controls=True, donors=2, max_new_tokens=room + 1)
    assert isinstance(answer.controls["text-all"], Unavailable)


def test_nothing_right_of_the_read_tokens_matters(oracle: Oracle, lm: LanguageModel) -> None:
    ids = capture(lm, CONTEXT, LAYER, "all").transcript.token_ids
    scores = [
        oracle.score(capture(lm, list(more), LAYER, [2, 3]), COOKING, controls=True, donors=2)
        for more in (ids, (*ids[:4], *ids[9:]))
    ]
    for name in CONTROLS:
        one, two = (score.controls[name] for score in scores)
        assert isinstance(one, Score) and isinstance(two, Score)
        assert one.log_probs == pytest.approx(two.log_probs, abs=1e-4)


def test_ask_under_controls(oracle: Oracle) -> None:
    answer = oracle.ask(CONTEXT, WHO, controls=True, donors=6, max_new_tokens=3)
    assert tuple(answer.controls) == CONTROLS
    shuffled = answer.controls["shuffled"]
    assert isinstance(shuffled, Answer) and len(shuffled.samples) == 6
    assert shuffled.text == shuffled.groups[0].text
    for control in answer.controls.values():
        assert isinstance(control, Answer) and control.same_as_real is not None
        assert 0 <= control.same_as_real <= 1


def test_controls_that_cannot_be_made_say_so(oracle: Oracle) -> None:
    score = oracle.score(torch.randn(2, oracle.base.d_model), COOKING, layers=LAYER, controls=True, donors=2)
    for name in ("text-window", "text-all"):
        control = score.controls[name]
        assert isinstance(control, Unavailable) and "tensor" in control.reason
    assert isinstance(score.controls["none"], Score)


def test_more_positions_than_any_donor_has(oracle: Oracle) -> None:
    vectors = torch.randn(300, oracle.base.d_model)
    score = oracle.score(vectors, COOKING, layers=LAYER, controls=True)
    assert isinstance(score.controls["shuffled"], Unavailable)
    assert score.percentile is None and any("donors" in note for note in score.notes)


# --- donors


def test_donors_are_kept_and_rebuilt_when_damaged(lm: LanguageModel) -> None:
    first = donor_bank(lm, (1,))
    path = cache_file(lm, (1,))
    kept = path.read_bytes()
    assert len(first.contexts) == len(donor_texts()) == 48
    from safetensors.torch import save

    other_shape = save({"vectors": torch.ones(1, 5, lm.d_model)})
    not_finite = save({"vectors": torch.cat(first.contexts, 1) * float("nan")})
    for damaged in (b"", kept[:100], kept[:-7], other_shape, not_finite):
        path.write_bytes(damaged)
        again = donor_bank(lm, (1,))
        assert all(torch.equal(a, b) for a, b in zip(first.contexts, again.contexts, strict=True))
        assert path.read_bytes() == kept
    assert list(path.parent.glob(".partial*")) == []
    assert cache_file(lm, (1,)) != cache_file(lm, (2,)) != cache_file(tiny_lm(seed=5), (2,))


def test_a_cache_that_cannot_be_written_costs_only_time(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGURY_CACHE", "/dev/null/nowhere")
    assert len(donor_bank(lm, (0,)).contexts) == 48


def test_donors_are_what_a_capture_gives(lm: LanguageModel) -> None:
    taken = donor_bank(lm, (LAYER,)).take(48, 2)
    acts = capture(lm, donor_texts()[7], LAYER, "all")
    windows = [acts.vectors[0, i : i + 2] for i in range(len(acts) - 1)]
    assert sum(torch.allclose(window, taken[7], atol=1e-4) for window in windows) == 1


def test_donor_texts_are_neutral_and_short() -> None:
    for text in donor_texts():
        assert 2 <= text.count(". ") + 1 <= 4 and len(text) < 400
    assert len(set(donor_texts())) == 48
