"""`augury doctor`: does this model, this oracle, this golden case do what reading activations rests on?"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augury.cli.common import say, stderr, stdout, write_json
from augury.cli.options import AsJson
from augury.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from augury.oracle.doctor import Check
    from augury.oracle.doctor_oracle import Candidate, OracleReport

SHOWN_CANDIDATES = 12


def doctor(
    model: Annotated[str | None, typer.Argument(help="A model: alias, hub id or folder.")] = None,
    oracle: Annotated[str | None, typer.Option("--oracle", help="Check this oracle on the model too.")] = None,
    case: Annotated[Path | None, typer.Option("--case", help="Run a golden case's folder instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a model, an oracle or a golden case; exit code 1 where a check fails.

    \b
    augury doctor smollm2
    augury doctor smollm2 --oracle ./my-oracle
    augury doctor --case tests/golden/qwen3
    """
    if case is not None:
        _only_case(model, oracle)
        passed = _run_case(case)
    else:
        passed = _run_checks(_named(model), oracle, as_json)
    if not passed:
        raise typer.Exit(1)


def _only_case(model: str | None, oracle: str | None) -> None:
    if model is not None or oracle is not None:
        why = "a case brings its own model and adapter"
        raise InputError("--case goes alone.", why, "run `augury doctor --case DIR`")


def _named(model: str | None) -> str:
    if model is None:
        why = "neither MODEL nor --case was given"
        raise InputError("There is nothing to check.", why, "run `augury doctor smollm2`")
    return model


def _run_case(case: Path) -> bool:
    """Print exactly the case's three figures; tell on stderr which bound is broken."""
    from augury.oracle.golden import run_case

    found = run_case(case)
    figures = {
        "capture_max_abs": found.capture_max_abs,
        "logits_max_abs": found.logits_max_abs,
        "greedy_equal": found.greedy_equal,
    }
    write_json(figures)
    for bound in found.broken():
        say(f"{case}: {bound}")
    return found.passed


def _run_checks(name: str, oracle: str | None, as_json: bool) -> bool:
    from augury.lm import load_model
    from augury.oracle.doctor import check_model

    with _working() as tell:
        tell(f"loading {name}")
        lm = load_model(name)
        checks = check_model(lm, tell)
        report = _check_oracle(lm, oracle, tell) if oracle is not None else None
    passed = all(check.ok for check in checks) and (report is None or report.ok)
    if as_json:
        model = {"model": lm.name, "revision": lm.revision, "checks": [check.to_dict() for check in checks]}
        about = {"oracle": {"name": oracle, **report.to_dict()}} if report is not None else {}
        write_json({"ok": passed, **model, **about})
        return passed
    _print_checks(f"{lm.name}", checks)
    if report is not None:
        _print_oracle(str(oracle), report)
    return passed


def _check_oracle(lm: Any, oracle: str, tell: Callable[[str], None]) -> OracleReport:
    from augury.oracle.doctor_oracle import check_oracle

    return check_oracle(lm, oracle, lambda what, done, total: tell(f"{what} {done + 1} of {total}"))


@contextmanager
def _working() -> Iterator[Callable[[str], None]]:
    """What is being done now, on stderr in a terminal; nothing in a pipe."""
    console = stderr()
    if not console.is_terminal:
        yield lambda what: None
        return
    with console.status("starting") as status:
        yield status.update


def _print_checks(title: str, checks: Sequence[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("")
    table.add_column("what was found", overflow="fold")
    table.add_column("s", justify="right")
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("FAILS", style="bold red")
        table.add_row(check.name, mark, Text(check.detail), f"{check.seconds:.2f}")
    stdout().print(table)


def _print_oracle(name: str, report: OracleReport) -> None:
    _print_checks(f"oracle {name}", report.checks)
    if report.candidates:
        _print_candidates(report.candidates)
    if report.offered is not None:
        console = stdout()
        console.print("The best contract. Save it beside the adapter as oracle.json if you trust it:", style="bold")
        # Never wrapped: it is to be copied.
        typer.echo(json.dumps(report.to_dict()["offered"], indent=2))


def _print_candidates(candidates: Sequence[Candidate]) -> None:
    from rich.table import Table

    table = Table(
        title="lens loss under each candidate contract, nats per token, both directions", title_justify="left"
    )
    for name in ("operation", "block", "layout", "layers"):
        table.add_column(name, no_wrap=True)
    for name in ("texts", "real", "shuffled", "none", "reads"):
        table.add_column(name, justify="right")
    for candidate in candidates[:SHOWN_CANDIDATES]:
        table.add_row(*_candidate_cells(candidate), style=None if candidate.losses.reads else "dim")
    stdout().print(table)
    if len(candidates) > SHOWN_CANDIDATES:
        stdout().print(
            f"and {len(candidates) - SHOWN_CANDIDATES} more with a higher loss (all with --json)", style="dim"
        )


def _candidate_cells(candidate: Candidate) -> list[str]:
    injection, losses = candidate.contract.injection, candidate.losses
    means = [(getattr(losses.past, name) + getattr(losses.future, name)) / 2 for name in ("real", "shuffled", "none")]
    return [
        injection.operation,
        str(injection.block if injection.block is not None else injection.site),
        candidate.contract.prompt.layout,
        ", ".join(map(str, candidate.layers)),
        str(losses.texts),
        *(f"{mean:.2f}" for mean in means),
        "yes" if losses.reads else "no",
    ]
