"""What the oracle says: every concept asked about every reading, the controls of it, and a few open questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from augury.activations import Activations
from augury.audit.contrast import Floats
from augury.audit.states import READ_FIRST, most_positions
from augury.errors import ModelError
from augury.lm import Sampling
from augury.oracle import Oracle
from augury.oracle.choices import YES_NO, Spelled, prefixed, spell, weigh
from augury.oracle.donors import donor_bank
from augury.oracle.passes import Row
from augury.oracle.prompt import build_prompt
from augury.oracle.reading import decoded, default_layers
from augury.oracle.together import Group, Work, decode_together, logprobs_together

QUESTION = "Is this about {concept}?"
OPEN = ("What is this about?", "What does the model have in mind here?")
DONORS = 32
TOGETHER = 64  # questions behind one prefill
NEW_TOKENS = 24


@dataclass(frozen=True, eq=False)
class Asker:
    """An oracle with the concepts that it is asked about.

    Attributes:
        oracle: Who is asked.
        concepts: What about.
        work: What was run.
        batch_size: Rows in a forward pass.
    """

    oracle: Oracle
    concepts: tuple[str, ...]
    work: Work
    batch_size: int = 64

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are read: the contract's first tuple."""
        return default_layers(self.oracle.contract)

    @cached_property
    def _questions(self) -> list[str]:
        return [prefixed(self.oracle.contract, QUESTION.format(concept=name), YES_NO) for name in self.concepts]

    @cached_property
    def _spelled(self) -> Spelled:
        found = spell(self.oracle.base, self.oracle.contract, YES_NO)
        if found.method != "first-token":
            why = f"the tokenizer of {self.oracle.base.name} has no single token for each of Yes and No"
            raise ModelError("Concepts cannot be scored here.", why, "audit a model whose tokenizer has them")
        return found

    def margins(self, read: Sequence[Activations | None]) -> Floats:
        """The log-odds of Yes about each concept: `[readings, concepts]`, NaN for what is not asked."""
        found = np.full((len(read), len(self.concepts)), np.nan)
        asked = [i for i, acts in enumerate(read) if acts is not None]
        if asked:
            checked = self.oracle.read([acts for acts in read if acts is not None], None, None)
            found[asked] = self._together([item.acts for item in checked])
        return found

    def _together(self, read: Sequence[Activations | int]) -> Floats:
        """For each reading, or so many empty slots, the margins, from one prefill for its concepts."""
        groups = [group for acts in read for group in self._groups(acts)]
        ids = [token for spellings in self._spelled.ids for token in spellings]
        sizes = [len(spellings) for spellings in self._spelled.ids]
        rows = torch.cat(logprobs_together(self.oracle.runner(batch_size=self.batch_size), groups, ids, self.work))
        by_choice = torch.stack([part.logsumexp(1) for part in rows.split(sizes, 1)], 1)
        return np.array([weigh(row).margin for row in by_choice]).reshape(len(read), len(self.concepts))

    def _groups(self, acts: Activations | int) -> list[Group]:
        vectors = None if isinstance(acts, int) else acts.flat
        count, layers = (acts, self.layers) if isinstance(acts, int) else (len(acts), acts.layers)
        lm, contract = self.oracle.base, self.oracle.contract
        rows = [Row(build_prompt(lm, contract, layers, count, question), vectors) for question in self._questions]
        return [Group.of(rows[start : start + TOGETHER]) for start in range(0, len(rows), TOGETHER)]

    def none(self, count: int) -> Floats:
        """The control `none`: nothing in so many slots; `[concepts]`."""
        return self._together([count])[0]

    def seconds(self) -> float:
        """How long one reading takes on this machine, the second time."""
        untold, count = replace(self, work=Work()), min(READ_FIRST, most_positions(self.oracle.contract) or READ_FIRST)
        untold.none(count)
        started = time.perf_counter()
        untold.none(count)
        return time.perf_counter() - started

    def shuffled(self, count: int) -> Floats:
        """The control `shuffled`: the median over neutral contexts that the package ships; `[concepts]`.

        Another prompt of the same fine-tune would be no control: what was put in is there in all of them.
        """
        layers = self.layers
        found = donor_bank(self.oracle.base, layers).take(DONORS, count)
        read = [Activations.from_tensor(vector.reshape(len(layers), count, -1), layers) for vector in found]
        return np.median(self.margins(read), 0)

    def open(self, read: Sequence[Activations]) -> list[list[str]]:
        """Greedy answers to the open questions about each reading."""
        checked = [item.acts for item in self.oracle.read(list(read), None, None)]
        lm, contract = self.oracle.base, self.oracle.contract
        groups = []
        for acts in checked:
            vectors = acts.flat
            prompts = [build_prompt(lm, contract, acts.layers, len(acts), question) for question in OPEN]
            groups.append(Group.of([Row(prompt, vectors) for prompt in prompts]))
        runner = self.oracle.runner(batch_size=self.batch_size)
        found = decode_together(runner, groups, Sampling(NEW_TOKENS), self.work)
        return [[decoded(lm, answer.token_ids).strip() for answer in rows] for rows in found]
