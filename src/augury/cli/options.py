"""Options that verbs share, as frozen groups; a verb takes whole groups and Typer sees their fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

End = Literal["closed", "generation", "open", "thinking"]
SHIPPED = "smollm2"
_READ, _MODEL, _ORACLE, _BATCH = "What is read", "Models", "The oracle", "Many at once"

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, errors too.")]
Questions = Annotated[
    list[str] | None, typer.Option("--question", "-q", help="The question; may be given several times.")
]
Diff = Annotated[
    bool,
    typer.Option("--diff", help="Also of the base, and of what lies between the two.", rich_help_panel=_READ),
]
Donors = Annotated[int, typer.Option(min=0, metavar="N", help="Neutral contexts to compare with.")]


@dataclass(frozen=True)
class ContextOptions:
    """What is read; exactly one of the first four."""

    text: Annotated[str | None, typer.Argument(help="The context; - takes it from stdin.", show_default=False)] = None
    chat: Annotated[
        str | None, typer.Option(metavar="FILE", help="A conversation as JSON messages.", rich_help_panel=_READ)
    ] = None
    tokens: Annotated[
        str | None, typer.Option(metavar="FILE", help="Token ids, as JSON or numbers.", rich_help_panel=_READ)
    ] = None
    end: Annotated[
        End | None, typer.Option(help="How the conversation ends.", rich_help_panel=_READ, show_default=False)
    ] = None
    layers: Annotated[
        str | None,
        typer.Option(help="Such as 18, 62% or 21-25. Default: those trained on.", rich_help_panel=_READ),
    ] = None
    positions: Annotated[
        str | None,
        typer.Option(
            help="all, 'last 8', 2:10, 'text(tea)', 'role(user)'. Default: last 8; scan: all.",
            rich_help_panel=_READ,
        ),
    ] = None


@dataclass(frozen=True)
class StoredOptions:
    """Activations from a file instead of a context."""

    activations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Activations that `augury capture` wrote.", rich_help_panel=_READ),
    ] = None


@dataclass(frozen=True)
class ModelOptions:
    """The model."""

    model: Annotated[
        str, typer.Option("--model", "-m", help="Alias, hub id or folder of the base.", rich_help_panel=_MODEL)
    ] = SHIPPED
    adapter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Read the model with this adapter on.", rich_help_panel=_MODEL)
    ] = None
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16.", rich_help_panel=_MODEL, show_default=False)
    ] = None
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 or auto.", rich_help_panel=_MODEL, show_default=False)
    ] = None


@dataclass(frozen=True)
class OracleOptions:
    """The oracle, and how it is used."""

    oracle: Annotated[
        str | None,
        typer.Option("--oracle", help="Folder, hub id or smollm2 (for --model smollm2).", rich_help_panel=_ORACLE),
    ] = None
    target: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Read this fine-tune; the oracle runs on --model.", rich_help_panel=_MODEL),
    ] = None
    coefficient: Annotated[
        float | None, typer.Option(help="Of the injection, instead of the trained one.", rich_help_panel=_ORACLE)
    ] = None
    off_contract: Annotated[
        bool, typer.Option("--off-contract", help="Only warn where the contract refuses.", rich_help_panel=_ORACLE)
    ] = False
    reader: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A trained reader, for the text controls.", rich_help_panel=_ORACLE),
    ] = None


@dataclass(frozen=True)
class BatchOptions:
    """Contexts and questions from a file."""

    jsonl: Annotated[
        str | None,
        typer.Option(metavar="IN", help="One context and its questions a line; - is stdin.", rich_help_panel=_BATCH),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="OUT", help="Results of --jsonl; it goes on where OUT stops.", rich_help_panel=_BATCH
        ),
    ] = None
    batch_size: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Prompts in a forward pass.", rich_help_panel=_BATCH),
    ] = 16


def grouped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with each parameter that is an option group replaced by the group's fields."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if name != "return" and is_dataclass(hint)}
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in groups:
            parameters += _parameters(groups[parameter.name])
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def verb(**options: Any) -> Any:
        made = {
            name: group(**{field.name: options.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        return function(**made, **options)

    del verb.__wrapped__  # Typer would look through it
    verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return verb


def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
    ]
