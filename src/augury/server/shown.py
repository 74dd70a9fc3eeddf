"""Contexts and texts as callers are shown them. All of it touches a tokenizer: only for the engine's thread."""

from __future__ import annotations

from collections.abc import Sequence

from augury.lm import LanguageModel, Transcript
from augury.oracle.reading import decoded
from augury.server.schemas import GeneratedOut, SpanOut, TokensOut

UNFINISHED = "\ufffd"  # what the first bytes of a character decode to


def tokens_out(lm: LanguageModel, transcript: Transcript) -> TokensOut:
    """A context as tokens."""
    ids = transcript.token_ids
    special = set(lm.tokenizer.all_special_ids) if lm.tokenizer is not None else set()
    texts = {token: decoded(lm, [token], special=True) for token in set(ids)}
    return TokensOut(
        token_ids=ids,
        tokens=tuple(texts[token] for token in ids),
        special=tuple(token in special for token in ids),
        spans=tuple(SpanOut(role=span.role, start=span.start, stop=span.stop) for span in transcript.spans),
    )


def generated_out(lm: LanguageModel, transcript: Transcript) -> GeneratedOut:
    """A context with what the target wrote, which is its last turn."""
    last = transcript.spans[-1]
    text = decoded(lm, transcript.token_ids[last.start : last.stop])
    return GeneratedOut(**tokens_out(lm, transcript).model_dump(), text=text)


def so_far(lm: LanguageModel, token_ids: Sequence[int]) -> str:
    """What has been written, up to the last whole character."""
    return decoded(lm, token_ids).rstrip(UNFINISHED)
