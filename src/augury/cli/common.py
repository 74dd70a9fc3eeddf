"""What all verbs share: errors without a traceback, results on stdout, everything else on stderr."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import typer

from augury.errors import AuguryError, ModelError, StorageError, out_of_memory

if TYPE_CHECKING:
    from rich.console import Console

Tell = Callable[[int, int], None]

INTERRUPTED = 130
PIPE_WIDTH = 120


class UnexpectedError(AuguryError):
    """Something that augury did not foresee."""

    code = "unexpected"


class Interrupted(AuguryError):
    """Ctrl-C, told to a program that reads JSON."""

    code = "interrupted"
    exit_code = INTERRUPTED

    def __init__(self) -> None:
        super().__init__("It was interrupted.", "Ctrl-C, or the signal of it, came", "run it again")


def prepare_streams() -> None:
    """Make every text printable, and let a closed stdin, stdout or stderr be an empty one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this, as with `>&-`
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (it stays to the end)
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def prepare_environment() -> None:
    """What must be set before torch and transformers are imported; the user's own settings win."""
    # Waiting OpenMP threads that spin take the cores from everything else, other workers of augury included.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The verb with its errors told in three parts, and an exit code instead of a traceback."""

    @wraps(function)
    def verb(*positional: Any, **options: Any) -> Any:
        as_json = bool(options.get("as_json"))
        try:
            with _plain_warnings():
                return function(*positional, **options)
        except KeyboardInterrupt:
            raise typer.Exit(tell_interruption(as_json)) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                close_stdout()
                raise typer.Exit(1) from None
            if isinstance(error, (typer.Exit, typer.Abort, USAGE_ERROR)):
                raise
            if os.environ.get("AUGURY_DEBUG"):
                raise
            raise typer.Exit(fail(as_refusal(error), as_json)) from None

    return verb


# Typer has carried its own copy of click since 0.26, so that the class has no public name in common.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]


def as_refusal(error: Exception) -> AuguryError:
    """Any error in three parts."""
    if isinstance(error, AuguryError):
        return error
    reason = (str(error).strip().splitlines() or ["no reason was given"])[0]
    if out_of_memory(error):
        return ModelError("There is not enough memory.", reason, "take a smaller model, batch size or dtype")
    if isinstance(error, OSError):
        return StorageError(
            "A file could not be read or written.", f"{error}", "check the path, its rights and the room"
        )
    instead = "run it with AUGURY_DEBUG=1 to see where, and report it with that output"
    return UnexpectedError(
        f"{type(error).__name__}: {reason}", "augury did not foresee this: it is a mistake in it", instead
    )


def fail(error: AuguryError, as_json: bool) -> int:
    """Tell an error, on stdout as JSON or on stderr in three parts; returns the exit code."""
    if as_json:
        write_json({"error": error.as_dict()})
    else:
        from rich.text import Text

        what, *rest = str(error).splitlines()
        parts = [Text.assemble(("error: ", "bold red"), (what, "bold")), *(Text(line) for line in rest)]
        for part in parts:
            stderr().print(part, soft_wrap=True)
    return error.exit_code


def tell_interruption(as_json: bool) -> int:
    """Tell that it was interrupted, on stdout as JSON or on stderr in a word; returns the exit code."""
    if as_json:
        return fail(Interrupted(), as_json)
    say("interrupted")
    return INTERRUPTED


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """augury's warnings as one line on stderr; other packages' are not the user's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=r"augury(\.|$)")
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}", style="yellow")
        yield


def close_stdout() -> None:
    """Nobody reads any more: what Python still flushes at its end goes nowhere."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file
        return


# --- output --------------------------------------------------------------------------------------------------------


def stdout() -> Console:
    """The console for results. In a pipe it is wide and plain."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH, highlight=False)


def stderr() -> Console:
    """The console for everything that is no result."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(text: str, style: str | None = None) -> None:
    """One line on stderr."""
    stderr().print(text, style=style, markup=False, soft_wrap=True)


def write_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, on one line."""
    typer.echo(dumps(value, sys.stdout.encoding or "utf-8"))


def dumps(value: Any, encoding: str = "utf-8") -> str:
    """JSON that every reader takes: what is not finite is null, and what `encoding` lacks is escaped."""
    text = _dumped(value, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # such as the name of a folder that is no UTF-8
        return _dumped(value, ensure_ascii=True)
    return text


def _dumped(value: Any, ensure_ascii: bool) -> str:
    try:
        return json.dumps(value, ensure_ascii=ensure_ascii, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=ensure_ascii, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def show_results(results: Sequence[Any], as_json: bool) -> None:
    """Answers, scores or scans: one JSON object, tables in a terminal, plain text in a pipe."""
    if as_json:
        found = [result.to_dict() for result in results]
        write_json(found[0] if len(found) == 1 else {"kind": f"{found[0]['kind']}s", "results": found})
        return
    console = stdout()
    for result in results:
        if console.is_terminal:
            console.print(result)
        else:
            typer.echo(str(result))
    for note in dict.fromkeys(note for result in results for note in result.notes):
        say(f"note: {note}", style="dim")


# --- progress ------------------------------------------------------------------------------------------------------


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on stderr in a terminal, nothing in a pipe."""
    console = stderr()
    if not console.is_terminal:
        yield
        return
    from rich.markup import escape

    with console.status(escape(text)):
        yield


@contextmanager
def progress_bar(text: str) -> Iterator[Tell]:
    """A bar on stderr in a terminal, nothing in a pipe. It is told (done, total)."""
    console = stderr()
    if not console.is_terminal:
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
