"""Which tokens an endpoint sampled: given as ids, found from the tokens' texts, or encoded again; always checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from augury.data.requests import Reply
from augury.lm import LanguageModel
from augury.lm.chat import Message, needs_tokenizer, render_chat

_ID = "token_id:"  # how vLLM writes tokens with `return_tokens_as_token_ids`


class Unclear(ValueError):
    """Why the sampled tokens of a reply cannot be known; the reasons are counted."""


@dataclass(frozen=True)
class Sampled:
    """The tokens of a reply.

    Attributes:
        token_ids: With the end token, where the answer ended.
        how: `token_ids`, `logprobs` or `encoded`: from which part of the reply they follow.
    """

    token_ids: tuple[int, ...]
    how: str


class ReplyTokens:
    """Reads the sampled tokens from replies.

    Args:
        lm: The model that the endpoint serves.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self._lm, self._tokenizer = lm, needs_tokenizer(lm)

    def read(self, reply: Reply) -> Sampled:
        """The tokens of one reply.

        Raises:
            Unclear: The text is not that of these tokens, or it ended neither by itself nor by its length.
        """
        if reply.finish not in ("stop", "length"):
            raise Unclear(f"it ended as '{reply.finish}'")
        ids, how = self._found(reply)
        ends = ids[-1:] if ids and ids[-1] in self._lm.end_ids else ()
        content = ids[: len(ids) - len(ends)]
        if self._text(content) != reply.text:
            raise Unclear(f"its text is not that of its tokens ({how})")
        if reply.finish == "stop" and not ends:
            ends = (self._end,)
        return Sampled((*content, *ends), how)

    def _found(self, reply: Reply) -> tuple[tuple[int, ...], str]:
        given = reply.choice.get("token_ids")
        if given is not None:
            return self._known(given), "token_ids"
        listed = (reply.choice.get("logprobs") or {}).get("content")
        if listed:
            return self._of_texts([token.get("token") for token in listed]), "logprobs"
        if "\ufffd" in reply.text:
            raise Unclear("its text holds a part of a character")  # which would be encoded as another one
        return tuple(self._encoded(reply.text)), "encoded"

    def _known(self, given: Any) -> tuple[int, ...]:
        if not isinstance(given, list) or not all(type(i) is int and 0 <= i < self._lm.vocab_size for i in given):
            raise Unclear("its token ids are none of the target's")
        return tuple(given)

    def _of_texts(self, texts: Sequence[Any]) -> tuple[int, ...]:
        """Each token by its text: as the whole encodes, where that has these texts, else those with a text of their
        own (some tokens hold a part of a character, and those look alike)."""
        if not all(isinstance(text, str) for text in texts):
            raise Unclear("its logprobs name no tokens")
        if all(text.startswith(_ID) and text[len(_ID) :].isdecimal() for text in texts):
            return self._known([int(text[len(_ID) :]) for text in texts])
        for end in self._lm.end_ids:
            if texts[-1] == self._piece(end):
                return (*self._of_content(texts[:-1]), end)
        return self._of_content(texts)

    def _of_content(self, texts: Sequence[str]) -> tuple[int, ...]:
        ids = self._encoded("".join(texts))
        if [self._piece(i) for i in ids] == list(texts):
            return tuple(ids)
        if any(len(self._ids_of[text]) != 1 for text in texts):
            raise Unclear("its logprobs do not tell the tokens apart")
        return tuple(self._ids_of[text][0] for text in texts)

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _piece(self, token: int) -> str:
        return self._tokenizer.decode([token], clean_up_tokenization_spaces=False)

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    @cached_property
    def _ids_of(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for token in range(len(self._tokenizer)):
            found[self._piece(token)].append(token)
        return found

    @cached_property
    def _end(self) -> int:
        """The token with which the chat template closes an answer, where an answer ends at it."""
        closed = render_chat(self._lm, [Message("user", "a"), Message("assistant", "b")], "closed")
        stop = closed.spans[-1].stop if closed.spans else len(closed.token_ids)
        after = closed.token_ids[stop : stop + 1]
        return after[0] if after and after[0] in self._lm.end_ids else self._lm.end_ids[0]
