"""`augury scan`: one yes/no question at every token."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augury.cli.common import Tell, as_refusal, fail, say, tell_interruption
from augury.cli.options import (
    AsJson,
    BatchOptions,
    ContextOptions,
    Donors,
    ModelOptions,
    OracleOptions,
    Questions,
    StoredOptions,
    grouped,
)
from augury.cli.reading import Pair, Request, Verb, carry_out
from augury.cli.targets import check_target
from augury.errors import InputError
from augury.files import expanded

if TYPE_CHECKING:
    from augury.oracle import Oracle


@grouped
def scan(
    context: ContextOptions,
    stored: StoredOptions,
    models: ModelOptions,
    oracles: OracleOptions,
    batch: BatchOptions,
    question: Questions = None,
    window: Annotated[
        int, typer.Option(min=1, metavar="N", help="Positions in each score: it and those to its left.")
    ] = 1,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw a heat map (pip install 'augury[plot]').")
    ] = None,
    donors: Donors = 32,
    as_json: AsJson = False,
) -> None:
    """Score a yes/no question at every token, as a heat map. Several questions are shown together.

    \b
    augury scan "Knead the dough and let it rise." -q "Is this about cooking?"
    augury scan --chat chat.json -q "Is this about cooking?" --plot map.png
    """
    options: dict[str, Any] = {"window": window, "coefficient": oracles.coefficient, "donors": donors}
    verb = Verb(
        "scan",
        "all",
        options,
        lambda oracle, pairs, tell: _scan_all(oracle, pairs, {**options, "batch_size": batch.batch_size}, tell),
        chunk=1,
    )
    if plot is not None:
        _check_plot(plot, batch)
        verb = replace(verb, shown=lambda scans: _draw(scans, plot))
    carry_out(verb, Request(context, stored, models, oracles, batch, tuple(question or ())), as_json)


def _check_plot(plot: Path, batch: BatchOptions) -> None:
    """Find out before the work whether a picture can be drawn."""
    if batch.jsonl is not None:
        why = "with --jsonl the scans go to a file"
        raise InputError("--plot does nothing beside --jsonl.", why, "scan one context to draw it")
    if plot.suffix.lower() != ".png":
        raise InputError(f"{plot} is no PNG.", "a heat map is written as PNG", "name a file that ends in .png")
    check_target(plot, "--plot")
    from augury.oracle.plot import need_matplotlib

    need_matplotlib()


def _draw(scans: Sequence[Any], plot: Path) -> None:
    """Draw what was printed already: stdout holds the result, so a picture that fails is told on stderr alone."""
    from augury.oracle.plot import heat_map

    try:
        drawn = heat_map(scans, expanded(plot))
    except KeyboardInterrupt as error:
        raise typer.Exit(tell_interruption(as_json=False)) from error
    except Exception as error:
        if os.environ.get("AUGURY_DEBUG"):
            raise
        fail(as_refusal(error), as_json=False)
        raise typer.Exit(1) from error
    say(f"heat map: {drawn}")


def _scan_all(oracle: Oracle, pairs: Sequence[Pair], options: dict[str, Any], tell: Tell) -> list[Any]:
    total = sum(len(acts) for acts, _ in pairs)
    scans, before = [], 0
    for acts, question in pairs:
        # Bound now: each scan counts on from those before it.
        scans.append(oracle.scan(acts, question, **options, progress=lambda d, _, b=before: tell(b + d, total)))
        before += len(acts)
    return scans
