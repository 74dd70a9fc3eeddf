"""What an oracle gives back: answers, scores and scans, each with what is needed to judge and to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from augury.activations import Provenance
from augury.activations.versions import versions
from augury.oracle import show
from augury.oracle.consensus import Group

Method = Literal["first-token", "whole-choice"]
LEAST_MASS = 0.5


@dataclass(frozen=True)
class Unavailable:
    """A control that cannot be made, and why."""

    reason: str

    def __str__(self) -> str:
        return f"not available ({self.reason})"

    def to_dict(self) -> dict[str, Any]:
        return {"available": False, "reason": self.reason}


@dataclass(frozen=True)
class Source:
    """What was read and by which oracle.

    Attributes:
        oracle: The oracle's name: a hub id, a folder or an alias.
        layers: The layers read, in the order of the slots.
        positions: The token positions read.
        coefficient: The injection's coefficient that was used.
        trained_coefficient: The contract's.
        provenance: Where the activations came from.
        text: The read tokens as text; None for a bare tensor.
        adapters: The adapters that were on while this was answered.
    """

    oracle: str
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    coefficient: float
    trained_coefficient: float
    provenance: Provenance
    text: str | None = None
    adapters: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        target = self.provenance.model
        return {
            "oracle": self.oracle,
            "layers": list(self.layers),
            "positions": list(self.positions),
            "read_text": self.text,
            "coefficient": self.coefficient,
            "trained_coefficient": self.trained_coefficient,
            "target": {
                "model": None if target is None else target.model_dump(),
                "adapters": list(self.provenance.adapters),
                "dtype": self.provenance.dtype,
                "captured": self.provenance.created,
                "kind": self.provenance.kind,
                "versions": dict(self.provenance.versions),
            },
        }


@dataclass(frozen=True)
class Settings:
    """How an answer was decoded: `samples` 0 is one greedy answer."""

    samples: int = 0
    temperature: float = 0.0
    max_new_tokens: int = 24
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
        }


class _Shown:
    """Printing, for a terminal and a notebook."""

    def __str__(self) -> str:
        return show.plain(self)

    def __repr__(self) -> str:
        """One line, so that a list or a debugger is not flooded; `print` shows all."""
        return f"<{type(self).__name__} {show.brief(self)}>"

    def __rich__(self) -> Any:
        return show.rich_table(self)

    def _repr_html_(self) -> str:
        return show.html(self)


class _Sourced:
    """The parts of the source that are asked for most."""

    source: Source

    @property
    def oracle(self) -> str:
        return self.source.oracle

    @property
    def layers(self) -> tuple[int, ...]:
        return self.source.layers

    @property
    def positions(self) -> tuple[int, ...]:
        return self.source.positions

    @property
    def coefficient(self) -> float:
        return self.source.coefficient

    @property
    def provenance(self) -> Provenance:
        """Which target was read, when and how."""
        return self.source.provenance


@dataclass(frozen=True, repr=False)
class Answer(_Shown, _Sourced):
    """An answer in words.

    Attributes:
        text: The greedy answer; with samples the first of the largest group.
        question: As asked.
        token_ids: The ids of `text`, its end token included where it was reached.
        source: What was read, by which oracle.
        settings: How it was decoded.
        samples: All sampled answers, empty for a greedy one. Of the control `shuffled`: one greedy answer per donor.
        groups: The samples by answer, largest group first.
        agreement: The share of the largest group; None with fewer than two samples and above five words.
        same_as_real: Of a control only: the share of its answers that equal the real one (normalised).
        controls: The same question under each control.
        warnings: What speaks against this answer.
        notes: What could not be checked.
    """

    text: str
    question: str
    token_ids: tuple[int, ...]
    source: Source
    settings: Settings = Settings()
    samples: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    agreement: float | None = None
    same_as_real: float | None = None
    controls: Mapping[str, Answer | Unavailable] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=versions)

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON-ready fields."""
        return {
            "kind": "answer",
            "question": self.question,
            "text": self.text,
            "token_ids": list(self.token_ids),
            "samples": list(self.samples),
            "groups": [{"text": group.text, "count": group.count} for group in self.groups],
            "agreement": self.agreement,
            "same_as_real": self.same_as_real,
            "controls": {name: control.to_dict() for name, control in self.controls.items()},
            "settings": self.settings.to_dict(),
            **_common(self),
        }


