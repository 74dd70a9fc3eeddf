"""Decoding that keeps token ids: one prefill, then a cached loop in which finished rows cost nothing.

Injection needs the prefill to be a step of its own, and sampling several answers needs its cache to be shared; both
are plain here because the loop is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from augury.errors import InputError
from augury.lm.adapters import adapters_on
from augury.lm.batch import Padded, left_pad
from augury.lm.chat import End, Span, Transcript, is_conversation, transcript_of
from augury.lm.finite import finite
from augury.lm.load import LanguageModel, needs_model
from augury.lm.locks import alone
from augury.lm.shared import SharedBatch, forward_shared, full_mask, take_rows
from augury.lm.values import is_number, is_whole

Told = Callable[[Sequence[Sequence[int]]], None]
LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-4, 1e4  # outside, logits over the temperature leave float32's range


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: `temperature` 0 is greedy."""

    max_new_tokens: int = 24
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        kept = (
            is_whole(self.max_new_tokens) and self.max_new_tokens >= 1,
            is_number(self.temperature)
            and (self.temperature == 0 or LEAST_TEMPERATURE <= self.temperature <= MOST_TEMPERATURE),
            is_number(self.top_p) and 0 < self.top_p <= 1,
            is_whole(self.seed) and -(2**63) <= self.seed < 2**64,
        )
        if not all(kept):
            raise InputError(
                "These sampling settings cannot be used.",
                f"max_new_tokens={self.max_new_tokens!r}, temperature={self.temperature!r}, top_p={self.top_p!r}, "
                f"seed={self.seed!r}",
                f"use at least one token, temperature 0 or {LEAST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}, "
                "0 < top_p <= 1, and a seed of 64 bits",
            )
        for name, plain in (("max_new_tokens", int), ("temperature", float), ("top_p", float), ("seed", int)):
            object.__setattr__(self, name, plain(getattr(self, name)))


def decode(
    lm: LanguageModel,
    batch: Padded | SharedBatch,
    sampling: Sampling,
    *,
    samples: int = 1,
    prefill: Callable[[], AbstractContextManager[Any]] = nullcontext,
    told: Told | None = None,
) -> list[list[list[int]]]:
    """Continue every row of a batch, `samples` times each, from one shared prefill.

    Args:
        lm: The model, with the adapters that should answer already on.
        batch: The prompts, left-padded, with what they all begin with split off or not.
        sampling: How tokens are chosen.
        samples: Continuations per row.
        prefill: A context entered around the prefill only (where activations are injected).
        told: Called after each token with what each continuation has so far, row by row; what it raises ends all of
            them.

    Returns:
        For each row its continuations: new token ids, the end token included where one was reached.
    """
    shared = batch if isinstance(batch, SharedBatch) else SharedBatch((), batch)
    rows = len(shared.padded.offsets)
    with torch.no_grad():
        state = prefilled(lm, shared, range(rows), prefill())
        if samples > 1:
            state = keep_rows(state, [row for row in range(rows) for _ in range(samples)])
        texts = continued(lm, state, sampling, told)
    return [texts[i : i + samples] for i in range(0, rows * samples, samples)]


@dataclass
class Running:
    """A batch between two passes.

    Attributes:
        cache: What the model has read.
        logits: `[rows, vocab]`, of the next token.
        mask: `[rows, width]`, 1 on the columns of the cache that a row sees.
        position: `[rows]`, where the next token stands.
        alive: What the caller calls each row.
    """

    cache: Any
    logits: Tensor
    mask: Tensor
    position: Tensor
    alive: list[int]


def prefilled(
    lm: LanguageModel, batch: SharedBatch, rows: Sequence[int], around: AbstractContextManager[Any] | None = None
) -> Running:
    """A batch after the pass over its prompts; `around` is entered there, `rows` are its rows' names."""
    out = forward_shared(lm, batch, 1, around, use_cache=True)
    position = batch.padded.position_ids[:, -1] + len(batch.prefix) + 1
    return Running(out.past_key_values, out.logits[:, -1], full_mask(batch), position, list(rows))


def continued(
    lm: LanguageModel,
    state: Running,
    sampling: Sampling,
    told: Told | None = None,
    chosen: Callable[[Sequence[int], Tensor, Tensor], None] | None = None,
) -> list[list[int]]:
    """What follows each row of a batch: new token ids, the end token included where one was reached.

    Args:
        lm: The model, with the adapters that should answer already on.
        state: The batch; it is used up.
        sampling: How tokens are chosen.
        told: Called after each token with what each row has so far; what it raises ends all of them.
        chosen: Called with the rows still running, their logits `[rows, vocab]`, and the tokens chosen, `[rows]`.
    """
    rows = len(state.alive)
    state.alive = list(range(rows))
    generator = torch.Generator(device=state.logits.device).manual_seed(sampling.seed)
    draw = partial(torch.multinomial, num_samples=1, generator=generator)
    ends = set(lm.end_ids)
    texts: list[list[int]] = [[] for _ in range(rows)]
    for count in range(1, sampling.max_new_tokens + 1):
        tokens = choose(finite(state.logits), sampling, draw)
        if chosen is not None:
            chosen(state.alive, state.logits, tokens)
        for row, token in zip(state.alive, tokens.tolist(), strict=True):
            texts[row].append(token)
        if told is not None:
            told(texts)
        going = [i for i, row in enumerate(state.alive) if texts[row][-1] not in ends]
        if not going or count == sampling.max_new_tokens:
            break
        if len(going) < len(state.alive):
            state, tokens = keep_rows(state, going), tokens[going]
        advance(lm, state, tokens)
    return texts


