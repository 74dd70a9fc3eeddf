"""Single lines of `--jsonl`, without a model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from augury.cli.options import BatchOptions, ContextOptions, ModelOptions, OracleOptions, StoredOptions
from augury.cli.reading import Request
from augury.cli.rows import Row, read_row
from augury.errors import InputError

READING = ContextOptions(end="open", layers="1-2", positions="first 3")
REQUEST = Request(READING, StoredOptions(), ModelOptions(), OracleOptions(), BatchOptions(), ("Who?",))
MESSAGES = [{"role": "user", "content": "tea"}]


def row(value: Any) -> Row:
    line = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_row(1, line, REQUEST)


def why(value: Any) -> str:
    with pytest.raises(InputError) as caught:
        row(value)
    return caught.value.why


def test_null_is_not_given() -> None:
    """A table written by a program has every field in every row; the command line's values hold for its nulls."""
    nulls = dict.fromkeys(["positions", "layers", "end", "question", "questions", "id", "context", "token_ids"])
    found = row({"messages": MESSAGES, **nulls})
    assert found == row({"messages": MESSAGES})
    assert (found.positions, found.layers, found.end, found.questions) == ("first 3", ["1", "2"], "open", ("Who?",))
    assert row({"context": "tea", "end": None}).end is None
    assert why({"context": None}) == "it has no context"


def test_questions_that_are_no_list_are_named() -> None:
    assert "questions is no list" in why({"context": "tea", "questions": "What?"})
    assert why({"context": "tea", "questions": []}) == "questions is empty"


@pytest.mark.parametrize("field", ["context", "question", "id", "positions"])
def test_half_a_character_makes_one_line_bad(field: str) -> None:
    assert "lone surrogate U+D83D" in why({"context": "tea", field: "bad \ud83d emoji"})


def test_whole_emoji_are_text() -> None:
    assert row(b'{"context": "good \\ud83d\\ude00"}').context == "good \U0001f600"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_makes_one_line_bad(opening: bytes) -> None:
    assert "nested too deep" in why(opening * 200_000)
    assert "nested too deep" in why(b'{"context": "tea", "id": ' + opening * 200_000)


def test_ranges_that_no_model_reaches_make_one_line_bad() -> None:
    with pytest.raises(InputError, match="no model is as deep"):
        row({"context": "tea", "layers": "0-99999999999"})
