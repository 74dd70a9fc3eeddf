"""Run the rows of a batch one behind the other, without padding, behind the tokens that all of them begin with.

All of a model but its attention works token by token, so a batch can be one long row: the shared prefix once, then each
row's own tokens at their own positions. Attention alone is taken row by row, each behind the prefix. Nothing is padded
where the time goes, the prefix costs no pass of its own, and logits are made at the labels only. Not every model is
made so (recurrent states, windows, biases): whether one is, is found by trying, and it is padded as before where not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from augury.lm.adapters import adapters_on
from augury.lm.blocks import text_config
from augury.lm.load import LanguageModel
from augury.lm.shared import common_prefix

log = logging.getLogger(__name__)
_NAME = "augury_packed"  # what transformers calls the attention below


@dataclass(frozen=True)
class Layout:
    """Where attention finds the rows in the pack; the prefix is the first of them.

    Attributes:
        queries: `[rows, width]`, the columns of each row's own tokens; behind its end some column or other.
        keys: `[rows, prefix + width]`, the columns that they may see.
        seen: `[rows, width, prefix + width]`, whether they do.
        places: `[tokens]`, where each column stands in `queries`, flattened.
    """

    queries: Tensor
    keys: Tensor
    seen: Tensor
    places: Tensor


@dataclass(frozen=True)
class Packed:
    """Rows one behind the other, behind a prefix that all share.

    Attributes:
        prefix: The shared token ids, possibly none.
        token_ids: `[1, tokens]`, the prefix and then each row's own tokens.
        position_ids: `[1, tokens]`, each row's counted on from the prefix.
        offsets: What to add to a position of a whole row to get its column.
        ends: `[rows]`, the column behind each row's last.
        layout: Of attention.
    """

    prefix: tuple[int, ...]
    token_ids: Tensor
    position_ids: Tensor
    offsets: tuple[int, ...]
    ends: Tensor
    layout: Layout

    @property
    def tokens(self) -> int:
        """Tokens that go through the model."""
        return self.token_ids.shape[1]


_LAYOUT: ContextVar[Layout] = ContextVar("layout")


def pack(lm: LanguageModel, rows: Sequence[Sequence[int]], limit: int) -> Packed:
    """Lay rows one behind the other, what all begin with (at most `limit` tokens, never a whole row) only once."""
    length = min(common_prefix(rows), limit, *(len(row) - 1 for row in rows))
    own = [row[length:] for row in rows]
    ends = torch.tensor([len(row) for row in own]).cumsum(0) + length
    starts = [length, *ends[:-1].tolist()]
    ids = [*rows[0][:length], *(token for row in own for token in row)]
    positions = [*range(length), *(length + i for row in own for i in range(len(row)))]
    to = lm.device
    return Packed(
        tuple(rows[0][:length]),
        torch.tensor([ids], device=to),
        torch.tensor([positions], device=to),
        tuple(start - length for start in starts),
        ends.to(to),
        _layout(length, [range(0, length), *map(range, starts, ends.tolist())], to),
    )


def _layout(prefix: int, spans: Sequence[range], device: torch.device) -> Layout:
    lengths = torch.tensor([len(span) for span in spans])
    starts, width = torch.tensor([span.start for span in spans]), int(lengths.max())
    across = torch.arange(width)
    queries = (starts[:, None] + across).clamp(max=spans[-1].stop - 1)
    keys = torch.cat([torch.arange(prefix).expand(len(spans), prefix), queries], 1)
    seen = torch.ones(len(spans), width, prefix + width, dtype=torch.bool).tril(prefix)
    seen[0, :, :prefix] = False  # the prefix stands among the rows, where it sees itself
    places = torch.nonzero((across < lengths[:, None]).flatten()).flatten()
    return Layout(*(tensor.to(device) for tensor in (queries, keys, seen, places)))


def label_logits(
    lm: LanguageModel, batch: Packed, labelled: Tensor, around: AbstractContextManager[Any] | None = None
) -> Tensor:
    """The logits before each label, `[labels, vocab]`, row by row.

    Args:
        lm: The model, with the adapters that should run already on.
        batch: The rows.
        labelled: `[rows, keep]`, which of each row's last tokens are labels; never the first behind the prefix.
        around: Entered around the pass (injection goes here).
    """
    keep = labelled.shape[1]
    before = batch.ends[:, None] + torch.arange(-keep - 1, -1, device=batch.ends.device)
    with around or nullcontext(), _attending(lm, batch.layout):
        return lm.model(
            input_ids=batch.token_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            logits_to_keep=before[labelled],
        ).logits[0]


def packs(lm: LanguageModel, longest: int) -> bool:
    """Whether rows of up to this length can be packed: the model was tried, and no window is narrower."""
    key = "packs rows"
    if key not in lm.memo:
        lm.memo[key] = _fits(lm) and _leak(lm) <= (1e-3 if lm.dtype == torch.float32 else 0.05)
    return lm.memo[key] and lm.shares_prefixes and (lm.sliding_window is None or longest <= lm.sliding_window)


def _fits(lm: LanguageModel) -> bool:
    """Whether its attention is the usual one, which can be taken row by row."""
    return lm.keeps_logits and getattr(text_config(lm.model), "_attn_implementation", None) == "sdpa"


def _leak(lm: LanguageModel, shared: int = 5, length: int = 6) -> float:
    """How far packing moves the last logits of a row, relative to their norm; infinitely far where it cannot be."""
    ids = [(7 * i + 3) % min(lm.vocab_size, 997) for i in range(shared + length)]
    other = [*ids[:shared], *ids[:length], *ids[:3]]
    with torch.no_grad(), adapters_on(lm.model, lm.target_adapters):
        alone = lm.logits(1, input_ids=torch.tensor([ids], device=lm.device))[0, -1].float()
        try:
            last = torch.tensor([[True], [True]], device=lm.device)
            found = label_logits(lm, pack(lm, [other, [*ids, 0]], shared), last)[1].float()
        except (RuntimeError, TypeError, ValueError, IndexError, LookupError) as error:
            log.info("the rows of %s are padded: packed they do not run (%s)", lm.name, error)
            return math.inf
    return float((found - alone).norm() / alone.norm())


@contextmanager
def _attending(lm: LanguageModel, layout: Layout) -> Iterator[None]:
    """Inside, attention is taken row by row."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _row_by_row)
    config = text_config(lm.model)
    before, token = config._attn_implementation, _LAYOUT.set(layout)
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _LAYOUT.reset(token)


