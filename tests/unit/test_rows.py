"""Rows of users' files: read a line at a time, each bad one named, equal texts in one split."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augury.data.rows import BadRow, Row, read_rows, refuse, split_of
from augury.errors import FormatError, InputError, NotFoundError

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)


@given(st.lists(st.dictionaries(CELLS, CELLS, max_size=3), max_size=5))
def test_objects_come_back(tmp_path_factory: pytest.TempPathFactory, objects: list[dict[str, str]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n\n" for row in objects), encoding="utf-8")
    assert list(read_rows(path)) == [Row(f"rows.jsonl:{2 * i + 1}", row) for i, row in enumerate(objects)]


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
@given(st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_tables_come_back(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, delimiter: str, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"rows{suffix}"
    with path.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.writer(sink, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("text", "label"), *rows])
    found = list(read_rows(path))
    assert [row.fields for row in found if isinstance(row, Row)] == [{"text": a, "label": b} for a, b in rows]


def test_lines_of_text(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffWhat is tea?\r\n\n  Why?  \n".encode())
    assert list(read_rows(path)) == [
        Row("prompts.txt:1", {"text": "What is tea?"}),
        Row("prompts.txt:3", {"text": "  Why?  "}),
    ]


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": \n[1]\n{"a": 2}\n', encoding="utf-8")
    found = list(read_rows(path))
    assert [row.where for row in found] == [f"rows.jsonl:{n}" for n in (1, 2, 3, 4)]
    bad = [row for row in found if isinstance(row, BadRow)]
    with pytest.raises(FormatError, match=r"(?s)2 of the 4 rows.*rows.jsonl:2: no JSON.*rows.jsonl:3: no JSON object"):
        refuse(path, bad, 2)
    refuse(path, [], 4)


def test_bad_table_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"two\nlines",x\na,b,c\nlast,y\n', encoding="utf-8")
    good, bad, last = read_rows(path)
    assert good == Row("rows.csv:3", {"text": "two\nlines", "label": "x"})
    assert bad == BadRow("rows.csv:4", "3 cells under 2 headings")
    assert last == Row("rows.csv:5", {"text": "last", "label": "y"})


def test_many_bad_rows_are_counted() -> None:
    with pytest.raises(FormatError, match="and 90 more"):
        refuse(Path("x.csv"), [BadRow(f"x.csv:{i}", "no") for i in range(100)], 0)


@pytest.mark.parametrize(("name", "error"), [("none.jsonl", NotFoundError), ("rows.xlsx", InputError)])
def test_files_that_cannot_be_read(tmp_path: Path, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        list(read_rows(tmp_path / name))


def test_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="UTF-8"):
        list(read_rows(path))


def test_equal_texts_are_in_one_split() -> None:
    texts = [f"Explain number {i}" for i in range(4000)]
    found = [split_of(text, 0.2) for text in texts]
    assert found == [split_of(f"  {text.upper()} ", 0.2) for text in texts]
    assert found.count("heldout") / 4000 == pytest.approx(0.2, abs=0.03)
    assert all(b == "heldout" for a, b in zip(found, (split_of(t, 0.4) for t in texts), strict=True) if a == "heldout")
