"""One line of `--jsonl`: a context, its questions and how it is read; what cannot be used is refused by itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from augury.cli.reading import Request
from augury.cli.sources import check_text, messages_of, parse_layers
from augury.errors import InputError

_CONTEXTS = ("context", "messages", "token_ids")
_FIELDS = {*_CONTEXTS, "question", "questions", "id", "positions", "layers", "end"}


@dataclass(frozen=True)
class Row:
    """One line of the input."""

    line: int
    context: Any
    questions: tuple[str, ...]
    name: Any
    layers: Any
    positions: Any
    end: Any


def read_row(number: int, line: bytes, request: Request) -> Row:
    """A line of the input; what it leaves out, or gives as null, is what the command line says.

    Raises:
        InputError: The line cannot be used.
        FormatError: Its messages are none.
    """
    value = _object(line)
    given = [name for name in _CONTEXTS if name in value]
    unknown = sorted(value.keys() - _FIELDS)
    if unknown or len(given) != 1:
        named = f"it has the unknown fields {', '.join(unknown)}" if unknown else f"it has {given or 'no context'}"
        raise _bad_row(named)
    if "end" in value and given[0] != "messages":
        raise _bad_row(f"it has an end, and {given[0]} has no turns")
    return Row(
        line=number,
        context=_context(given[0], value[given[0]]),
        questions=_questions(value, request.questions),
        name=value.get("id"),
        layers=_layers(value.get("layers", request.context.layers)),
        positions=value.get("positions", request.context.positions),
        end=value.get("end", request.context.end if given[0] == "messages" else None),
    )


def _object(line: bytes) -> dict[str, Any]:
    """The line's fields without those that are null."""
    try:
        value = json.loads(line.decode("utf-8"))
        check_text("The line", value)
    except UnicodeDecodeError as error:
        raise _bad_row("it is no UTF-8") from error
    except RecursionError as error:
        raise _bad_row("its JSON is nested too deep") from error
    except InputError as error:
        raise _bad_row(error.why) from error
    except ValueError as error:
        raise _bad_row(f"it is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _bad_row("it is no JSON object")
    return {name: item for name, item in value.items() if item is not None or name not in _FIELDS}


def _layers(value: Any) -> list[Any] | None:
    if value is None or isinstance(value, str):
        return parse_layers(value)
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(layer, (int, str)) and not isinstance(layer, bool) for layer in found):
        raise _bad_row("layers is neither a number, nor a text, nor a list of these")
    return found


def _context(kind: str, value: Any) -> Any:
    if kind == "messages":
        return messages_of(value, "the field messages")
    numbers = isinstance(value, list) and value and all(isinstance(i, int) and not isinstance(i, bool) for i in value)
    if kind == "token_ids" and not numbers:
        raise _bad_row("token_ids is no list of whole numbers")
    if kind == "context" and not isinstance(value, str):
        raise _bad_row("context is no text")
    return value


def _questions(value: dict[str, Any], default: tuple[str, ...]) -> tuple[str, ...]:
    if "question" in value and "questions" in value:
        raise _bad_row("it has both question and questions")
    named = value.get("questions", [value["question"]] if "question" in value else list(default))
    if not isinstance(named, list):
        raise _bad_row("questions is no list: write a list of texts, or a single text as question")
    if not named:
        raise _bad_row(
            "questions is empty" if "questions" in value else "it has no question, and --question was not given"
        )
    if not all(isinstance(question, str) and question.strip() for question in named):
        raise _bad_row("a question is empty or no text")
    return tuple(named)


def _bad_row(why: str) -> InputError:
    fields = ", ".join(sorted(_FIELDS))
    return InputError("The line cannot be used.", why, f"write a JSON object with fields among {fields}")
