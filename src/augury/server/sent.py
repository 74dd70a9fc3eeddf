"""What a client sends of a context and of a selector."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from augury.activations.positions import RoleSelector, TextSelector
from augury.errors import InputError
from augury.lm import Message, Transcript
from augury.lm.chat import is_conversation
from augury.lm.values import is_whole


def context_of(source: Any) -> dict[str, Any]:
    """A context as the service takes it.

    Raises:
        InputError: It is none of these.
    """
    if isinstance(source, Transcript):
        return {"token_ids": list(source.token_ids)}
    if isinstance(source, str):
        return {"text": source}
    if is_conversation(source):
        return {"messages": [asdict(turn) if isinstance(turn, Message) else dict(turn) for turn in source]}
    if isinstance(source, Sequence) and source and all(map(is_whole, source)):
        return {"token_ids": [int(token) for token in source]}
    why = f"it is a {type(source).__name__}"
    raise InputError("There is nothing to read.", why, "pass text, messages, token ids, a Transcript or activations")


def positions_of(source: Any, given: Any) -> Any:
    """A selector as it is sent; of a `Transcript` roles are resolved here, since its turns are not sent."""
    role = re.fullmatch(r"role\((.+)\)", str(given).strip())
    if role is None or not isinstance(source, Transcript):
        return _selector(given)
    name = role[1].strip("'\"")
    found = [i for span in source.spans if span.role == name for i in range(span.start, span.stop)]
    if not found:
        why = f"the context has turns of {', '.join(dict.fromkeys(s.role for s in source.spans)) or 'nobody'}"
        raise InputError(f"The selector {given!s} matches no token.", why, "choose a role that is there")
    return found


def _selector(given: Any) -> Any:
    """A selector as text or indices."""
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, TextSelector | RoleSelector):
        return str(given)
    if isinstance(given, slice):
        ends = ("" if end is None else str(end) for end in (given.start, given.stop))
        return ":".join(ends) + ("" if given.step is None else f":{given.step}")
    return [int(given)] if is_whole(given) else [int(position) for position in given]
