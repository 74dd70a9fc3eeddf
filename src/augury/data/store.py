"""Contexts and examples on disk: Arrow files that are each whole, and mapped into memory rather than read into it."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from augury.data.bank import Split
from augury.data.example import Context, Example, Part
from augury.errors import FormatError, InputError
from augury.files import replacing

Row = TypeVar("Row", Context, Example)
_META = b"augury"
_TOKENS = pa.list_(pa.int32())
_PARTS = pa.list_(
    pa.struct([("role", pa.string()), ("author", pa.string()), ("start", pa.int32()), ("stop", pa.int32())])
)
SCHEMAS: dict[type, pa.Schema] = {
    Context: pa.schema(
        [
            ("number", pa.int64()), ("split", pa.string()), ("token_ids", _TOKENS), ("parts", _PARTS),
            ("labels", pa.string()), ("origin", pa.string()), ("adapter", pa.string()),
        ]
    ),
    Example: pa.schema(
        [
            ("task", pa.string()), ("kind", pa.string()), ("split", pa.string()), ("context", pa.int64()),
            ("positions", _TOKENS), ("question", pa.string()), ("answer", pa.string()), ("answer_ids", _TOKENS),
            ("wording", pa.string()), ("author", pa.string()), ("source", pa.string()), ("contexts", pa.string()),
            ("layers", _TOKENS), ("unit", pa.int64()), ("weight", pa.float32()), ("notes", pa.string()),
        ]
    ),
}  # fmt: skip
_JSON = {"labels", "notes"}
_TUPLES = {"token_ids", "positions", "layers", "answer_ids"}


@dataclass(frozen=True)
class Shard:
    """One whole file.

    Attributes:
        path: Where it lies.
        first: The number of its first unit; a unit is a context, or the examples that were made together.
        units: How many it holds; some may have no rows.
        rows: Its rows.
        dropped: How many of its units have no rows, by reason, where that is counted.
    """

    path: Path
    first: int
    units: int
    rows: int
    dropped: Mapping[str, int] = field(default_factory=dict)


class Shards(Generic[Row]):
    """One set of rows in one split, written in order a file at a time, so that it goes on where it was cut off.

    Args:
        folder: Where its files are.
        name: The set's name.
        split: `train` or `heldout`.
        kind: What a row is.
        made: What the rows follow from; files that say otherwise are refused.
    """

    def __init__(self, folder: Path, name: str, split: Split, kind: type[Row], made: str) -> None:
        self.folder, self.name, self.kind, self.made = folder, name, kind, made
        self.split: Split = split
        self._found = self._whole()

    @property
    def units(self) -> int:
        """Units that are there."""
        return self._found[-1].first + self._found[-1].units if self._found else 0

    @property
    def rows(self) -> int:
        """Rows that are there."""
        return sum(shard.rows for shard in self._found)

    @property
    def dropped(self) -> dict[str, int]:
        """Units without rows, by reason."""
        return dict(sum((Counter(shard.dropped) for shard in self._found), Counter()))

    def append(self, rows: Sequence[Row], units: int, dropped: Mapping[str, int] | None = None) -> None:
        """Write the next file, and with it how many units were dropped for which reason.

        Raises:
            StorageError: The disk is full; the files before are whole.
        """
        meta: dict[str, Any] = {"name": self.name, "split": self.split, "made": self.made}
        meta |= {"first": self.units, "units": units, "dropped": dict(dropped or {})}
        schema = SCHEMAS[self.kind].with_metadata({_META: json.dumps(meta).encode()})
        path = self.folder / f"{self.name}-{self.split}-{len(self._found):06d}.arrow"
        columns = pa.Table.from_pylist([_to_columns(row) for row in rows], schema=schema)
        with replacing(path) as partial, pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
            file.write_table(columns, max_chunksize=max(1, len(rows)))
        self._found.append(Shard(path, self.units, units, len(rows), meta["dropped"]))

    def table(self) -> Table[Row]:
        """The rows that are there, to be looked up."""
        return Table(self.kind, [shard.path for shard in self._found])

    def _whole(self) -> list[Shard]:
        found: list[Shard] = []
        for path in sorted(self.folder.glob(f"{self.name}-{self.split}-??????.arrow")):
            meta, rows = _meta(path)
            if meta["made"] != self.made:
                raise InputError(
                    f"{path} holds data of another recipe, model or version.",
                    f"it was made from {meta['made'][:12]}, and this is {self.made[:12]}",
                    "name a new folder with -o, or remove this one",
                )
            expected = found[-1].first + found[-1].units if found else 0
            if meta["first"] != expected or not path.name.endswith(f"-{len(found):06d}.arrow"):
                why = f"unit {expected} should follow, and it begins at {meta['first']}"
                raise FormatError(f"A file before {path} is missing.", why, "remove this file and those after it")
            found.append(Shard(path, meta["first"], meta["units"], rows, meta.get("dropped", {})))
        return found


class Table(Sequence[Row]):
    """Rows of Arrow files, mapped: what is not looked up is not read."""

    def __init__(self, kind: type[Row], paths: Sequence[Path]) -> None:
        self._kind = kind
        batches = [_open(path) for path in paths]
        self._batches = [batch for batch in batches if batch is not None]
        self._ends: list[int] = []
        for batch in self._batches:
            self._ends.append((self._ends[-1] if self._ends else 0) + batch.num_rows)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, place)
        batch = self._batches[number]
        row = place - (self._ends[number] - batch.num_rows)
        return _from_columns(self._kind, {name: batch.column(name)[row].as_py() for name in batch.schema.names})

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    def first(self, rows: int) -> Table[Row]:
        """Only the first so many rows."""
        found = Table(self._kind, [])
        for batch, end in zip(self._batches, self._ends, strict=True):
            if (kept := min(end, rows) - (end - batch.num_rows)) > 0:
                found._batches.append(batch.slice(0, kept))
                found._ends.append(min(end, rows))
        return found

    def longest_product(self, first: str, second: str) -> int:
        """The largest product of the lengths of two lists in one row; 0 where there are no rows."""
        found = 0
        for batch in self._batches:
            one, other = (np.diff(batch.column(name).offsets.to_numpy()) for name in (first, second))
            found = max(found, int((one * other).max(initial=0)))
        return found

    def lengths(self, name: str) -> NDArray[np.int64]:
        """How long each row's list is."""
        return self._measured(batch.column(name).offsets for batch in self._batches)

    def words(self, name: str) -> NDArray[np.int64]:
        """How many words each row's text has, between spaces."""
        texts = (pc.call_function("utf8_trim_whitespace", [batch.column(name)]) for batch in self._batches)
        return self._measured(pc.call_function("utf8_split_whitespace", [text]).offsets for text in texts)

    def _measured(self, offsets: Iterable[Any]) -> NDArray[np.int64]:
        parts = [np.diff(found.to_numpy()).astype(np.int64) for found in offsets]
        return np.concatenate([np.empty(0, dtype=np.int64), *parts])

    def counts(self, name: str) -> Counter[str]:
        """How often each value stands in a column; a list is written as `1, 2`."""
        found: Counter[str] = Counter()
        for batch in self._batches:
            values = batch.column(name).to_pylist()
            found.update(", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values)
        return found

    def column(self, name: str) -> Any:
        """One column as a NumPy array (numbers) or a list, of all rows."""
        parts = [batch.column(name).to_numpy(zero_copy_only=False) for batch in self._batches]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _open(path: Path) -> pa.RecordBatch | None:
    try:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        return file.get_batch(0) if file.num_record_batches else None
    except (OSError, pa.ArrowInvalid) as error:
        raise _broken(path, error) from error


def _meta(path: Path) -> tuple[dict[str, Any], int]:
    try:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        meta = json.loads((file.schema.metadata or {})[_META])
        return meta, sum(file.get_batch(i).num_rows for i in range(file.num_record_batches))
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> FormatError:
    return FormatError(f"{path} cannot be read.", str(error), "remove it and those after it: they are made again")


def _to_columns(row: Context | Example) -> dict[str, Any]:
    found = asdict(row)
    return {name: json.dumps(value, ensure_ascii=False) if name in _JSON else value for name, value in found.items()}


def _from_columns(kind: type[Row], columns: dict[str, Any]) -> Row:
    found = dict(columns)
    for name in _JSON & found.keys():
        found[name] = json.loads(found[name])
    for name in _TUPLES & found.keys():
        found[name] = None if found[name] is None else tuple(found[name])
    if "parts" in found:
        found["parts"] = tuple(Part(**part) for part in found["parts"])
    return kind(**found)
