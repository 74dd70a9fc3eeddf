"""All padding and position arithmetic, in one place.

Sequences are padded on the left, so that the last real token of every row is the last column. Positions counted
from the start of an unpadded sequence become columns by adding the row's offset, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Padded:
    """A left-padded batch.

    Attributes:
        input_ids: `[batch, width]`, int64.
        attention_mask: `[batch, width]`, 1 on real tokens.
        position_ids: `[batch, width]`, each row counting from 0 at its first real token.
        offsets: Columns of padding before each row's first real token.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    offsets: tuple[int, ...]


def left_pad(sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device | str = "cpu") -> Padded:
    """Pad token id sequences on the left to the longest of them.

    Raises:
        ValueError: No sequence, or an empty one.
    """
    if not sequences or not all(len(row) for row in sequences):
        raise ValueError("every sequence of a batch needs at least one token")
    width = max(map(len, sequences))
    offsets = tuple(width - len(row) for row in sequences)
    ids = torch.tensor([[pad_id] * pad + list(row) for pad, row in zip(offsets, sequences, strict=True)], device=device)
    columns = torch.arange(width, device=device)
    relative = columns[None, :] - torch.tensor(offsets, device=device)[:, None]
    return Padded(ids, (relative >= 0).long(), relative.clamp(min=0), offsets)


def columns_of(offset: int, positions: Sequence[int]) -> list[int]:
    """The columns of a row's `positions` (counted from its first real token)."""
    return [offset + position for position in positions]


def length_groups(
    lengths: Sequence[int], batch_size: int, equal: bool = False, tokens: int | None = None
) -> list[list[int]]:
    """Split items into batches of similar length, longest first, so that a batch that does not fit fails at once.

    Args:
        lengths: Tokens of each item.
        batch_size: Items in a batch, at most.
        equal: Only items of one length share a batch (for models into whose state padding leaks).
        tokens: Padded tokens in a batch of two items or more, at most.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups: list[list[int]] = []
    for i in order:
        longest = lengths[groups[-1][0]] if groups else 0
        fits = groups and len(groups[-1]) < batch_size and (not equal or longest == lengths[i])
        fits = fits and (tokens is None or longest * (len(groups[-1]) + 1) <= tokens)
        if fits:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def chunks(count: int, size: int) -> Iterator[range]:
    """Consecutive ranges of at most `size` that cover `range(count)`."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
