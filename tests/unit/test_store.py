"""Arrow files of contexts and examples: whole or absent, equal after a round trip, refused where they are another's."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augury.data.example import Context, Example, Part
from augury.data.store import Shards
from augury.errors import FormatError, InputError

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORDS = st.dictionaries(TEXT, TEXT, max_size=3)
PARTS = st.lists(st.builds(Part, TEXT, TEXT, st.integers(0, 9), st.integers(0, 9)), max_size=3).map(tuple)
SPLITS = st.sampled_from(["train", "heldout"])
CONTEXTS = st.builds(Context, st.integers(0, 2**40), SPLITS, IDS, PARTS, WORDS, TEXT, st.none() | TEXT)
EXAMPLES = st.builds(
    Example, TEXT, TEXT, SPLITS, st.integers(0, 2**40), IDS, TEXT, TEXT, st.none() | IDS, TEXT, TEXT, TEXT, TEXT, IDS,
    st.integers(0, 2**40), st.sampled_from([0.25, 1.0, 3.5]), WORDS,
)  # fmt: skip


def context(number: int) -> Context:
    return Context(number, "train", (1, 2, number), (Part("user", "bank", 0, 2),), {"topic": "bread"}, f"bank {number}")


@pytest.mark.parametrize(("kind", "rows"), [(Context, CONTEXTS), (Example, EXAMPLES)])
def test_rows_come_back_equal(kind: type, rows: st.SearchStrategy, tmp_path_factory: pytest.TempPathFactory) -> None:
    @given(st.lists(st.lists(rows, max_size=4), max_size=4))
    def check(files: list[list]) -> None:
        folder = tmp_path_factory.mktemp("store")
        shards = Shards(folder, "set", "train", kind, "a recipe")
        for part in files:
            shards.append(part, len(part))
        found = Shards(folder, "set", "train", kind, "a recipe")
        wanted = [row for part in files for row in part]
        assert list(found.table()) == wanted
        assert (found.rows, found.units) == (len(wanted), len(wanted))

    check()


def test_any_row_can_be_looked_up(tmp_path: Path) -> None:
    shards = Shards(tmp_path, "set", "train", Context, "a recipe")
    for start in (0, 3, 4):
        shards.append([context(start + i) for i in range((3, 1, 5)[(0, 3, 4).index(start)])], 9)
    table = shards.table()
    assert [table[i].number for i in (0, 2, 3, 4, 8, -1, -9)] == [0, 2, 3, 4, 8, 8, 0]
    assert [row.number for row in table[2:5]] == [2, 3, 4]
    assert table.column("number").tolist() == list(range(9))
    with pytest.raises(IndexError):
        table[9]


def test_a_set_goes_on_where_it_was(tmp_path: Path) -> None:
    """Units without rows count too."""
    first = Shards(tmp_path, "set", "train", Context, "a recipe")
    first.append([context(0)], 4)
    again = Shards(tmp_path, "set", "train", Context, "a recipe")
    assert (again.units, again.rows) == (4, 1)
    again.append([context(1), context(2)], 2)
    assert Shards(tmp_path, "set", "train", Context, "a recipe").units == 6
    assert Shards(tmp_path, "set", "heldout", Context, "a recipe").units == 0
    assert Shards(tmp_path, "other", "train", Context, "a recipe").units == 0


def test_other_data_is_refused(tmp_path: Path) -> None:
    Shards(tmp_path, "set", "train", Context, "a recipe").append([context(0)], 1)
    with pytest.raises(InputError, match="another recipe"):
        Shards(tmp_path, "set", "train", Context, "another")


def test_a_gap_is_refused(tmp_path: Path) -> None:
    shards = Shards(tmp_path, "set", "train", Context, "a recipe")
    for number in range(3):
        shards.append([context(number)], 1)
    (tmp_path / "set-train-000001.arrow").unlink()
    with pytest.raises(FormatError, match="missing"):
        Shards(tmp_path, "set", "train", Context, "a recipe")


@pytest.mark.parametrize("damage", [b"", b"ARROW1", b"no arrow at all"])
def test_a_broken_file_is_named(tmp_path: Path, damage: bytes) -> None:
    Shards(tmp_path, "set", "train", Context, "a recipe").append([context(0)], 1)
    path = tmp_path / "set-train-000000.arrow"
    path.write_bytes(damage)
    with pytest.raises(FormatError, match=path.name):
        Shards(tmp_path, "set", "train", Context, "a recipe")


def test_looking_up_takes_no_memory(tmp_path: Path) -> None:
    """Arrow's own memory stays where it was: the files are mapped."""
    shards = Shards(tmp_path, "set", "train", Context, "a recipe")
    for start in range(0, 4000, 1000):
        shards.append([context(start + i) for i in range(1000)], 1000)
    table = shards.table()
    before = pa.total_allocated_bytes()
    assert sum(table[i].number for i in range(0, 4000, 7)) == sum(range(0, 4000, 7))
    assert pa.total_allocated_bytes() - before < 10_000
