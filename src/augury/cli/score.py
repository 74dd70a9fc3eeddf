"""`augury score`: how likely the oracle holds each choice to be."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from augury.cli.options import (
    AsJson,
    BatchOptions,
    ContextOptions,
    Diff,
    Donors,
    ModelOptions,
    OracleOptions,
    Questions,
    StoredOptions,
    grouped,
)
from augury.cli.reading import Request, Verb, carry_out


@grouped
def score(
    context: ContextOptions,
    stored: StoredOptions,
    models: ModelOptions,
    oracles: OracleOptions,
    batch: BatchOptions,
    question: Questions = None,
    diff: Diff = False,
    choices: Annotated[str, typer.Option(help="Two or more, with commas.")] = "Yes,No",
    controls: Annotated[
        bool, typer.Option("--controls", help="Also without, with other activations and from text.")
    ] = False,
    donors: Donors = 32,
    as_json: AsJson = False,
) -> None:
    """Score a yes/no question, or other choices.

    \b
    augury score "Knead the dough and let it rise." -q "Is this about cooking?"
    augury score "Il pleut." -q "Which language?" --choices "French,German"
    """
    options: dict[str, Any] = {
        "choices": tuple(choice.strip() for choice in choices.split(",")),
        "coefficient": oracles.coefficient,
        "controls": controls,
        "donors": donors,
    }
    verb = Verb(
        "score",
        "last 8",
        options,
        lambda oracle, pairs, tell: oracle.score_batch(pairs, **options, batch_size=batch.batch_size, progress=tell),
    )
    carry_out(verb, Request(context, stored, models, oracles, batch, tuple(question or ()), diff), as_json)
