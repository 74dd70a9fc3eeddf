"""Which token positions are read: selectors, resolved against one transcript."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from augury.contract import percent_to_layer
from augury.errors import InputError
from augury.lm import LanguageModel, Transcript
from augury.lm.chat import needs_tokenizer
from augury.lm.values import is_whole

_LAST = re.compile(r"last(?:\s+(\d+))?$")
_FIRST = re.compile(r"first(?:\s+(\d+))?$")
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?(?::(-?\d+))?$")
_UNFINISHED = "\ufffd"  # what the first bytes of a character decode to
_CALL = re.compile(r"(text|role)\((.+)\)$")


@dataclass(frozen=True)
class TextSelector:
    """The tokens of the last occurrence of a text."""

    value: str

    def __str__(self) -> str:
        return f"text({self.value!r})"


@dataclass(frozen=True)
class RoleSelector:
    """All content tokens of the turns of one role."""

    value: str

    def __str__(self) -> str:
        return f"role({self.value!r})"


def text(value: str) -> TextSelector:
    """Select the tokens that cover the last occurrence of `value`."""
    return TextSelector(value)


def role(value: str) -> RoleSelector:
    """Select the content tokens of every turn of `value` ("user", "assistant", "system")."""
    return RoleSelector(value)


def resolve(lm: LanguageModel, transcript: Transcript, selector: Any) -> tuple[int, ...]:
    """The positions that `selector` names, in its order, each once.

    Args:
        lm: For decoding, where the selector is a text.
        transcript: What is read.
        selector: `"all"`, `"last"`, `"last 8"`, `"first 3"`, `"2:10"`, `"text(hemlock)"`, `"role(assistant)"`, an
            index, what `text()` and `role()` return, all of these in reading order; or a slice or a list of indices,
            in their own. Negative indices count from the end.

    Raises:
        InputError: Not a selector, or one that matches nothing; the message says what there is.
    """
    found = _resolve(lm, transcript, selector)
    if not found:
        raise InputError(
            f"The selector {selector!s} matches no token.",
            f"the context has {len(transcript)} tokens and turns of {_roles(transcript)}",
            'choose positions that exist, for example "last 8" or "all"',
        )
    return tuple(dict.fromkeys(found))


def _resolve(lm: LanguageModel, transcript: Transcript, selector: Any) -> Sequence[int]:
    n = len(transcript)
    if isinstance(selector, str):
        return _from_string(lm, transcript, selector.strip())
    if isinstance(selector, TextSelector):
        return _of_text(lm, transcript, selector.value)
    if isinstance(selector, RoleSelector):
        return [i for span in transcript.spans if span.role == selector.value for i in range(span.start, span.stop)]
    if isinstance(selector, slice):
        return _slice(n, selector)
    if is_whole(selector):
        return _indices([int(selector)], n)
    if isinstance(selector, Sequence) and all(map(is_whole, selector)):
        return _indices([int(i) for i in selector], n)
    raise _unknown(selector)


def _from_string(lm: LanguageModel, transcript: Transcript, selector: str) -> Sequence[int]:
    n = len(transcript)
    if selector == "all":
        return range(n)
    if match := _LAST.match(selector):
        return range(max(0, n - int(match[1] or 1)), n)
    if match := _FIRST.match(selector):
        return range(min(n, int(match[1] or 1)))
    if match := _CALL.match(selector):
        value = match[2].strip("'\"")
        return _resolve(lm, transcript, text(value) if match[1] == "text" else role(value))
    if match := _SLICE.match(selector):
        return _slice(n, slice(*(int(part) if part else None for part in match.groups())))
    if re.fullmatch(r"-?\d+(\s*,\s*-?\d+)*", selector):
        return _indices([int(part) for part in selector.split(",")], n)
    raise _unknown(selector)


def _slice(n: int, wanted: slice) -> range:
    try:
        return range(n)[wanted]
    except (TypeError, ValueError) as error:
        raise _unknown(wanted) from error


def _indices(indices: Sequence[int], n: int) -> list[int]:
    if any(not -n <= i < n for i in indices):
        raise InputError(
            f"The positions {list(indices)} are not all in the context.",
            f"it has {n} tokens, so positions run from 0 to {n - 1}",
            'choose positions that exist, or a selector such as "last 8"',
        )
    return [i % n for i in indices]


def _of_text(lm: LanguageModel, transcript: Transcript, value: str) -> list[int]:
    """Tokens that overlap the last occurrence of `value` in the decoded text."""
    tokenizer, ids = needs_tokenizer(lm), list(transcript.token_ids)
    begin = str(tokenizer.decode(ids)).rfind(value) if value else -1
    if begin < 0:
        return []
    stops = range(len(ids) + 1)

    def length(stop: int) -> int:
        """Characters of a prefix: what a token adds depends on those before it."""
        return len(str(tokenizer.decode(ids[:stop])).rstrip(_UNFINISHED))

    # Of a character in several tokens, all of them are taken: they begin at one length.
    before = length(bisect_right(stops, begin, key=length) - 1)
    first, last = bisect_left(stops, before, key=length), bisect_left(stops, begin + len(value), key=length)
    return list(range(first, min(last, len(ids))))


def _roles(transcript: Transcript) -> str:
    return ", ".join(dict.fromkeys(span.role for span in transcript.spans)) or "no role (raw text)"


def _unknown(selector: Any) -> InputError:
    return InputError(
        f"{selector!r} is no position selector.",
        "it is none of the known forms",
        'use "all", "last 8", "first 3", "2:10", an index, a list of indices, text("...") or role("assistant")',
    )


def resolve_layers(n_layers: int, layers: Any) -> tuple[int, ...]:
    """Layer indices from an index, a percent of depth such as `"62%"`, or a sequence of these.

    Raises:
        InputError: Outside the model's depth, none, one named twice, or no layer at all.
    """
    one = is_whole(layers) or isinstance(layers, str)
    if not one and not isinstance(layers, Iterable):
        raise InputError(
            f"{layers!r} names no layer.",
            f"it is a {type(layers).__name__}",
            'give an index, a percent of depth such as "62%", or a list of these',
        )
    items = [layers] if one else list(layers)
    if len(items) == 1 and isinstance(items[0], str) and "," in items[0]:
        items = items[0].split(",")
    found = []
    for item in items:
        spelled = str(item).strip()
        percent = spelled.endswith("%")
        try:
            layer = percent_to_layer(n_layers, float(spelled[:-1])) if percent else int(spelled)
        except (ValueError, OverflowError):  # the latter for "inf%"
            layer = -1
        if not 0 <= layer < n_layers:
            raise InputError(
                f"{item!r} is no layer of this model.",
                f"its layers run from 0 to {n_layers - 1} (layer k is the output of block k)",
                'give an index or a percent of depth, for example "62%"',
            )
        found.append(layer)
    if not found:
        raise InputError("No layer was named.", "the list of layers is empty", 'name one, for example "62%"')
    if len(set(found)) < len(found):
        why = f"on a model of {n_layers} layers these are {found}"
        raise InputError("A layer was named twice.", why, "name each layer once")
    return tuple(found)
