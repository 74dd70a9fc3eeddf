"""Contexts and questions from a file, results into a file: in batches, resumable, and nothing dropped in silence.

What belongs into one batch depends on the input alone. A resumed run therefore asks in the same batches, and its file
is the one that an uninterrupted run would have written.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import typer

from augury._version import __version__
from augury.cli.common import Tell, dumps, progress_bar, say, write_json
from augury.cli.fingerprint import fingerprints
from augury.cli.reading import Pair, Request, Verb
from augury.cli.rows import Row, read_row
from augury.cli.sources import STDIN, Loaded, capture_many, load, transcript
from augury.cli.targets import check_target, writing_alone
from augury.errors import AuguryError, InputError, NotFoundError, StorageError
from augury.files import expanded

if TYPE_CHECKING:
    from augury.activations import Activations

_TORN = b'{"key"'  # how every result begins


@dataclass(frozen=True)
class Task:
    """One question about one line's context; `key` names it together with all settings."""

    row: Row
    question: str
    key: str


@dataclass
class Bad:
    """Lines that cannot be used, each told once."""

    lines: dict[int, str] = field(default_factory=dict)

    def add(self, line: int, why: str) -> None:
        if line not in self.lines:
            self.lines[line] = why
            say(f"line {line}: {why}", style="yellow")

    def add_error(self, line: int, error: AuguryError) -> None:
        self.add(line, error.brief())


def run_file(verb: Verb, request: Request, as_json: bool) -> None:
    """Ask everything that the file asks, and exit with 1 where a line could not be used."""
    source, out = str(request.batch.jsonl), expanded(request.batch.out or "")
    check_target(out, "-o")
    bad = Bad()
    tasks = list(_tasks(verb, request, _lines(source), bad))
    if not tasks and not bad.lines:
        raise InputError(f"{source} holds no lines.", "there is nothing to ask", "write one JSON object a line")
    with writing_alone(out):
        kept = _kept(out, tasks)
        written = 0
        if any(task.key not in kept for task in tasks):
            try:
                written = _ask_missing(verb, request, tasks, kept, out, bad)
            except KeyboardInterrupt:
                say(f"{out} holds what was done; the same command goes on from there")
                raise
    _report(out, len(kept), written, bad, as_json)
    if bad.lines:
        raise typer.Exit(1)


def _report(out: Path, kept: int, written: int, bad: Bad, as_json: bool) -> None:
    if as_json:
        lines = [{"line": line, "why": why} for line, why in sorted(bad.lines.items())]
        write_json({"out": str(out), "rows": kept + written, "new": written, "kept": kept, "bad": lines})
        return
    told = f"{out}: {kept + written} results ({written} new)"
    say(f"{told}, {len(bad.lines)} bad lines" if bad.lines else told)


# --- input ---------------------------------------------------------------------------------------------------------


