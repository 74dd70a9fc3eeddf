"""Contracts: the text with the slots, and what cannot be stated."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from augury.contract import Injection, percent_to_layer
from augury.errors import InputError
from tests.contracts import contract

# --- the text with the slots


def test_blocks_layout() -> None:
    assert contract().prefix((18,), 3) == "Layer: 18\n ? ? ? \n"
    assert contract().prefix((9, 18), 2) == "Layer: 9\n ? ? \nLayer: 18\n ? ? \n"


def test_inline_layout() -> None:
    inline = contract(prompt={"layout": "inline"})
    assert inline.prefix((21, 22), 2) == "L21: ? ? L22: ? ?.\n"
    assert inline.prefix((18,), 1) == "L18: ?.\n"


def test_slot_token_is_the_contracts() -> None:
    assert contract(prompt={"slot_token": " ¶"}).prefix((1,), 2) == "Layer: 1\n ¶ ¶ \n"


@given(st.lists(st.integers(0, 99), min_size=1, max_size=6), st.integers(1, 40), st.sampled_from(["blocks", "inline"]))
def test_one_slot_per_layer_and_position(layers: list[int], n: int, layout: str) -> None:
    text = contract(prompt={"layout": layout}).prefix(layers, n)
    assert text.count(" ?") == len(layers) * n
    assert "{" not in text and "*" not in text


@pytest.mark.parametrize(("layers", "n"), [((), 3), ((18,), 0), ((18,), -1)])
def test_no_slots_is_refused(layers: tuple[int, ...], n: int) -> None:
    with pytest.raises(InputError, match="at least one activation"):
        contract().prefix(layers, n)


# --- the model itself


@pytest.mark.parametrize(
    "fields",
    [
        {"block": None},
        {"block": -1},
        {"site": "embedding", "block": 1},
        {"coefficient": float("nan")},
        {"coefficient": float("inf")},
        {"coefficient": 0.0},
        {"operation": "add", "scale": "fixed"},
        {"operation": "replace", "rescale_to": 2.0},
        {"rescale_to": 0.0},
        {"operation": "multiply"},
        {"blok": 1},
    ],
)
def test_impossible_injections(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Injection.model_validate(fields)


def test_room_for_verbalizers_and_read_adapters() -> None:
    read = Injection(site="embedding", operation="replace", scale="fixed", coefficient=150.0)
    assert read.block is None


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": ((30,),)},
        {"layers": ((18, 18),)},
        {"layers": ((),)},
        {"layers": ()},
        {"layers": ((-1,),)},
        {"injection": {"block": 30}},
        {"prompt": {"template": "something else"}},
        {"prompt": {"slot_token": ""}},
        {"schema_version": 2},
        {"d_modell": 3},
    ],
)
def test_impossible_contracts(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        contract(**changes)


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        contract().base_model = "another"  # type: ignore[misc]


def test_trained_layers_are_exact() -> None:
    trained = contract()
    assert trained.trained_layers([18]) and trained.trained_layers((9, 18, 27))
    assert not trained.trained_layers((9,)) and not trained.trained_layers((27, 18, 9))
    assert contract(layers=None).trained_layers((3,))


@pytest.mark.parametrize(
    ("n_layers", "percent", "layer"), [(36, 25, 9), (36, 50, 18), (36, 75, 27), (30, 62, 18), (30, 0, 0), (100, 29, 29)]
)
def test_percent_to_layer(n_layers: int, percent: float, layer: int) -> None:
    assert percent_to_layer(n_layers, percent) == layer


@pytest.mark.parametrize("percent", [-1, 100, 250])
def test_percent_outside(percent: float) -> None:
    with pytest.raises(InputError, match="percentage"):
        percent_to_layer(36, percent)
