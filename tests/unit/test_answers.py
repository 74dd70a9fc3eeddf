"""Answers: their normal form, their agreement, and how they print and serialise."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from rich.console import Console

from augury.activations import Provenance
from augury.contract import ModelIdentity
from augury.oracle.answers import Answer, Scan, Score, Settings, Source, Unavailable
from augury.oracle.consensus import consensus, normalise_answer
from augury.oracle.wire import AnyOut

TARGET = ModelIdentity(name="m", d_model=4, n_layers=3)
SOURCE = Source("o", (1,), (4, 5), 2.0, 1.0, Provenance(TARGET), " two words")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12", "twelve"),
        ("12.0", "12"),
        ("1,000", "1000"),
        ("1000", "1000.00"),
        ("-5", "-5.0"),
        ("Twenty-One", "21"),
        ("The Moon.", "moon"),
        ("“Paris”", "paris"),
        ("  a   red   apple ", "Red Apple!"),
        ("\uff21\uff22", "ab"),  # full-width letters
        ("STRASSE", "straße"),
    ],
)
def test_the_same_answer(one: str, other: str) -> None:
    assert normalise_answer(one) == normalise_answer(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("12", "-12"), ("1.5", "15"), ("1,00", "100"), ("not sure", "no"), ("blueberry", "blue"), (".5", "5"), ("A", "")],
)
def test_another_answer(one: str, other: str) -> None:
    assert normalise_answer(one) != normalise_answer(other)


@given(st.text(max_size=30))
def test_normalising_never_fails_and_ignores_case_and_outer_space(text: str) -> None:
    assert normalise_answer(f"  {text}\n") == normalise_answer(text)


@given(st.integers(-(10**9), 10**9))
def test_numbers_are_compared_by_value(value: int) -> None:
    spelled = (f"{value:,}", str(value), f"{value}.00")
    assert {normalise_answer(text) for text in spelled} == {str(value)}


def test_agreement_is_the_share_of_the_largest_group() -> None:
    found = consensus(["Paris", "the Paris.", "Rome", "paris"])
    assert [(group.text, group.count) for group in found.groups] == [("Paris", 3), ("Rome", 1)]
    assert found.agreement == 0.75


def test_among_equal_groups_the_first_sampled_leads() -> None:
    assert consensus(["b", "c", "c", "b"]).groups[0].text == "b"


@pytest.mark.parametrize(("words", "given"), [(5, True), (6, False)])
def test_agreement_is_for_short_answers_only(words: int, given: bool) -> None:
    text = " ".join(f"word{i}" for i in range(words))
    assert (consensus([text, text]).agreement is not None) is given


def test_nothing_sampled_agrees_on_nothing() -> None:
    assert consensus([]).agreement is None


def answer(**fields: Any) -> Answer:
    return Answer(text="Rome", question="Where <b>is</b> it [bold]?", token_ids=(3, 4), source=SOURCE, **fields)


def score(**fields: Any) -> Score:
    made = Score("Is it?", ("Yes", "No"), (-0.4, -1.4), 1.0, 0.73, 0.92, "first-token", (("Yes",), ("No",)), SOURCE)
    return replace(made, **fields)


SCAN = Scan("Is it?", ("Yes", "No"), (" two", " words"), (0.5, -1.0), (0.9, 0.9), (1.0, -0.5), -0.5, 1, SOURCE)
CONTROLS = {"none": answer(same_as_real=0.25), "text-all": Unavailable("a bare tensor has no text")}
RESULTS = [
    answer(controls=CONTROLS, samples=("Rome",), groups=consensus(["Rome"]).groups, settings=Settings(1, 1.0)),
    score(controls={"none": score(), "text-all": Unavailable("no text")}, percentile=97.0, donor_median=-2.0),
    SCAN,
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_results_come_back_from_the_wire_as_they_were(result: Any) -> None:
    read: Any = TypeAdapter(AnyOut).validate_json(json.dumps(result.to_dict()))
    assert read.result() == result
    told = json.loads(json.dumps(result.to_dict()))
    assert json.loads(read.model_dump_json()) == told, "the schema says all that is sent"
    assert TypeAdapter(AnyOut).validate_python({**told, "newer": 1}).result() == result


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_results_serialise(result: Any) -> None:
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert data["layers"] == [1] and data["positions"] == [4, 5]
    assert data["coefficient"] == 2.0 and data["trained_coefficient"] == 1.0
    assert data["target"]["model"]["name"] == "m"
    assert data["versions"]["augury"]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_results_print(result: Any) -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(result)
    shown = console.export_text()
    assert result.question in shown and result.question in str(result)
    assert "<b>is</b>" not in result._repr_html_()
    assert result.question in repr(result) and "\n" not in repr(result)
    assert getattr(result, "text", getattr(result, "choice", "positions")) in repr(result)


def test_what_is_not_available_is_said_everywhere() -> None:
    result = RESULTS[0]
    assert "not available (a bare tensor has no text)" in str(result)
    assert "not available" in result._repr_html_()
    assert result.to_dict()["controls"]["text-all"] == {"available": False, "reason": "a bare tensor has no text"}


def test_a_long_answer_is_printed_whole() -> None:
    text = "word " * 60
    assert text.strip() in str(replace(answer(), text=text))


def test_value_is_the_margin_above_the_donors() -> None:
    assert score(donor_median=-2.0).value == 3.0
    assert score().value is None and score().choice == "Yes"


HOSTILE = "a\x1b[2Jb\x07\x9b1mc\u202ed"
ESCAPED = "a\\x1b[2Jb\\x07\\x9b1mc\\u202ed"


@pytest.mark.parametrize("kind", ["answer", "sampled", "scan"])
def test_control_characters_are_written_out(kind: str) -> None:
    """What was read decides none of the terminal's colours, titles or order of letters."""
    values = (0.5, -1.0)
    results: dict[str, Any] = {
        "answer": Answer(HOSTILE, HOSTILE, (1,), SOURCE, warnings=(HOSTILE,)),
        "sampled": Answer("x", "y", (1,), SOURCE, samples=(HOSTILE, HOSTILE), groups=consensus([HOSTILE] * 2).groups),
        "scan": Scan(HOSTILE, ("Yes", "No"), (HOSTILE, "b\n"), values, values, values, 0.0, 1, SOURCE),
    }
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results[kind])
    shown = [str(results[kind]), repr(results[kind]), console.export_text(), results[kind]._repr_html_()]
    for text in shown:
        assert not re.search("[\x1b\x07\x9b\u202e]", text)
    assert all(ESCAPED in text for text in (shown[0], shown[2], shown[3]))