def _lines(source: str) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line) of every line that is not blank. It is read once, so that a pipe will do."""
    # As bytes: what is no UTF-8 makes one line bad, not the file.
    with nullcontext(sys.stdin.buffer) if source == STDIN else _opened(expanded(source)) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, line


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {path}.", "nothing lies there", "check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder.", "--jsonl reads one file", "name a file in it") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read.", str(error), "check the path and its rights") from error


def _tasks(verb: Verb, request: Request, lines: Iterator[tuple[int, bytes]], bad: Bad) -> Iterator[Task]:
    common = {
        "verb": verb.name,
        **verb.settings,
        **request.identity,
        "positions": request.context.positions,
        "files": fingerprints(request.models, request.oracles),
        "augury": __version__,
    }
    seen: dict[str, int] = {}
    for number, line in lines:
        try:
            row = read_row(number, line, request)
        except AuguryError as error:
            bad.add_error(number, error)
            continue
        for question in row.questions:
            named = dumps([common, row.context, row.name, row.layers, row.positions, row.end, question])
            key = hashlib.sha256(named.encode()).hexdigest()[:16]
            seen[key] = seen.get(key, 0) + 1  # one line may stand there twice
            yield Task(row, question, key if seen[key] == 1 else f"{key}-{seen[key]}")


# --- output --------------------------------------------------------------------------------------------------------


def _kept(out: Path, tasks: Sequence[Task]) -> set[str]:
    """The keys of the results that are there; a torn last line is cut off.

    Raises:
        InputError: The file holds something else, such as results of other settings.
    """
    if not out.exists():
        return set()
    known, kept, whole = {task.key for task in tasks}, set(), 0
    with out.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                _check_torn(out, line)
                break
            key = _key(line)
            if key not in known:
                why = f"its line {number} is no result of this input with these settings"
                raise InputError(f"{out} is not gone on with.", why, "name another OUT, or remove it")
            kept.add(key)
            whole += len(line)
    if whole < out.stat().st_size:
        with out.open("r+b") as stream:
            stream.truncate(whole)
    return kept


def _check_torn(out: Path, line: bytes) -> None:
    """Cut nothing off that this program did not write."""
    if not line.startswith(_TORN) and not _TORN.startswith(line):
        why = "its last line is no result"
        raise InputError(f"{out} is not gone on with.", why, "name another OUT, or remove it")


def _key(line: bytes) -> str | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value.get("key") if isinstance(value, dict) else None


@contextmanager
def _appending(out: Path) -> Iterator[TextIO]:
    """OUT to write at its end. What a full disk left unwritten fails once more when it is closed, and is told alike."""
    try:
        stream = _open(out)
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        yield stream
    finally:
        try:
            stream.close()
        except OSError as error:
            raise _unwritable(out, error) from error


def _open(out: Path) -> TextIO:
    return out.open("a", encoding="utf-8")


def _write(stream: TextIO, out: Path, task: Task, result: Any) -> None:
    row = {"key": task.key, "line": task.row.line, "id": task.row.name, "asked": task.question, **result.to_dict()}
    try:
        stream.write(dumps(row) + "\n")
        stream.flush()
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> StorageError:
    return StorageError(f"{out} cannot be written.", str(error), "make room and run it again: it goes on from here")


# --- asking --------------------------------------------------------------------------------------------------------


def _ask_missing(verb: Verb, request: Request, tasks: Sequence[Task], kept: set[str], out: Path, bad: Bad) -> int:
    """Ask what is not in `out` yet; returns how many results were added."""
    loaded = load(request.models, request.oracles)
    for note in loaded.oracle.notes:
        if not note.startswith("off contract"):  # said already, as a warning
            say(f"note: {note}", style="dim")
    written = 0
    with _appending(out) as stream, progress_bar(f"{verb.name} {request.batch.jsonl}") as tell:
        for start in range(0, len(tasks), verb.chunk):
            chunk = tasks[start : start + verb.chunk]
            tell(start, len(tasks))
            missing = [task for task in chunk if task.key not in kept]
            # A chunk of which only bad lines are missing is not asked again.
            if not missing or not _usable(loaded, missing, bad):
                continue
            from_here = _from(tell, start, len(tasks))
            for task, result in _ask_chunk(verb, loaded, _usable(loaded, chunk, bad), bad, from_here):
                if task.key not in kept:
                    _write(stream, out, task, result)
                    written += 1
    return written


def _from(tell: Tell, start: int, total: int) -> Tell:
    return lambda done, of: tell(start + done, total)


def _usable(loaded: Loaded, tasks: Sequence[Task], bad: Bad) -> list[tuple[Task, Any]]:
    """The tasks whose context can be read, with it as a transcript."""
    from augury.activations import resolve, resolve_layers

    found: dict[int, Any] = {}
    for row in {task.row.line: task.row for task in tasks}.values():
        try:
            read = transcript(loaded.target, row.context, row.end)
            resolve(loaded.target, read, _selector(row, "last 8"))
            if row.layers is not None:
                resolve_layers(loaded.target.n_layers, row.layers)
            found[row.line] = read
        except AuguryError as error:
            bad.add_error(row.line, error)
    return [(task, found[task.row.line]) for task in tasks if task.row.line in found]


def _selector(row: Row, default: str) -> Any:
    return default if row.positions is None else row.positions


def _ask_chunk(
    verb: Verb, loaded: Loaded, tasks: Sequence[tuple[Task, Any]], bad: Bad, tell: Tell
) -> list[tuple[Task, Any]]:
    acts = _capture(verb, loaded, tasks, bad)
    asked = [task for task, _ in tasks if task.row.line in acts]
    pairs = [(acts[task.row.line], task.question) for task in asked]
    if not pairs:
        return []
    try:
        return list(zip(asked, verb.run(loaded.oracle, pairs, tell), strict=True))
    except AuguryError:
        good = [
            (task, pair) for task, pair in zip(asked, pairs, strict=True) if _answers(verb, loaded, task, pair, bad)
        ]
    results = verb.run(loaded.oracle, [pair for _, pair in good], tell) if good else []
    return [(task, result) for (task, _), result in zip(good, results, strict=True)]


def _answers(verb: Verb, loaded: Loaded, task: Task, pair: Pair, bad: Bad) -> bool:
    """Whether this question can be asked by itself; if not, its line is bad."""
    try:
        verb.run(loaded.oracle, [pair], lambda done, total: None)
    except AuguryError as error:
        bad.add_error(task.row.line, error)
        return False
    return True


def _capture(verb: Verb, loaded: Loaded, tasks: Sequence[tuple[Task, Any]], bad: Bad) -> dict[int, Activations]:
    """The activations of each line that has any; lines that are read alike are captured together."""
    alike: dict[str, list[tuple[Row, Any]]] = {}
    for row, read in {task.row.line: (task.row, read) for task, read in tasks}.values():
        alike.setdefault(dumps([row.layers, _selector(row, verb.positions)]), []).append((row, read))
    found: dict[int, Activations] = {}
    for group in alike.values():
        try:
            found |= _captured(verb, loaded, group)
        except AuguryError:  # such as values that are not finite: whose they are, each by itself tells
            for row, read in group:
                try:
                    found |= _captured(verb, loaded, [(row, read)])
                except AuguryError as error:
                    bad.add_error(row.line, error)
    return found


def _captured(verb: Verb, loaded: Loaded, group: Sequence[tuple[Row, Any]]) -> dict[int, Activations]:
    first = group[0][0]
    acts = capture_many(loaded, [read for _, read in group], first.layers, _selector(first, verb.positions))
    return {row.line: one for (row, _), one in zip(group, acts, strict=True)}
