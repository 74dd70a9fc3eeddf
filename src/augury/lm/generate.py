"""Decoding that keeps token ids: one prefill, then a cached loop in which finished rows cost nothing.

Injection needs the prefill to be a step of its own, and sampling several answers needs its cache to be shared; both
are plain here because the loop is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from augury.errors import InputError
from augury.lm.adapters import adapters_on
from augury.lm.batch import Padded, length_groups
from augury.lm.chat import End, Span, Transcript, is_conversation, transcript_of
from augury.lm.finite import finite
from augury.lm.load import LanguageModel, needs_model
from augury.lm.locks import alone
from augury.lm.shared import SharedBatch, forward_shared, full_mask, share_prefix, take_rows
from augury.lm.values import is_number, is_whole

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
    step: Callable[[int], None] | None = None,
) -> list[list[list[int]]]:
    """Continue every row of a batch, `samples` times each, from one shared prefill.

    Args:
        lm: The model, with the adapters that should answer already on.
        batch: The prompts, left-padded, with what they all begin with split off or not.
        sampling: How tokens are chosen.
        samples: Continuations per row.
        prefill: A context entered around the prefill only (where activations are injected).
        step: Called with the number of rows still running after each token.

    Returns:
        For each row its continuations: new token ids, the end token included where one was reached.
    """
    shared = batch if isinstance(batch, SharedBatch) else SharedBatch((), batch)
    with torch.no_grad():
        out = forward_shared(lm, shared, 1, prefill(), use_cache=True)
        rows = len(shared.padded.offsets) * samples
        last = shared.padded.position_ids[:, -1] + len(shared.prefix)
        state = _State(
            cache=_repeat(out.past_key_values, len(shared.padded.offsets), samples),
            logits=out.logits[:, -1].repeat_interleave(samples, 0),
            mask=full_mask(shared).repeat_interleave(samples, 0),
            position=last.repeat_interleave(samples, 0) + 1,
            alive=list(range(rows)),
        )
        texts = _loop(lm, state, sampling, rows, step)
    return [texts[i : i + samples] for i in range(0, rows, samples)]


@dataclass
class _State:
    cache: Any
    logits: Tensor  # [alive, vocab]
    mask: Tensor  # [alive, width]
    position: Tensor  # [alive]
    alive: list[int]


def _loop(
    lm: LanguageModel, state: _State, sampling: Sampling, rows: int, step: Callable[[int], None] | None
) -> list[list[int]]:
    generator = torch.Generator(device=state.logits.device).manual_seed(sampling.seed)
    ends = set(lm.end_ids)
    texts: list[list[int]] = [[] for _ in range(rows)]
    for count in range(1, sampling.max_new_tokens + 1):
        chosen = choose(finite(state.logits), sampling, generator)
        for row, token in zip(state.alive, chosen.tolist(), strict=True):
            texts[row].append(token)
        going = [i for i, row in enumerate(state.alive) if texts[row][-1] not in ends]
        if step is not None:
            step(len(going))
        if not going or count == sampling.max_new_tokens:
            break
        _advance(lm, state, chosen, going)
    return texts


def _advance(lm: LanguageModel, state: _State, chosen: Tensor, going: list[int]) -> None:
    if len(going) < len(state.alive):
        index = torch.tensor(going, device=chosen.device)
        state.cache = take_rows(state.cache, index)
        state.mask, state.position, chosen = state.mask[index], state.position[index], chosen[index]
        state.alive = [state.alive[i] for i in going]
    state.mask = torch.cat([state.mask, torch.ones_like(state.mask[:, :1])], 1)
    out = lm.model(
        input_ids=chosen[:, None],
        attention_mask=state.mask,
        position_ids=state.position[:, None],
        past_key_values=state.cache,
        use_cache=True,
    )
    state.cache, state.logits, state.position = out.past_key_values, out.logits[:, -1], state.position + 1


def choose(logits: Float[Tensor, "rows vocab"], sampling: Sampling, generator: torch.Generator) -> Int[Tensor, " rows"]:
    """The next token of each row of `logits` `[rows, vocab]`."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scaled = logits.float() / sampling.temperature
    if sampling.top_p == 1:
        return torch.multinomial(scaled.softmax(-1), 1, generator=generator)[:, 0]
    kept, order = _nucleus(scaled, sampling.top_p)
    drawn = torch.multinomial(kept, 1, generator=generator)
    return order.gather(-1, drawn)[:, 0]


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


def _repeat(cache: Any, rows: int, samples: int) -> Any:
    if samples == 1:
        return cache
    return take_rows(cache, torch.arange(rows).repeat_interleave(samples))


def generate(
    lm: LanguageModel,
    messages: Any,
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    end: End | None = None,
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

    Returns:
        The whole transcript; its last span, of role `assistant`, is what was generated.

    Raises:
        InputError: Nothing to read, no room in the model's context for that many new tokens, or another ending.
    """
    return generate_batch(lm, [messages], Sampling(max_new_tokens, temperature, top_p, seed), end=end)[0]


def generate_batch(
    lm: LanguageModel,
    conversations: Sequence[Any],
    sampling: Sampling,
    *,
    end: End | None = None,
    step: Callable[[int], None] | None = None,
) -> list[Transcript]:
    """`generate` for several conversations in one batch."""
    needs_model(lm)
    with alone(lm.model):
        return _generate(lm, conversations, sampling, end, step)


def _generate(
    lm: LanguageModel,
    conversations: Sequence[Any],
    sampling: Sampling,
    end: End | None,
    step: Callable[[int], None] | None,
) -> list[Transcript]:
    starts = [started(lm, item, end, sampling.max_new_tokens) for item in conversations]
    rows = [start.token_ids for start in starts]
    texts: list[list[int]] = [[] for _ in rows]
    with adapters_on(lm.model, lm.target_adapters):
        for group in _groups(lm, rows):
            members = [rows[i] for i in group]
            batch = share_prefix(lm, members, len(members[0]), sampling.max_new_tokens)
            for i, found in zip(group, decode(lm, batch, sampling, step=step), strict=True):
                texts[i] = found[0]
    return [extended(start, text, lm) for start, text in zip(starts, texts, strict=True)]


def _groups(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """All rows in one batch, or batches of one length where padding would leak."""
    if len(rows) < 2 or lm.pads_cleanly:
        return [list(range(len(rows)))]
    return length_groups([len(row) for row in rows], len(rows), equal=True)


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
