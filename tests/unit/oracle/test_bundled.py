"""The bundled model under the shipped oracle's prompt."""

from __future__ import annotations

from typing import Any

import pytest

from augury.lm import LanguageModel
from augury.lm.adapters import active_adapters, add_adapter
from augury.oracle import Oracle, Score
from augury.oracle.choices import end_of_answer, spell
from tests.oracle_by_hand import CONFIG, COOKING, WHO, randomise
from tests.tiny import tiny_contract


@pytest.mark.bundled
def test_smollm2_spells_yes_and_no(smollm2: LanguageModel) -> None:
    contract = tiny_contract(smollm2, ((18,),))
    spelled = spell(smollm2, contract, ("Yes", "No"))
    assert spelled.texts == (("Yes", " Yes", "yes", " yes"), ("No", " No", "no", " no"))  # YES is two tokens
    tokenizer: Any = smollm2.tokenizer
    assert end_of_answer(smollm2, contract) == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


@pytest.mark.bundled
def test_smollm2_answers_under_controls(smollm2: LanguageModel) -> None:
    add_adapter(smollm2, {**CONFIG, "target_modules": ["q_proj"]}, "bundled")
    randomise(smollm2, "bundled", size=0.02)
    oracle = Oracle(smollm2, tiny_contract(smollm2, ((18,),), coefficient=2.0), "bundled", "throwaway")
    try:
        transcript = "The philosopher who drank hemlock taught Plato."
        score = oracle.score(transcript, COOKING, controls=True, donors=2)
        answer = oracle.ask(transcript, WHO, max_new_tokens=4)
    finally:
        oracle.unload()
    assert score.method == "first-token" and all(isinstance(c, Score) for c in score.controls.values())
    assert (answer.token_ids and answer.source.text == "emlock taught Plato.") or answer.source.text
    assert active_adapters(smollm2.model) == ()
