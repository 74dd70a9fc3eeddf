"""The model card: what the contract says, in words, and every figure."""

from __future__ import annotations

from augury.contract import TrainedOn
from augury.lm.bundled import REVISION
from augury.oracle.card import model_card
from tests.contracts import contract

FIGURES = {
    "past lens": {"real": [3.61, 3.52, 3.71], "gap": [1.79, 1.72, 1.87], "examples": 1000},
    "yes/no": {"at 1": {"oracle": [0.779, 0.748, 0.809], "probe": None}, "at 10": {"oracle": [0.983, 0.975, 0.989]}},
    "steps": 2800,
}


def test_figures_stand_one_row_a_measurement() -> None:
    card = model_card(contract(evaluation=FIGURES))
    assert "| past lens | real 3.61 [3.52, 3.71]; gap 1.79 [1.72, 1.87]; examples 1000 |" in card
    assert "| yes/no, at 1 | oracle 0.779 [0.748, 0.809]; probe not measured |" in card
    assert "| yes/no, at 10 | oracle 0.983 [0.975, 0.989] |" in card and "| steps | 2800 |" in card


def test_how_it_was_made_and_how_to_load_it() -> None:
    trained = TrainedOn(recipe="mine", tokens=1_443_434, hardware="cpu, 2 threads", seconds=8162)
    card = model_card(contract(trained_on=trained), {"r": 32, "lora_alpha": 64})
    for line in ("- recipe: mine", "- tokens: 1,443,434", "- hardware: cpu, 2 threads", "- LoRA: rank 32, alpha 64"):
        assert line in card
    assert 'augury.load_model("org/base")' in card and "4-bit" not in card


def test_the_bundled_base_is_said_to_be_four_bit() -> None:
    card = model_card(contract(revision=REVISION))
    assert "4-bit" in card and 'augury.load_model("smollm2")' in card


def test_without_figures_the_card_says_so() -> None:
    assert "None were measured" in model_card(contract())