@dataclass(frozen=True, repr=False)
class Score(_Shown, _Sourced):
    """A question with given choices, scored.

    Attributes:
        question: As it went to the oracle, prefix included.
        choices: The choices, the first of which `margin` and `probability` are about.
        log_probs: The log-probability of each choice.
        margin: Log-odds of the first choice against all others together. It means nothing by itself: compare it with
            `donor_median`, or by `percentile`.
        probability: Of the first choice, among the choices.
        mass: The probability that the choices have together; below 0.5 the oracle is not answering.
        percentile: Share of the donors' margins below this one, 0 to 100; None where no donors were asked.
        donor_median: The (lower) median of the donors' margins.
        donor_margins: The margins of all donors.
        method: Whether the first token or the whole choice was scored.
        spellings: For `first-token`: the spellings that were added up, per choice.
        controls: The same question under each control.
    """

    question: str
    choices: tuple[str, ...]
    log_probs: tuple[float, ...]
    margin: float
    probability: float
    mass: float
    method: Method
    spellings: tuple[tuple[str, ...], ...]
    source: Source
    percentile: float | None = None
    donor_median: float | None = None
    donor_margins: tuple[float, ...] = ()
    controls: Mapping[str, Score | Unavailable] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=versions)

    @property
    def choice(self) -> str:
        """The likeliest choice."""
        return self.choices[max(range(len(self.choices)), key=lambda i: self.log_probs[i])]

    @property
    def value(self) -> float | None:
        """The margin above the donors' median; None where no donors were asked."""
        return None if self.donor_median is None else self.margin - self.donor_median

    def to_dict(self) -> dict[str, Any]:
        """The score as JSON-ready fields."""
        return {
            "kind": "score",
            "question": self.question,
            "choices": list(self.choices),
            "choice": self.choice,
            "log_probs": dict(zip(self.choices, self.log_probs, strict=True)),
            "margin": self.margin,
            "probability": self.probability,
            "mass": self.mass,
            "percentile": self.percentile,
            "donor_median": self.donor_median,
            "donor_margins": list(self.donor_margins),
            "value": self.value,
            "method": self.method,
            "spellings": [list(spelled) for spelled in self.spellings],
            "controls": {name: control.to_dict() for name, control in self.controls.items()},
            **_common(self),
        }


@dataclass(frozen=True, repr=False)
class Scan(_Shown, _Sourced):
    """One yes/no question at every position.

    Attributes:
        question: As it went to the oracle, prefix included.
        choices: The two choices; margins are those of the first.
        token_texts: The token at each position (for a bare tensor its number).
        margins: One per position, raw.
        masses: The probability that the choices have together, one per position.
        donor_median: The median margin of donors with as many slots as `window`; None without donors.
        values: What a heat map shows: each margin less the median of donors with as many slots (raw without donors).
        window: How many positions each score reads: this one and those left of it.
    """

    question: str
    choices: tuple[str, ...]
    token_texts: tuple[str, ...]
    margins: tuple[float, ...]
    masses: tuple[float, ...]
    values: tuple[float, ...]
    donor_median: float | None
    window: int
    source: Source
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=versions)

    def to_dict(self) -> dict[str, Any]:
        """The scan as JSON-ready fields."""
        return {
            "kind": "scan",
            "question": self.question,
            "choices": list(self.choices),
            "tokens": list(self.token_texts),
            "margins": list(self.margins),
            "masses": list(self.masses),
            "values": list(self.values),
            "donor_median": self.donor_median,
            "window": self.window,
            **_common(self),
        }


def _common(result: Answer | Score | Scan) -> dict[str, Any]:
    return {
        **result.source.to_dict(),
        "warnings": list(result.warnings),
        "notes": list(result.notes),
        "versions": dict(result.versions),
    }
