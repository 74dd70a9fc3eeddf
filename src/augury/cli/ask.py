"""`augury ask`: a question in, an answer in words out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from augury.cli.options import (
    AsJson,
    BatchOptions,
    ContextOptions,
    Diff,
    ModelOptions,
    OracleOptions,
    Questions,
    StoredOptions,
    grouped,
)
from augury.cli.reading import Request, Verb, carry_out
from augury.errors import InputError

DONORS = 32
MOST_SEED = 2**63 - 1


@grouped
def ask(
    context: ContextOptions,
    stored: StoredOptions,
    models: ModelOptions,
    oracles: OracleOptions,
    batch: BatchOptions,
    question: Questions = None,
    diff: Diff = False,
    samples: Annotated[int, typer.Option(min=0, metavar="N", help="Sampled answers and their agreement.")] = 0,
    temperature: Annotated[
        float | None, typer.Option(min=0, metavar="T", help="Of the samples. Default: 1.", show_default=False)
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="At most this many tokens an answer. Default: the contract's, or 24.",
            show_default=False,
        ),
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Also without, with other activations and from text.")
    ] = False,
    donors: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Neutral contexts for --controls. Default: 32.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, metavar="N", help="Of the sampling.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Ask a question about what a model represents.

    \b
    augury ask "The philosopher who drank hemlock" -q "Who is this?"
    augury ask --chat chat.json --positions "role(user)" -q "Who speaks?"
    augury ask --jsonl contexts.jsonl -o answers.jsonl -q "Who speaks?"
    """
    if temperature is not None and not samples:
        raise InputError("--temperature does nothing here.", "a greedy answer is not sampled", "pass --samples 10 too")
    if donors is not None and not controls:
        why = "an answer in words is compared with donors only under the control `shuffled`"
        raise InputError("--donors does nothing here.", why, "pass --controls too, or leave --donors out")
    if donors == 0:
        why = "the control `shuffled` asks donors"
        raise InputError("--donors 0 does not go with --controls.", why, "pass 2 or more, or leave one of the two out")
    options: dict[str, Any] = {
        "samples": samples,
        "temperature": 1.0 if temperature is None else temperature,
        "max_new_tokens": max_new_tokens,
        "coefficient": oracles.coefficient,
        "controls": controls,
        "seed": seed,
        "donors": DONORS if donors is None else donors,
    }
    verb = Verb(
        "ask",
        "last 8",
        options,
        lambda oracle, pairs, tell: oracle.ask_batch(pairs, **options, batch_size=batch.batch_size, progress=tell),
    )
    carry_out(verb, Request(context, stored, models, oracles, batch, tuple(question or ()), diff), as_json)
