"""What a stream is made of: one model for each server-sent event, and each event as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from augury.oracle.wire import AnswerOut, ScanOut, ScoreOut
from augury.server.schemas import ErrorOut, GeneratedOut, Out


class TextEvent(Out):
    """`text`: what has been written so far of an answer.

    Attributes:
        number: Of the question.
        texts: One text, or one of each sample.
    """

    number: int
    texts: tuple[str, ...]


class AnswerEvent(Out):
    """`answer`: an answer, and again whenever there are more of its controls.

    Attributes:
        number: Of the question.
        answer: With the controls that there are so far.
    """

    number: int
    answer: AnswerOut


class ScoreEvent(Out):
    """`score`: a score, and again whenever there are more of its controls.

    Attributes:
        number: Of the question.
        score: With the controls that there are so far.
    """

    number: int
    score: ScoreOut


class ScanEvent(Out):
    """`scan`: the scan of a question."""

    number: int
    scan: ScanOut


class ProgressEvent(Out):
    """`progress`: of a scan, before it is there.

    Attributes:
        number: Of the question.
        done: Positions that have been scored.
        total: Positions in all.
    """

    number: int
    done: int
    total: int


class WrittenEvent(Out):
    """`written`: what the target has written so far.

    Attributes:
        text: As text.
        tokens: How many tokens.
    """

    text: str
    tokens: int


class DoneEvent(Out):
    """`done`: there is no more."""


EVENTS: Mapping[str, type[BaseModel]] = {
    "text": TextEvent,
    "answer": AnswerEvent,
    "score": ScoreEvent,
    "scan": ScanEvent,
    "progress": ProgressEvent,
    "written": WrittenEvent,
    "generated": GeneratedOut,
    "error": ErrorOut,
    "done": DoneEvent,
}

STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


def describe(app: FastAPI) -> None:
    """Let the OpenAPI page hold the events too, which no route returns as JSON."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            known = plain()["components"]["schemas"]
            for model in EVENTS.values():
                found = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
                known |= {**found.pop("$defs", {}), model.__name__: found, **known}
        return plain()

    app.openapi = openapi
