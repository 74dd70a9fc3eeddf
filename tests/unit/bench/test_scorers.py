"""Marks for answers: whole words and whole numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augury.bench.scorers import first_number, numbers_in, says


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("The answer is 12.", 12),
        ("12", 12),
        ("-7", -7),
        ("It is \u22127, I think", -7),
        ("1,234,567 people", 1234567),
        ("3.5 metres", 3.5),
        ("about 120", 120),
        ("R2D2 has 4 legs", 4),
        ("no idea", None),
        ("", None),
        ("x12 or 12x", None),
        ("version 1.2.3", None),
        ("(48)", 48),
        ("48, then 50", 48),
    ],
)
def test_the_first_whole_number(answer, number):
    assert first_number(answer) == number


@given(st.integers(-(10**9), 10**9), st.text("abc .!?", max_size=8), st.text(" !?", max_size=4))
def test_a_number_is_found_in_any_sentence(number, before, after):
    assert numbers_in(f"{before} {number}{after}") == [number]
    assert numbers_in(f"{before} {number:,}{after}") == [number]


@pytest.mark.parametrize(
    ("answer", "words", "right"),
    [
        ("It is blue.", ["blue"], True),
        ("a blueberry", ["blue"], False),
        ("BLUE!", ["blue"], True),
        ("ice-cream", ["ice cream"], True),
        ("New  York City", ["New York"], True),
        ("York", ["New York"], False),
        ("It's the king\u2019s", ["king's"], True),
        ("Caf\u00e9", ["caf\u00e9"], True),
        ("nothing", [""], False),
    ],
)
def test_whole_words(answer, words, right):
    assert says(answer, words) is right
