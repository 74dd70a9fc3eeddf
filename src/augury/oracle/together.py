"""Several questions about one reading: what their prompts begin with, slots and all, is run once and shared.

The question follows the slots, so all wordings of it continue one prefill. Where a model does not stand padding between
the two (recurrent states, short sliding windows), every row is run whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from augury.errors import ModelError
from augury.lm import Sampling
from augury.lm.adapters import adapters_on
from augury.lm.finite import finite
from augury.lm.generate import Running, continued, keep_rows, prefilled, read_on
from augury.lm.logprobs import label_logprobs
from augury.lm.shared import common_prefix, forward_shared, full_mask, share_prefix
from augury.oracle.passes import Row, Runner
from augury.oracle.prompt import Prompt

T = TypeVar("T")


@dataclass
class Work:
    """What was run, for those who want to know that nothing was run twice.

    Attributes:
        prefixes: Beginnings of prompts that were prefilled, each for all of its questions.
        rows: Questions that continued them.
        tokens: Tokens that went through the model before any answer, padding left out.
    """

    prefixes: int = 0
    rows: int = 0
    tokens: int = 0

    def add(self, other: Work) -> None:
        """What was run besides."""
        self.prefixes += other.prefixes
        self.rows += other.rows
        self.tokens += other.tokens


@dataclass(frozen=True, eq=False)
class Forced:
    """A given continuation's tokens.

    Attributes:
        log_probs: `[tokens]`, float32.
        likeliest: `[tokens]`, whether each is the likeliest after those before it.
    """

    log_probs: Tensor
    likeliest: Tensor


@dataclass(frozen=True, eq=False)
class Decoded:
    """A row's answer.

    Attributes:
        token_ids: The end token included where there is one.
        log_probs: `[tokens]` of these, float32.
        samples: Token ids of others that were drawn.
    """

    token_ids: list[int]
    log_probs: Tensor
    samples: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Group:
    """Rows with the same activations in the same slots: one reading, several questions.

    Attributes:
        rows: The questions' rows, at least one.
        shared: How many tokens they begin with alike; all slots are among them. 0 for one row.
    """

    rows: tuple[Row, ...]
    shared: int

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Group:
        """The rows of one reading.

        Raises:
            ModelError: They have other activations or slots: a fault in what called it.
        """
        first = rows[0]
        if any(row.vectors is not first.vectors or row.prompt.slots != first.prompt.slots for row in rows):
            why = "their activations or slots differ"
            raise ModelError("These questions share no reading.", why, "this is a fault: report it")
        if len(rows) == 1:
            return cls(tuple(rows), 0)
        shared = min(common_prefix([row.prompt.token_ids for row in rows]), min(map(len, rows)) - 1)
        if shared <= max(first.prompt.slots, default=-1):
            why = f"they have {shared} tokens in common and the last slot is at {max(first.prompt.slots)}"
            raise ModelError("These questions share no slots.", why, "this is a fault of the prompt: report it")
        return cls(tuple(rows), shared)


def logprobs_together(
    runner: Runner, groups: Sequence[Group], token_ids: Sequence[int], work: Work | None = None
) -> list[Tensor]:
    """The log-probability of some tokens as the next one: for each group `[rows, tokens]`, float32 on the CPU."""
    found = torch.empty(sum(len(group.rows) for group in groups), len(token_ids))
    for places, logits, _ in _passes(runner, groups, None, 1, work):
        last = finite(logits[:, -1].float())
        found[places] = (last[:, list(token_ids)] - last.logsumexp(-1, keepdim=True)).cpu()
    return list(found.split([len(group.rows) for group in groups]))


def continuations_together(
    runner: Runner, groups: Sequence[Group], wanted: Sequence[Sequence[Sequence[int]]], work: Work | None = None
) -> list[list[Forced]]:
    """A given continuation of each row, teacher-forced: for each group and row its tokens."""
    tails = [list(tail) for group in wanted for tail in group]
    found: list[Forced] = [Forced(torch.empty(0), torch.empty(0))] * len(tails)
    for places, logits, _ in _passes(runner, groups, tails, max(map(len, tails)) + 1, work):
        for place, row in zip(places, logits, strict=True):
            labels = torch.tensor(tails[place], device=row.device)
            logits = finite(row[-len(labels) - 1 : -1].float())
            found[place] = Forced(label_logprobs(logits, labels).cpu(), (logits.argmax(-1) == labels).cpu())
    return _by_group(groups, found)


def decode_together(
    runner: Runner, groups: Sequence[Group], sampling: Sampling, work: Work | None = None, samples: int = 0
) -> list[list[Decoded]]:
    """What follows each row, and as many samples of it at temperature 1: all from one prefill.

    Returns:
        For each group its rows' answers.
    """
    found: list[Decoded] = [Decoded([], torch.empty(0))] * sum(len(group.rows) for group in groups)
    for places, _, state in _passes(runner, groups, None, 1, work, sampling.max_new_tokens):
        kept = deepcopy(state) if samples else None
        log_probs: list[list[Tensor]] = [[] for _ in places]
        texts = continued(runner.lm, state, sampling, chosen=partial(_note, log_probs))
        drawn: list[list[int]] = []
        if kept is not None:
            rows = keep_rows(kept, [row for row in range(len(places)) for _ in range(samples)])
            drawn = continued(runner.lm, rows, replace(sampling, temperature=1.0))
        for i, place in enumerate(places):
            more = drawn[i * samples : (i + 1) * samples]
            found[place] = Decoded(texts[i], torch.stack(log_probs[i]).float().cpu(), more)
    return _by_group(groups, found)


def _note(log_probs: list[list[Tensor]], rows: Sequence[int], logits: Tensor, chosen: Tensor) -> None:
    """Keep what each row's chosen token has, of all it might have been."""
    for row, value in zip(rows, label_logprobs(logits.float(), chosen), strict=True):
        log_probs[row].append(value)


