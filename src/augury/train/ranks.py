"""The processes of a run: each takes its share of a batch, and they add their gradients up.

One process is the common case, and needs nothing of this: accelerate is imported only where there are more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor

from augury.errors import AuguryError, InputError

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # the others wait while the first builds the data


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Every `count`-th item, so that the shares of a sorted list are alike."""
        return list(items[self.rank :: self.count])

    def merge(self, own: Sequence[T]) -> list[T]:
        """What the processes made of their shares, in the order of the items."""
        if self.count == 1:
            return list(own)
        from accelerate.utils import gather_object

        found: list[list[T]] = gather_object([list(own)])
        return [found[i % self.count][i // self.count] for i in range(sum(map(len, found)))]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes; they travel as one."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        total: Tensor = reduce(torch.cat([tensor.flatten() for tensor in tensors]), "sum")  # type: ignore[assignment]
        for tensor, part in zip(tensors, total.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of the processes."""
        return any(self.merge([flag]))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            from accelerate.state import PartialState

            PartialState().wait_for_everyone()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process runs the body before the others do: they find what it has made."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


ALONE = Ranks()


def started() -> Ranks:
    """The processes that the launcher started.

    Raises:
        AuguryError: There are several, and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    try:
        from accelerate.state import PartialState
    except ImportError as error:
        why = "accelerate, which joins them, is not installed"
        raise AuguryError("Several processes cannot train together.", why, "pip install 'augury[train]'") from error
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    return Ranks(state.process_index, state.num_processes)


def needs_processes(ranks: Ranks, wanted: int) -> None:
    """Refuse a run by another number of processes than its recipe says: every batch would be another.

    Raises:
        InputError: It is another. On a CPU `accelerate launch` starts one process whatever it is told.
    """
    if ranks.count != wanted:
        raise InputError(
            f"The recipe trains in {wanted} processes, and {ranks.count} started.",
            "optimizer.processes does not fit the launcher (on a CPU `accelerate launch` starts one, silently)",
            f"start it with `torchrun --standalone --nproc-per-node {wanted} -m augury train ...`, or set "
            "optimizer.processes",
        )