def keep_rows(state: Running, places: Sequence[int]) -> Running:
    """Some rows of a batch, repeats allowed; the old one's cache is used up."""
    index = torch.tensor(places, device=state.mask.device)
    return Running(
        take_rows(state.cache, index),
        state.logits[index],
        state.mask[index],
        state.position[index],
        [state.alive[place] for place in places],
    )


def read_on(lm: LanguageModel, state: Running, rows: Sequence[Sequence[int]], keep: int = 1) -> Tensor:
    """Let each row of a batch read some tokens more, and give the logits of the last `keep` of them.

    Rows of unequal length have padding between what was read and what is: only for models that stand that, as in
    `augury.lm.shared`.

    Args:
        lm: The model, with the adapters that should run already on.
        state: The batch; it is as after these tokens when this returns.
        rows: Token ids, one list a row, none empty.
        keep: How many of the last tokens' logits are wanted.

    Returns:
        `[rows, keep, vocab]`.
    """
    batch = left_pad(rows, lm.pad_id, lm.device)
    state.mask = torch.cat([state.mask, batch.attention_mask], 1)
    out = lm.model(
        input_ids=batch.input_ids,
        attention_mask=state.mask,
        position_ids=batch.position_ids + state.position[:, None],
        past_key_values=state.cache,
        use_cache=True,
        **({"logits_to_keep": keep} if lm.keeps_logits else {}),
    )
    state.cache, state.logits = out.past_key_values, out.logits[:, -1]
    state.position = state.position + batch.position_ids[:, -1] + 1
    return out.logits[:, -keep:]


def advance(lm: LanguageModel, state: Running, chosen: Int[Tensor, " rows"]) -> None:
    """Run the token that was chosen for each row."""
    read_on(lm, state, chosen[:, None].tolist())


def choose(
    logits: Float[Tensor, "rows vocab"], sampling: Sampling, draw: Callable[[Tensor], Tensor]
) -> Int[Tensor, " rows"]:
    """The next token of each row of `logits` `[rows, vocab]`; `draw` takes one a row by weights, `[rows, k]`."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scaled = logits.float() / sampling.temperature
    if sampling.top_p == 1:
        return draw(scaled.softmax(-1))[:, 0]
    kept, order = _nucleus(scaled, sampling.top_p)
    return order.gather(-1, draw(kept))[:, 0]


def _nucleus(
    scaled: Float[Tensor, "rows vocab"], top_p: float, first: int = 64
) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """The probabilities of the fewest tokens that reach `top_p`, all others 0, and their ids: both `[rows, k]`.

    Sorting a whole vocabulary takes longer than the model's own step, so the likeliest few are tried first.
    """
    total = scaled.logsumexp(-1, keepdim=True)
    for k in (first, 16 * first, scaled.shape[-1]):
        values, order = scaled.topk(min(k, scaled.shape[-1]), dim=-1)
        probabilities = (values - total).exp()
        before = probabilities.cumsum(-1) - probabilities
        if bool((before[:, -1] + probabilities[:, -1] >= top_p).all()):
            break
    return probabilities.masked_fill(before >= top_p, 0), order


def generate(
    lm: LanguageModel,
    messages: Any,
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    end: End | None = None,
    told: Callable[[Sequence[int]], None] | None = None,
) -> Transcript:
    """Let the target continue a conversation or a text, and keep the sampled token ids.

    Args:
        lm: The target; its own adapter stays on, every oracle adapter is off.
        messages: Chat messages (the assistant answers), or raw text (it is continued).
        max_new_tokens: At most this many.
        temperature: 0 is greedy.
        top_p: Nucleus sampling.
        seed: Of the sampling.
        end: Of messages: `generation` (default) or `thinking`.
        told: Called after each token with all new token ids so far; what it raises ends the generation.

    Returns:
        The whole transcript; its last span, of role `assistant`, is what was generated.

    Raises:
        InputError: Nothing to read, no room in the model's context for that many new tokens, or another ending.
    """
    needs_model(lm)
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    start = started(lm, messages, end, max_new_tokens)
    with alone(lm.model), adapters_on(lm.model, lm.target_adapters):
        batch, one = left_pad([start.token_ids], lm.pad_id, lm.device), None if told is None else _of_one(told)
        [[new]] = decode(lm, batch, sampling, told=one)
    return extended(start, new, lm)


def _of_one(told: Callable[[Sequence[int]], None]) -> Told:
    return lambda texts: told(texts[0])


def started(lm: LanguageModel, source: Any, end: End | None, new_tokens: int) -> Transcript:
    """The transcript that is continued.

    Raises:
        InputError: Nothing to read, no room for `new_tokens` more, or another ending than these two.
    """
    if end not in (None, "generation", "thinking"):
        why = "an answer begins after the assistant's header, with thinking on or off"
        raise InputError(f"Nothing is generated after the ending {end!r}.", why, "use generation or thinking")
    start = transcript_of(lm, source, end or ("generation" if is_conversation(source) else None))
    if lm.max_positions is not None and len(start) + new_tokens > lm.max_positions:
        raise InputError(
            f"There is no room for {new_tokens} more tokens.",
            f"the context has {len(start)} tokens and {lm.name} takes {lm.max_positions} in all",
            "shorten the context, or lower max_new_tokens",
        )
    return start


def extended(start: Transcript, new: list[int], lm: LanguageModel) -> Transcript:
    """The transcript with what was sampled, as the assistant's content up to the end token."""
    content = len(new) - (1 if new and new[-1] in lm.end_ids else 0)
    span = Span("assistant", len(start.token_ids), len(start.token_ids) + content)
    return replace(start, token_ids=(*start.token_ids, *new), spans=(*start.spans, span), end=None)
