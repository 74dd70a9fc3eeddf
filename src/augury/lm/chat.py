"""Conversations as token ids: rendered by the chat template at token level, with explicit endings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from augury.errors import InputError

if TYPE_CHECKING:
    from augury.lm.load import LanguageModel

End = Literal["closed", "generation", "open", "thinking"]
ENDS: tuple[End, ...] = ("closed", "generation", "open", "thinking")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Span:
    """The token positions `[start, stop)` of one turn's content."""

    role: str
    start: int
    stop: int


@dataclass(frozen=True)
class Transcript:
    """A text as a model reads it: token ids, and which turn each belongs to.

    Attributes:
        token_ids: The ids, exactly as they went or go through the model.
        spans: The turns' contents, for selectors such as `role("assistant")`.
        messages: The conversation it was rendered from; empty for raw text.
        end: How the conversation ends; None for raw text.
        model: The model whose tokenizer these ids belong to.
    """

    token_ids: tuple[int, ...]
    spans: tuple[Span, ...] = ()
    messages: tuple[Message, ...] = ()
    end: End | None = None
    model: str | None = None

    def __len__(self) -> int:
        return len(self.token_ids)


def transcript_of(lm: LanguageModel, source: Any, end: End | None = None) -> Transcript:
    """A transcript from text, chat messages, token ids or a transcript.

    Args:
        lm: The model that will read it.
        source: A string (raw text), a list of `{"role", "content"}` or `Message`, a list of token ids, a `Transcript`.
        end: For messages only: `closed` (every turn ended), `generation` (then the assistant's header), `open` (the
            last turn's content left open), `thinking` (the header, with thinking on). Default: `generation` after a
            user's turn, `closed` otherwise.

    Raises:
        InputError: Empty, too long for the model, an unknown ending, or not one of these kinds.
    """
    if isinstance(source, Transcript):
        found = source
    elif isinstance(source, str):
        found = _from_text(lm, source)
    elif source and all(isinstance(item, int) for item in source):
        found = Transcript(tuple(source), model=lm.name)
    elif source and all(isinstance(item, (Mapping, Message)) for item in source):
        found = render_chat(lm, source, end)
    else:
        raise InputError(
            "There is nothing to read.", f"{source!r:.60} is no text", "pass text, messages, token ids or a Transcript"
        )
    return _checked(lm, found)


def _checked(lm: LanguageModel, transcript: Transcript) -> Transcript:
    ids, longest = transcript.token_ids, lm.max_positions
    if not ids:
        raise InputError("There is nothing to read.", "the text has no tokens", "pass a text with at least one token")
    if longest is not None and len(ids) > longest:
        raise InputError(
            f"The context is longer than {lm.name} can read.",
            f"it has {len(ids)} tokens and the model takes {longest}",
            "shorten it, or read the part that matters",
        )
    if min(ids) < 0 or max(ids) >= lm.vocab_size:
        raise InputError(
            "A token id is outside the model's vocabulary.",
            f"ids run from {min(ids)} to {max(ids)}, the vocabulary from 0 to {lm.vocab_size - 1}",
            "encode the text with this model's own tokenizer",
        )
    return transcript


def needs_tokenizer(lm: LanguageModel) -> Any:
    """The model's tokenizer, or a refusal where it has none."""
    if lm.tokenizer is None:
        raise InputError(
            f"{lm.name} has no tokenizer.", "its folder holds none, so text cannot be read", "pass token ids instead"
        )
    return lm.tokenizer


def _from_text(lm: LanguageModel, text: str) -> Transcript:
    if not text.strip():
        raise InputError("There is nothing to read.", "the text is empty", "pass a text with at least one word")
    ids = needs_tokenizer(lm)(text, add_special_tokens=True)["input_ids"]
    return Transcript(tuple(ids), model=lm.name)


def as_messages(messages: Sequence[Any]) -> tuple[Message, ...]:
    """Messages from mappings or `Message` objects."""
    found = []
    for item in messages:
        if isinstance(item, Message):
            found.append(item)
        elif isinstance(item, Mapping) and {"role", "content"} <= item.keys() and isinstance(item["content"], str):
            found.append(Message(str(item["role"]), item["content"]))
        else:
            raise InputError(
                "A message cannot be read.", f"{item!r:.80} has no role and text", 'write {"role": ..., "content": ...}'
            )
    return tuple(found)


def render_chat(
    lm: LanguageModel,
    messages: Sequence[Any],
    end: End | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> Transcript:
    """Render a conversation through the model's chat template, as token ids with the spans of its turns."""
    turns = as_messages(messages)
    end = end or ("generation" if turns and turns[-1].role == "user" else "closed")
    if end not in ENDS:
        raise InputError(f"'{end}' is no ending.", "a conversation's end is explicit", f"use one of {', '.join(ENDS)}")
    if not turns:
        raise InputError("There is nothing to read.", "the conversation has no turns", "add at least one message")
    tokenizer = needs_tokenizer(lm)
    if not tokenizer.chat_template:
        raise InputError(
            f"{lm.name} has no chat template.", "a base model's tokenizer has none", "pass raw text instead of messages"
        )
    encoded = _apply(tokenizer, turns, end, template_kwargs or {})
    ids = tuple(encoded["input_ids"])
    _one_bos(tokenizer, ids)
    return Transcript(ids, _spans(tokenizer, turns, end, template_kwargs or {}, encoded), turns, end, lm.name)


def _apply(tokenizer: Any, turns: tuple[Message, ...], end: End, kwargs: Mapping[str, Any], text: bool = False) -> Any:
    options: dict[str, Any] = {"enable_thinking": end == "thinking", **kwargs}
    options["add_generation_prompt"] = end in ("generation", "thinking")
    options["continue_final_message"] = end == "open"
    conversation = [{"role": turn.role, "content": turn.content} for turn in turns]
    if text:
        return tokenizer.apply_chat_template(conversation, tokenize=False, **options)
    offsets = {"return_offsets_mapping": True} if tokenizer.is_fast else {}
    return tokenizer.apply_chat_template(
        conversation, tokenize=True, return_dict=True, tokenizer_kwargs=offsets, **options
    )


def _one_bos(tokenizer: Any, ids: tuple[int, ...]) -> None:
    bos = tokenizer.bos_token_id
    if bos is not None and len(ids) > 1 and ids[0] == ids[1] == bos:
        raise InputError(
            "The conversation starts with two BOS tokens.",
            "the template and the tokenizer both add one, which shifts every position",
            "mend the chat template, or pass token ids",
        )


def _spans(
    tokenizer: Any, turns: tuple[Message, ...], end: End, kwargs: Mapping[str, Any], encoded: Any
) -> tuple[Span, ...]:
    """Where each turn's content stands, from the rendered text's character offsets."""
    if "offset_mapping" not in encoded:
        return ()
    text = _apply(tokenizer, turns, end, kwargs, text=True)
    spans, cursor = [], 0
    for turn in turns:
        content = turn.content.strip()
        start = text.find(content, cursor) if content else -1
        if start < 0:
            continue  # the template rewrote this turn; a role selector then refuses
        cursor = start + len(content)
        inside = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < cursor and b > start and b > a]
        if inside:
            spans.append(Span(turn.role, inside[0], inside[-1] + 1))
    return tuple(spans)
