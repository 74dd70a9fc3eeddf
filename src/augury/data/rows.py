"""Rows of a user's table or list, read a line at a time, each with the place that an error can name."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augury.data.bank import Split
from augury.errors import FormatError, InputError, NotFoundError

KINDS = (".jsonl", ".csv", ".tsv", ".txt")
SHOWN = 10


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        where: File and line, for provenance and errors.
        fields: What it says; a line of a text file is its `text`.
    """

    where: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    where: str
    why: str


def read_rows(path: Path) -> Iterator[Row | BadRow]:
    """The rows of a file, one at a time; blank lines are none.

    Args:
        path: `.jsonl` (an object a line), `.csv` or `.tsv` (with a header), or `.txt` (a text a line).

    Raises:
        NotFoundError: There is no such file.
        InputError: It is of another kind.
        FormatError: It is no UTF-8.
    """
    needs_table(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            if path.suffix in (".csv", ".tsv"):
                yield from _table(path, lines)
            else:
                yield from _lines(path, lines)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no text.", str(error), "save the file as UTF-8") from error


def needs_table(path: Path) -> None:
    """Refuse what `read_rows` cannot read, before anything else is done.

    Raises:
        NotFoundError: There is no such file.
        InputError: It is of another kind.
    """
    if path.suffix not in KINDS:
        why = f"its name ends in '{path.suffix}'"
        raise InputError(f"{path} is no table that can be read.", why, f"name one that ends in {', '.join(KINDS)}")
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.", "the path leads to no file", "check it")


def _lines(path: Path, lines: Iterator[str]) -> Iterator[Row | BadRow]:
    for number, line in enumerate(lines, 1):
        where = f"{path.name}:{number}"
        if not line.strip():
            continue
        if path.suffix == ".txt":
            yield Row(where, {"text": line.rstrip("\r\n")})
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            yield BadRow(where, f"no JSON: {error}")
            continue
        yield Row(where, found) if isinstance(found, dict) else BadRow(where, "no JSON object")


def _table(path: Path, lines: Iterator[str]) -> Iterator[Row | BadRow]:
    reader = csv.reader(lines, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(f"{path.name}:{reader.line_num}", str(error))
            continue
        where = f"{path.name}:{reader.line_num}"
        if header is None:
            header = cells
        elif cells and len(cells) != len(header):
            yield BadRow(where, f"{len(cells)} cells under {len(header)} headings")
        elif cells:
            yield Row(where, dict(zip(header, cells, strict=True)))


def refuse(path: Path, bad: list[BadRow], good: int) -> None:
    """Name every row that cannot be used, where there are any.

    Raises:
        FormatError: With the place and the reason of each, up to ten.
    """
    if not bad:
        return
    told = "; ".join(f"{row.where}: {row.why}" for row in bad[:SHOWN])
    rest = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    raise FormatError(
        f"{len(bad)} of the {len(bad) + good} rows of {path} cannot be used.", told + rest, "mend or remove these rows"
    )


def split_of(text: str, heldout: float) -> Split:
    """Which split a prompt or text is in, by its words alone: equal ones are never in both."""
    told = " ".join(text.split()).casefold()
    share = int.from_bytes(hashlib.sha256(f"row:{told}".encode()).digest()[:6], "big") / 2**48
    return "heldout" if share < heldout else "train"
