"""Rollouts that an endpoint samples which serves the target: its tokens are checked, never guessed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from augury.data.endpoint import Endpoint, open_endpoint
from augury.data.example import Context
from augury.data.prompts import Prompt
from augury.data.requests import Reply, Request, TargetSettings
from augury.data.rollouts import rollout
from augury.data.served_tokens import ReplyTokens, Sampled, Unclear
from augury.data.store import Shards
from augury.errors import ModelError
from augury.lm import LanguageModel, Sampling, Transcript
from augury.lm.chat import Message, render_chat
from augury.lm.generate import extended, started

log = logging.getLogger(__name__)
_ASKED: dict[str, dict[str, Any]] = {"token_ids": {"return_token_ids": True}, "logprobs": {"logprobs": True}}


@dataclass(frozen=True)
class _Item:
    number: int
    prompt: Prompt
    start: Transcript
    request: Request


def sample_served(
    lm: LanguageModel,
    prompts: Iterable[Prompt],
    shards: Shards[Context],
    sampling: Sampling,
    settings: TargetSettings,
    replies: Path,
    *,
    thinking: bool = False,
    batch_size: int = 96,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Have one answer to every prompt sampled; a file of contexts a batch, gone on with where it was cut off.

    Each request's seed is the prompt's number behind the sampling's seed. Answers whose tokens cannot be known are
    left out and counted in the files, by reason.

    Args:
        lm: The target, for its tokenizer and chat template.
        prompts: User turns.
        shards: Where to; a unit is a prompt.
        sampling: How tokens are chosen.
        settings: Of the endpoint.
        replies: The file that keeps the replies, where the settings name none.
        thinking: Whether the target thinks first, where its template knows that.
        batch_size: Prompts of a file.
        progress: Called with the number of prompts that are done.

    Raises:
        ModelError: The endpoint reads other tokens than the target would: it serves another model or template.
        NetworkError: It gives no reply (see `Endpoint.ask`).
    """
    rest = enumerate(islice(prompts, shards.units, None), shards.units)
    part = list(islice(rest, batch_size))
    if not part:
        return
    reader = ReplyTokens(lm)
    with open_endpoint(settings, replies) as endpoint:
        first = _item(lm, *part[0], sampling, settings, thinking)
        _check(lm, first, endpoint.ask(first.request), settings)  # before anything else is asked of the wrong model
        while part:
            items = (_item(lm, number, prompt, sampling, settings, thinking) for number, prompt in part)
            rows, lost = [], Counter[str]()
            with closing(_asked(endpoint, items)) as asked:
                for item, reply in asked:
                    _check(lm, item, reply, settings)
                    try:
                        context = _context(lm, item, reader.read(reply))
                    except Unclear as reason:
                        lost[str(reason)] += 1
                    else:
                        rows.append(replace(context, number=shards.rows + len(rows)))
            shards.append(rows, len(part), lost)
            progress(shards.units)
            part = list(islice(rest, batch_size))
        log.info("%s: %s", settings.url, endpoint.usage)


def _context(lm: LanguageModel, item: _Item, found: Sampled) -> Context:
    context = rollout(lm, item.number, item.prompt, extended(item.start, list(found.token_ids), lm))
    return replace(context, labels={**context.labels, "tokens": found.how})


def _asked(endpoint: Endpoint, items: Iterable[_Item]) -> Generator[tuple[_Item, Reply], None, None]:
    return endpoint.each(lambda item: (item, endpoint.ask(item.request)), items)


def _item(
    lm: LanguageModel, number: int, prompt: Prompt, sampling: Sampling, settings: TargetSettings, thinking: bool
) -> _Item:
    messages = (Message("user", prompt.text),)
    start = started(lm, messages, "thinking" if thinking else "generation", sampling.max_new_tokens)
    extra = dict(_ASKED.get(settings.tokens, {}))
    if render_chat(lm, messages, "thinking").token_ids != render_chat(lm, messages, "generation").token_ids:
        extra["chat_template_kwargs"] = {"enable_thinking": thinking}
    top_p = sampling.top_p if sampling.top_p < 1 else None
    request = Request(
        messages, sampling.temperature, sampling.max_new_tokens, top_p, sampling.seed + number, extra
    )  # fmt: skip
    return _Item(number, prompt, start, request)


def _check(lm: LanguageModel, item: _Item, reply: Reply, settings: TargetSettings) -> None:
    """Refuse an endpoint that does not read the tokens that the target reads; the first reply tells."""
    given, ids = reply.raw.get("prompt_token_ids"), item.start.token_ids
    if isinstance(given, list) and tuple(given) != ids:
        why = f"it read other tokens: {given[:8]}... where {lm.name} reads {list(ids[:8])}..."
    elif reply.prompt_tokens is not None and reply.prompt_tokens != len(ids):
        why = f"it read {reply.prompt_tokens} tokens where {lm.name} reads {len(ids)}"
    else:
        if reply.prompt_tokens is None and item.number == 0:
            log.warning("%s does not say how many tokens it reads: whether it serves the target is open", settings.url)
        return
    raise ModelError(
        f"The endpoint {settings.url} does not serve the target.",
        f"of the first prompt {why}",
        f"serve {lm.name} there with its own tokenizer and chat template, or leave `endpoint` out to sample here",
    )
