"""Answers, scores and scans as JSON, both ways: what `to_dict` writes is read again as the same thing.

These models are the schema of what a service sends, and of what `--json` prints.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from augury.activations import Provenance
from augury.contract import ModelIdentity
from augury.oracle.answers import Answer, Method, Scan, Score, Settings, Source, Unavailable
from augury.oracle.consensus import Group


class Wire(BaseModel):
    """What is sent: nothing changes it, and a newer release may add to it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TargetOut(Wire):
    """Whose activations were read, when, and how."""

    model: ModelIdentity | None
    adapters: tuple[str, ...]
    dtype: str
    captured: str
    kind: str
    versions: dict[str, str]

    def provenance(self) -> Provenance:
        """As the package has it."""
        return Provenance(self.model, self.adapters, self.dtype, self.captured, self.kind, self.versions)


class SettingsOut(Wire):
    """How an answer was decoded."""

    samples: int
    temperature: float
    max_new_tokens: int
    seed: int


class GroupOut(Wire):
    """Samples that give one answer."""

    text: str
    count: int


class UnavailableOut(Wire):
    """A control that cannot be made, and why."""

    available: Literal[False]
    reason: str

    def result(self) -> Unavailable:
        """As the package has it."""
        return Unavailable(self.reason)


class ResultOut(Wire):
    """What every result says of where it comes from."""

    oracle: str
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    read_text: str | None
    coefficient: float
    trained_coefficient: float
    target: TargetOut
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    versions: dict[str, str]

    def _source(self) -> dict[str, Any]:
        source = Source(
            self.oracle,
            self.layers,
            self.positions,
            self.coefficient,
            self.trained_coefficient,
            self.target.provenance(),
            self.read_text,
        )
        return {"source": source, "warnings": self.warnings, "notes": self.notes, "versions": self.versions}


class AnswerOut(ResultOut):
    """An answer in words."""

    kind: Literal["answer"]
    question: str
    text: str
    token_ids: tuple[int, ...]
    samples: tuple[str, ...]
    groups: tuple[GroupOut, ...]
    agreement: float | None
    same_as_real: float | None
    controls: dict[str, AnswerOut | UnavailableOut]
    settings: SettingsOut

    def result(self) -> Answer:
        """As the package has it."""
        return Answer(
            text=self.text,
            question=self.question,
            token_ids=self.token_ids,
            settings=Settings(**self.settings.model_dump()),
            samples=self.samples,
            groups=tuple(Group(group.text, group.count) for group in self.groups),
            agreement=self.agreement,
            same_as_real=self.same_as_real,
            controls={name: control.result() for name, control in self.controls.items()},
            **self._source(),
        )


class ScoreOut(ResultOut):
    """A question with given choices, scored."""

    kind: Literal["score"]
    question: str
    choices: tuple[str, ...]
    choice: str
    log_probs: dict[str, float]
    margin: float
    probability: float
    mass: float
    percentile: float | None
    donor_median: float | None
    donor_margins: tuple[float, ...]
    value: float | None
    method: Method
    spellings: tuple[tuple[str, ...], ...]
    controls: dict[str, ScoreOut | UnavailableOut]

    def result(self) -> Score:
        """As the package has it."""
        return Score(
            question=self.question,
            choices=self.choices,
            log_probs=tuple(self.log_probs[choice] for choice in self.choices),
            margin=self.margin,
            probability=self.probability,
            mass=self.mass,
            method=self.method,
            spellings=self.spellings,
            percentile=self.percentile,
            donor_median=self.donor_median,
            donor_margins=self.donor_margins,
            controls={name: control.result() for name, control in self.controls.items()},
            **self._source(),
        )


class ScanOut(ResultOut):
    """One yes/no question at every position."""

    kind: Literal["scan"]
    question: str
    choices: tuple[str, ...]
    tokens: tuple[str, ...]
    margins: tuple[float, ...]
    masses: tuple[float, ...]
    values: tuple[float, ...]
    donor_median: float | None
    window: int

    def result(self) -> Scan:
        """As the package has it."""
        return Scan(
            question=self.question,
            choices=self.choices,
            token_texts=self.tokens,
            margins=self.margins,
            masses=self.masses,
            values=self.values,
            donor_median=self.donor_median,
            window=self.window,
            **self._source(),
        )


AnyOut = Annotated[AnswerOut | ScoreOut | ScanOut, Field(discriminator="kind")]
