"""The heat map: every token in its place, coloured by its value, whatever it is made of."""

from __future__ import annotations

import itertools
import math
import struct
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augury.activations import Provenance
from augury.errors import InputError, StorageError
from augury.oracle.answers import Scan, Source
from augury.oracle.plot import WIDTH, PlotError, colour_limit, heat_map, is_special, lay_out


def scan(tokens: list[str], values: list[float] | None = None, question: str = "Is this about cooking?") -> Scan:
    shown = tuple(values if values is not None else [math.sin(i) for i in range(len(tokens))])
    source = Source("smollm2", (18,), tuple(range(len(tokens))), 2.0, 2.0, Provenance(None))
    masses = tuple(0.9 for _ in tokens)
    return Scan(
        f"Answer with 'Yes' or 'No' only. {question}",
        ("Yes", "No"),
        tuple(tokens),
        shown,
        masses,
        shown,
        0.1,
        1,
        source,
    )


def size(path: Path) -> tuple[int, int]:
    """Width and height from the PNG's own header."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR"
    return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize("count", [1, 300])
def test_few_and_many_tokens(count: int, tmp_path: Path) -> None:
    path = heat_map([scan([f" word{i}" for i in range(count)])], tmp_path / "new" / "map.png")
    width, height = size(path)
    assert abs(width - WIDTH) <= 1 and 1200 <= width <= 1600
    assert (height > 700) == (count == 300)


def test_tokens_of_all_kinds(tmp_path: Path) -> None:
    tokens = [
        "<|im_start|>",
        "user",
        "\n",
        " 你好",
        "Приве́т",
        " שלום",
        "\ufffd",
        "$x_1$",
        "\x00",
        "",
        "🙂",
        " " * 9,
        "a" * 400,
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = heat_map([scan(tokens), scan(tokens, [math.nan] * len(tokens))], tmp_path / "map.png")
    assert path.stat().st_size > 5000
    assert [file.name for file in tmp_path.iterdir()] == ["map.png"]


def test_colour_follows_the_value(tmp_path: Path) -> None:
    """The picture of opposite values is another one, and equal values give an equal picture."""
    tokens = [f" w{i}" for i in range(20)]
    up, down = [2.0] * 10 + [-2.0] * 10, [-2.0] * 10 + [2.0] * 10
    first = heat_map([scan(tokens, up)], tmp_path / "a.png").read_bytes()
    assert heat_map([scan(tokens, up)], tmp_path / "b.png").read_bytes() == first
    assert heat_map([scan(tokens, down)], tmp_path / "c.png").read_bytes() != first


@given(st.lists(st.text(max_size=30), min_size=1, max_size=60), st.integers(20, 110))
def test_no_chip_overlaps_another_or_leaves_the_page(tokens: list[str], columns: int) -> None:
    chips = lay_out(tokens, [0.0] * len(tokens), columns)
    assert len(chips) == len(tokens)
    for chip in chips:
        assert chip.text and chip.column >= 0
    for left, right in itertools.pairwise(chips):
        assert (right.line, right.column) > (left.line, left.column)
        if right.line == left.line:
            assert right.column >= left.column + left.width - 1e-9
    inside = [chip for chip in chips if chip.text.strip("↵")]
    assert all(chip.column + chip.width <= columns + 1e-9 for chip in inside)


def test_lines_break_where_the_text_does() -> None:
    chips = lay_out(["One", " two", ".\n", "\n", "Three"], [0.0] * 5)
    assert [chip.line for chip in chips] == [0, 0, 0, 0, 1]
    assert chips[1].column - chips[0].width > lay_out(["One", "two"], [0.0] * 2)[1].column - chips[0].width


@pytest.mark.parametrize(
    "text", ["<|im_start|>", "<s>", "</s>", "<bos>", "<start_of_turn>", "[CLS]", "<\uff5cUser\uff5c>"]
)
def test_special_tokens_are_grey(text: str) -> None:
    assert is_special(text) and lay_out([text], [3.0])[0].value is None


@pytest.mark.parametrize("text", ["user", "<", "<b>", "a<b>c", "[1]", " | "])
def test_ordinary_tokens_are_not(text: str) -> None:
    assert not is_special(text) and lay_out([text], [3.0])[0].value == 3.0


def test_the_scale_does_not_follow_one_outlier() -> None:
    assert colour_limit([1.0] * 99 + [50.0]) == 1.25
    assert colour_limit([-3.0, 1.0]) == 3.0
    assert colour_limit([0.01]) == 0.5 and colour_limit([]) == 1.0


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError):
        heat_map([], tmp_path / "map.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        heat_map([scan(["a"])], tmp_path / "file" / "map.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlotError) as caught:
        heat_map([scan(["a"])], tmp_path / "map.png")
    assert "augury[plot]" in caught.value.instead and isinstance(caught.value, ImportError)
    assert not (tmp_path / "map.png").exists()