def _by_group(groups: Sequence[Group], found: Sequence[T]) -> list[list[T]]:
    rest = iter(found)
    return [[next(rest) for _ in group.rows] for group in groups]


@dataclass(frozen=True, eq=False)
class _Unit:
    """What is run together: a group, or one row of it; `first` is its first row's place among all rows."""

    group: Group
    first: int
    tails: list[list[int]]

    @property
    def places(self) -> range:
        return range(self.first, self.first + len(self.group.rows))

    @property
    def longest(self) -> int:
        return max(len(row) + len(tail) for row, tail in zip(self.group.rows, self.tails, strict=True))


def _passes(
    runner: Runner,
    groups: Sequence[Group],
    tails: Sequence[list[int]] | None,
    keep: int,
    work: Work | None,
    new_tokens: int = 0,
) -> Iterator[tuple[list[int], Tensor, Running]]:
    """Batches of rows, by their places among all, with the logits `[rows, keep, vocab]` where row and tail end."""
    lm, told = runner.lm, work or Work()
    rows = sum(len(group.rows) for group in groups)
    units = _units(groups, tails or [[]] * rows)
    if not _stands_padding(runner, units, new_tokens):
        units = [single for unit in units for single in _singles(unit)]
    for run in (_shared, _whole):
        chosen = [unit for unit in units if bool(unit.group.shared) == (run is _shared)]
        most = max((len(unit.group.rows) for unit in chosen), default=1)
        for batch in lm.groups([unit.longest for unit in chosen], max(1, runner.batch_size // most)):
            members = [chosen[i] for i in batch]
            with torch.no_grad(), adapters_on(lm.model, runner.adapters):
                found = run(runner, members, keep, new_tokens, told)
                yield [place for unit in members for place in unit.places], *found


def _units(groups: Sequence[Group], tails: Sequence[list[int]]) -> list[_Unit]:
    found, first = [], 0
    for group in groups:
        found.append(_Unit(group, first, list(tails[first : first + len(group.rows)])))
        first += len(group.rows)
    return found


def _singles(unit: _Unit) -> Iterator[_Unit]:
    for place, row, tail in zip(unit.places, unit.group.rows, unit.tails, strict=True):
        yield _Unit(Group((row,), 0), place, [tail])


def _stands_padding(runner: Runner, units: Sequence[_Unit], new_tokens: int) -> bool:
    window = runner.lm.sliding_window
    fits = window is None or all(unit.longest + new_tokens <= window for unit in units)
    return fits and runner.lm.shares_prefixes


def _shared(runner: Runner, units: Sequence[_Unit], keep: int, new_tokens: int, work: Work) -> tuple[Tensor, Running]:
    """The beginnings once, then all questions behind them."""
    lm = runner.lm
    heads = [_head(unit.group) for unit in units]
    limit = min(min(head.prompt.slots, default=len(head)) for head in heads)
    batch = share_prefix(lm, [head.prompt.token_ids for head in heads], limit, new_tokens)
    state = prefilled(lm, batch, range(len(heads)), runner.injection(heads, batch.offsets))
    state = keep_rows(state, [place for place, unit in enumerate(units) for _ in unit.tails])
    rest = [
        [*row.prompt.token_ids[unit.group.shared :], *tail]
        for unit in units
        for row, tail in zip(unit.group.rows, unit.tails, strict=True)
    ]
    logits = read_on(lm, state, rest, keep)
    work.prefixes += len(heads)
    work.rows += len(rest)
    work.tokens += batch.tokens + sum(map(len, rest))
    return logits, state


def _whole(runner: Runner, units: Sequence[_Unit], keep: int, new_tokens: int, work: Work) -> tuple[Tensor, Running]:
    """Every row from its beginning."""
    lm = runner.lm
    rows = [row for unit in units for row in unit.group.rows]
    ids = [[*row.prompt.token_ids, *tail] for row, tail in zip(rows, (t for u in units for t in u.tails), strict=True)]
    batch = share_prefix(lm, ids, min(min(row.prompt.slots, default=len(row)) for row in rows), new_tokens)
    out = forward_shared(lm, batch, keep, runner.injection(rows, batch.offsets), use_cache=bool(new_tokens))
    position = batch.padded.position_ids[:, -1] + len(batch.prefix) + 1
    work.prefixes += len(rows)
    work.rows += len(rows)
    work.tokens += batch.tokens
    state = Running(out.past_key_values, out.logits[:, -1], full_mask(batch), position, list(range(len(rows))))
    return out.logits[:, -keep:], state


def _head(group: Group) -> Row:
    first = group.rows[0]
    return Row(Prompt(first.prompt.token_ids[: group.shared], first.prompt.slots), first.vectors)