def _row_by_row(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention over `[1, heads, tokens, dim]`, as transformers calls it; `[1, tokens, heads, dim]`."""
    layout = _LAYOUT.get()
    by_rows = (_taken(query, layout.queries), _taken(key, layout.keys), _taken(value, layout.keys))
    if _by_hand(query, kwargs):
        found = _grouped(*by_rows, layout.seen, kwargs.get("scaling"))
    else:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found, _ = sdpa_attention_forward(module, *by_rows, layout.seen[:, None], **kwargs)
    return found.flatten(0, 1).index_select(0, layout.places)[None], None


def _by_hand(query: Tensor, kwargs: dict[str, Any]) -> bool:
    """Whether this is attention and nothing more, on a CPU."""
    more = ("position_bias", "softcap", "s_aux", "dropout")
    return query.device.type == "cpu" and not any(kwargs.get(name) not in (None, 0.0) for name in more)


def _taken(tensor: Tensor, columns: Tensor) -> Tensor:
    """`[1, heads, tokens, dim]` to `[rows, heads, width, dim]`."""
    return tensor[0].index_select(1, columns.flatten()).unflatten(1, columns.shape).transpose(0, 1)


def _grouped(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scaling: float | None) -> Tensor:
    """Attention in plain products, the query heads of one key head together; `[rows, width, heads, dim]`.

    On a CPU this takes a third of the time that torch's fused attention takes for many short rows and their gradients.
    """
    rows, heads, width, dim = query.shape
    together = query.reshape(rows, key.shape[1], -1, dim)
    scores = (together @ key.transpose(-1, -2)).float() * (scaling or dim**-0.5)
    scores = scores.unflatten(2, (-1, width)).masked_fill(~seen[:, None, None], -math.inf)
    found = scores.softmax(-1).to(value.dtype).flatten(2, 3) @ value
    return found.view(rows, heads, width, value.shape[-1]).transpose(1, 2)
