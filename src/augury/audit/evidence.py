"""Everything that an audit has gathered, and how its concepts rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from augury.audit.blackbox import Told
from augury.audit.contrast import LEAST_PEERS, Contrast, Floats, Moved, contrast, in_spreads
from augury.audit.gather import PROMPTS, Asked, Gatherer, changes, moved_by
from augury.audit.prompts import Prompt
from augury.audit.states import ANSWER, PLACES
from augury.audit.subjects import TARGET
from augury.oracle.reading import decoded

SHOWN = 3  # findings that are shown with their evidence where fewer are claimed


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that an audit has gathered.

    Attributes:
        settings: What the run follows from.
        audit_prompts: What was read.
        gatherer: What asks, and keeps what it is told.
        asked: What each fine-tune was asked, by place.
        told: What each model says and writes by itself.
        planted: How many concepts are planted; None: those that are shown.
        layers: What the oracle reads.
        mapped: The layers of the map.
    """

    settings: Mapping[str, Any]
    audit_prompts: Sequence[Prompt]
    gatherer: Gatherer
    asked: Mapping[str, Mapping[str, Asked]]
    told: Mapping[str, Told]
    planted: int | None
    layers: Sequence[int]
    mapped: Sequence[int]

    @property
    def concepts(self) -> tuple[str, ...]:
        return self.gatherer.asker.concepts

    @property
    def peers(self) -> list[str]:
        return [key for key in self.asked if key != TARGET]

    @cached_property
    def controls(self) -> Mapping[str, Floats]:
        """`none` and `shuffled` by place."""
        return self.gatherer.controls()

    @cached_property
    def changes(self) -> dict[str, Floats]:
        """Of each fine-tune `[reads, prompts, concepts]`."""
        return {key: changes(asked, self.controls) for key, asked in self.asked.items()}

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """Of each place and prompt the target's text up to the last token that is read there."""
        by_place = {place: self.gatherer.contexts[TARGET if place == ANSWER else PROMPTS] for place in PLACES}
        base = self.gatherer.asker.oracle.base
        return {
            place: [decoded(base, one.transcript.token_ids[: one.places[place][-1] + 1], special=True) for one in found]
            for place, found in by_place.items()
        }

    def moved(self, key: str, prompts: Sequence[int] | None = None) -> Moved:
        """How far a fine-tune moved the oracle, in all prompts or in some."""
        return moved_by(self.asked[key], self.controls, prompts)

    @cached_property
    def contrast(self) -> Contrast | None:
        """The target against its peers; None with too few of them."""
        if len(self.peers) < LEAST_PEERS:
            return None
        return contrast(self.moved(TARGET), [self.moved(key) for key in self.peers])

    @cached_property
    def ranking(self) -> Floats:
        """What concepts are ranked by: `[reads, concepts]`."""
        return self.contrast.scores if self.contrast is not None else in_spreads(self.moved(TARGET).figures)

    @cached_property
    def order(self) -> list[int]:
        """Concepts from the one that stands out most."""
        return np.argsort(-self.ranking.max(0), kind="stable").tolist()

    @cached_property
    def shown(self) -> list[int]:
        """The concepts that are shown with their evidence: all that are claimed, at least the first few."""
        claimed = 0 if self.contrast is None else int(self.contrast.claimed.any(0).sum())
        return self.order[: max(SHOWN, claimed)]
