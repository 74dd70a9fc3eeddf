"""The command line: one thin verb a file. Nothing here imports torch before a verb runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from augury._version import __version__
from augury.cli.ablate import ablate
from augury.cli.ask import ask
from augury.cli.audit import Peers, audit
from augury.cli.bench import bench
from augury.cli.capture import capture
from augury.cli.common import (
    USAGE_ERROR,
    close_stdout,
    guarded,
    prepare_environment,
    prepare_streams,
    tell_interruption,
    write_json,
)
from augury.cli.data import data
from augury.cli.doctor import doctor
from augury.cli.hub import hub
from augury.cli.models import models
from augury.cli.scan import scan
from augury.cli.score import score
from augury.cli.serve import serve
from augury.cli.train import train
from augury.errors import InputError

HELP = """Ask a language model's activations questions in plain language.

\b
augury models add smollm2
augury ask "The philosopher who drank hemlock" -q "Who is this?"
augury score "Knead the dough and let it rise." -q "Is this about cooking?"
augury scan "Knead the dough and let it rise." -q "Is this about cooking?"
augury doctor Qwen/Qwen3-8B
"""

app = typer.Typer(
    help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False, add_completion=False
)
_VERBS: tuple[Callable[..., Any], ...] = (ask, score, scan, capture, train, ablate, serve, doctor)
for _verb in _VERBS:
    app.command(_verb.__name__)(guarded(_verb))
app.command("audit", cls=Peers)(guarded(audit))
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")
app.add_typer(models, name="models")
app.add_typer(hub, name="hub")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"augury {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    prepare_environment()


def main() -> None:
    """The entry point `augury`."""
    prepare_streams()
    prepare_environment()
    try:
        if "--json" in sys.argv[1:]:
            sys.exit(_with_json_misuse())
        app(prog_name="augury")
    finally:
        _flush()


def _with_json_misuse() -> int:
    """Run so that wrong options, too, are told as JSON."""
    try:
        code = app(prog_name="augury", standalone_mode=False)
    except USAGE_ERROR as error:
        why = "the command line is not as `augury --help` describes it"
        write_json({"error": InputError(_message(error), why, "see `augury VERB --help`").as_dict()})
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return tell_interruption(as_json=True)
    return code if isinstance(code, int) else 0


def _message(error: Exception) -> str:
    """What is wrong, with the option that it is about."""
    return error.format_message() if isinstance(error, typer.BadParameter) else str(error)


def _flush() -> None:
    """Write out what is left; where nobody reads any more, quietly not."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        close_stdout()


__all__ = ["app", "main"]
