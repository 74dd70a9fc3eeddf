"""Contexts from texts and conversations that are at hand, rendered as the target reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from augury.data.bank import Split
from augury.data.example import Context, Part
from augury.lm import LanguageModel, Transcript
from augury.lm.chat import transcript_of

Form = Literal["user", "text"]


def context_of(
    lm: LanguageModel,
    source: Any,
    number: int,
    split: Split,
    author: str,
    origin: str,
    labels: Mapping[str, str] | None = None,
) -> Context:
    """A context from a text, messages or a `Transcript`; all its parts are by one author.

    Raises:
        InputError: Nothing to read, or longer than the model can read.
    """
    transcript = transcript_of(lm, source)
    parts = tuple(Part(span.role, author, span.start, span.stop) for span in transcript.spans)
    if not parts:
        parts = (Part("text", author, _after_bos(lm, transcript), len(transcript)),)
    return Context(number, split, transcript.token_ids, parts, dict(labels or {}), origin)


def as_form(text: str, form: Form) -> Any:
    """The text as a user's message, or as it is."""
    return [{"role": "user", "content": text}] if form == "user" else text


def _after_bos(lm: LanguageModel, transcript: Transcript) -> int:
    bos = lm.tokenizer.bos_token_id if lm.tokenizer else None
    return 1 if len(transcript) > 1 and transcript.token_ids[0] == bos else 0
