"""Conversations as token ids: rendered by the chat template at token level, with explicit endings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from augury.errors import InputError
from augury.lm.load import LanguageModel, needs_model
from augury.lm.spans import content_spans
from augury.lm.values import is_whole

End = Literal["closed", "generation", "open", "thinking"]
# Templates read these, and `Message` has no place for them.
_UNREAD = ("tool_calls", "tool_call_id", "function_call", "name", "reasoning", "reasoning_content", "thinking")
# What `apply_chat_template` takes for itself, or what the ending decides.
_NOT_THE_TEMPLATES = (
    *("conversation", "tokenize", "tokenizer_kwargs", "return_dict", "return_tensors", "return_assistant_tokens_mask"),
    *("padding", "truncation", "max_length", "add_generation_prompt", "continue_final_message"),
)
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
        InputError: Empty, too long for the model, an unknown ending, an ending for what is not made of messages, or
            not one of these kinds.
    """
    needs_model(lm)
    _check_end(end)
    _check_turns(source, end)
    items = source if isinstance(source, Sequence) and not isinstance(source, (str, bytes)) else ()
    if isinstance(source, Transcript):
        found = source
    elif isinstance(source, str):
        found = _from_text(lm, source)
    elif items and all(map(is_whole, items)):
        found = Transcript(tuple(map(int, items)), model=lm.name)
    elif is_conversation(source):
        found = render_chat(lm, items, end)
    else:
        raise InputError(
            "There is nothing to read.", _no_text(source), "pass text, messages, token ids or a Transcript"
        )
    return _checked(lm, found)


def is_conversation(source: Any) -> bool:
    """Whether `source` is made of messages."""
    listed = isinstance(source, Sequence) and not isinstance(source, (str, bytes))
    return listed and bool(source) and all(isinstance(item, (Mapping, Message)) for item in source)


def _check_turns(source: Any, end: End | None) -> None:
    """Refuse an ending for what ends as it is: it would be left out in silence."""
    if end is None:
        return
    if isinstance(source, Transcript):
        if source.end != end:
            raise InputError(
                f"This Transcript does not end as {end!r}.",
                f"it ends as {source.end!r} already, and its token ids are taken as they are",
                "render the messages anew with this ending, or leave end= out",
            )
    elif isinstance(source, Sequence) and source and not is_conversation(source):
        raise InputError(
            "end= is for conversations.", "text and token ids have no turns", "pass messages, or leave end= out"
        )


def _no_text(source: Any) -> str:
    if hasattr(source, "tolist"):
        return f"a {type(source).__name__} is no list of token ids: write .tolist() after it"
    return f"{source!r:.60} is no text"


def _check_end(end: str | None) -> None:
    if end is not None and end not in ENDS:
        raise InputError(f"'{end}' is no ending.", "a conversation's end is explicit", f"use one of {', '.join(ENDS)}")


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
    ids = needs_tokenizer(lm)(encodable(text), add_special_tokens=True)["input_ids"]
    return Transcript(tuple(ids), model=lm.name)


def encodable(text: str) -> str:
    """The text itself, or a refusal of half a character (a lone surrogate), which no tokenizer takes.

    Raises:
        InputError: It has no UTF-8 form.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            "The text holds half a character.",
            f"{text[error.start]!r} at place {error.start} is a lone surrogate, as a text cut in the middle has",
            "read the text again with the encoding that it was written in",
        ) from error
    return text


def as_messages(messages: Sequence[Any]) -> tuple[Message, ...]:
    """Messages from mappings or `Message` objects."""
    return tuple(item if isinstance(item, Message) else _message(item) for item in messages)


def _message(item: Any) -> Message:
    fields = item if isinstance(item, Mapping) else {}
    lost = [name for name in _UNREAD if fields.get(name)]
    if lost:
        raise InputError(
            "A message cannot be read.",
            f"it has {', '.join(lost)}, which would be left out of what the model reads",
            "write them into the content as text, or render the conversation yourself and pass its token ids",
        )
    role, content = fields.get("role"), fields.get("content")
    if not (isinstance(role, str) and role and isinstance(content, str)):
        raise InputError(
            "A message cannot be read.", f"{item!r:.80} has no role and text", 'write {"role": ..., "content": ...}'
        )
    return Message(encodable(role), encodable(content))


def render_chat(
    lm: LanguageModel,
    messages: Sequence[Any],
    end: End | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> Transcript:
    """Render a conversation through the model's chat template, as token ids with the spans of its turns."""
    needs_model(lm)
    _check_end(end)
    turns, options = as_messages(messages), template_kwargs or {}
    _check_options(options)
    end = end or ("generation" if turns and turns[-1].role == "user" else "closed")
    if not turns:
        raise InputError("There is nothing to read.", "the conversation has no turns", "add at least one message")
    tokenizer = needs_tokenizer(lm)
    if not (tokenizer.chat_template or options.get("chat_template")):
        raise InputError(
            f"{lm.name} has no chat template.", "a base model's tokenizer has none", "pass raw text instead of messages"
        )
    encoded = _rendered(tokenizer, turns, end, options)
    ids = tuple(encoded["input_ids"])
    _one_bos(tokenizer, ids)
    return Transcript(ids, _spans(tokenizer, turns, end, options, encoded), turns, end, lm.name)


def _check_options(options: Mapping[str, Any]) -> None:
    """Options go to the template; those by which a text becomes token ids are not the caller's."""
    wrong = [name for name in options if name in _NOT_THE_TEMPLATES]
    if wrong:
        raise InputError(
            "These are no options of a chat template.",
            f"{', '.join(wrong)} would change how the conversation becomes token ids",
            "leave them out of chat_template_kwargs",
        )


def _rendered(tokenizer: Any, turns: tuple[Message, ...], end: End, kwargs: Mapping[str, Any]) -> Any:
    from jinja2 import TemplateError

    try:
        return _apply(tokenizer, turns, end, kwargs)
    except (TemplateError, ValueError, TypeError) as error:
        raise InputError(
            "The chat template does not take this conversation.",
            f"it says: {str(error)[:200]}",
            "check the order of the roles, or pass raw text or token ids",
        ) from error


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
    """Where each turn's content stands, from the rendered text's character offsets.

    A turn that the template rewrote has no span, so that a role selector refuses it.
    """
    if "offset_mapping" not in encoded:
        return ()

    def render(contents: Sequence[str]) -> str:
        said = tuple(replace(turn, content=text) for turn, text in zip(turns, contents, strict=True))
        return _apply(tokenizer, said, end, kwargs, text=True)

    contents = [turn.content for turn in turns]
    places = content_spans(contents, render(contents), render)
    found = (_tokens(encoded["offset_mapping"], place) for place in places)
    return tuple(Span(turn.role, *span) for turn, span in zip(turns, found, strict=True) if span is not None)


def _tokens(offsets: Sequence[tuple[int, int]], place: tuple[int, int] | None) -> tuple[int, int] | None:
    """The tokens that carry characters of the place."""
    if place is None:
        return None
    inside = [i for i, (a, b) in enumerate(offsets) if a < place[1] and b > place[0] and b > a]
    return (inside[0], inside[-1] + 1) if inside else None
