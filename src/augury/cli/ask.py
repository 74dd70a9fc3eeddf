"""`augury ask`: a question in, an answer in words out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

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
from augury.cli.reading import Request, Verb, carry_out
from augury.errors import InputError


@grouped
def ask(
    context: ContextOptions,
    stored: StoredOptions,
    models: ModelOptions,
    oracles: OracleOptions,
    batch: BatchOptions,
    question: Questions = None,
    samples: Annotated[int, typer.Option(min=0, help="Sampled answers and their agreement; 0: one greedy answer.")] = 0,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Of the samples.  [default: 1.0]", show_default=False)
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="At most this many tokens an answer.")] = 24,
    controls: Annotated[
        bool, typer.Option("--controls", help="Also without, with other activations and from text.")
    ] = False,
    donors: Donors = 32,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Ask a question about what a model represents.

    \b
    augury ask "The philosopher who drank hemlock taught" -q "Who is this about?"
    augury ask --chat chat.json --positions "role(assistant)" -q "What is planned?" --controls
    augury ask --jsonl contexts.jsonl -o answers.jsonl -q "What is this about?"
    """
    if temperature is not None and not samples:
        raise InputError("--temperature does nothing here.", "a greedy answer is not sampled", "pass --samples 10 too")
    options: dict[str, Any] = {
        "samples": samples,
        "temperature": 1.0 if temperature is None else temperature,
        "max_new_tokens": max_new_tokens,
        "coefficient": oracles.coefficient,
        "controls": controls,
        "seed": seed,
        "donors": donors,
    }
    verb = Verb(
        "ask",
        "last 8",
        options,
        lambda oracle, pairs, tell: oracle.ask_batch(pairs, **options, batch_size=batch.batch_size, progress=tell),
    )
    carry_out(verb, Request(context, stored, models, oracles, batch, tuple(question or ())), as_json)
