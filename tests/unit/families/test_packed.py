"""Rows laid one behind the other, on tiny random models of every family: they equal rows that run alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from augury.lm import LanguageModel
from augury.lm.blocks import text_config
from augury.lm.packed import label_logits, pack, packs
from tests.families import build, ids
from tests.plain_paths import ALL, LINEAR, close, model, plain_logits


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(3, 9), min_size=1, max_size=4), common=st.integers(0, 6), by_hand=st.booleans())
def test_packed_rows_equal_rows_alone(lm: LanguageModel, lengths: list[int], common: int, by_hand: bool) -> None:
    rows = [ids(common, seed=70) + ids(n, seed=i) for i, n in enumerate(lengths)]
    if not packs(lm, max(map(len, rows))):
        return
    batch = pack(lm, rows, common)
    keep = 1 + len(lengths) % 2
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        if not by_hand:  # as on a GPU
            patch.setattr("augury.lm.packed._by_hand", lambda *_: False)
        found = label_logits(lm, batch, torch.ones(len(rows), keep, dtype=torch.bool))
    assert batch.tokens == len(batch.prefix) + sum(len(row) - len(batch.prefix) for row in rows)
    wanted = [plain_logits(lm, row)[-keep - 1 : -1] for row in rows]
    assert close(found, torch.cat(wanted))


def test_rows_are_packed_where_that_is_sound() -> None:
    packed = {family: packs(model(family), 12) for family in ALL}
    assert packed["llama"] and packed["qwen3"] and packed["mixtral"]
    assert not any(packed[family] for family in ("mistral", *LINEAR, "leaky")), "a window, a state"
    wide = build("mistral")
    wide.model.config.sliding_window = 20
    assert packs(wide, 20) and not packs(wide, 21)


def test_the_model_attends_as_before_afterwards() -> None:
    lm = build("llama")
    config, before = text_config(lm.model), plain_logits(lm, ids(6, seed=1))
    labelled, batch = torch.ones(1, 1, dtype=torch.bool), pack(lm, [ids(6, seed=1)], 0)
    label_logits(lm, batch, labelled)
    assert config._attn_implementation == "sdpa"
    with pytest.raises(RuntimeError, match="broken"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("augury.lm.packed._taken", lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))
        label_logits(lm, batch, labelled)
    assert config._attn_implementation == "sdpa"
    assert torch.equal(plain_logits(lm, ids(6, seed=1)), before)
    eager = build("llama")
    eager.model.config._attn_implementation = "eager"
    assert not packs(eager, 12), "whose attention stands in its own file"
