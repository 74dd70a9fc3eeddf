"""Requests and replies of the service: the one source of its OpenAPI page and of the page's types."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from augury.contract import ModelIdentity
from augury.oracle.wire import AnswerOut, ScanOut, ScoreOut

MOST_TEXT, MOST_TOKENS, MOST_TURNS, MOST_QUESTIONS = 400_000, 100_000, 1000, 64
LONGEST_QUESTION = 4000

Layer = Annotated[int, Field(ge=0, le=10_000)]
Position = Annotated[int, Field(ge=-MOST_TOKENS, le=MOST_TOKENS)]
Question = Annotated[str, Field(min_length=1, max_length=LONGEST_QUESTION)]
Handle = Annotated[str, Field(min_length=1, max_length=100)]
Target = Annotated[str, Field(min_length=1, max_length=200)]
End = Literal["closed", "generation", "open", "thinking"]
BASE = "base"  # what the target without any adapter is called


class In(BaseModel):
    """A request: what it does not know is refused, since it would be left out in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Out(BaseModel):
    """A reply."""

    model_config = ConfigDict(frozen=True)


class MessageIn(In):
    """One turn."""

    role: Annotated[str, Field(min_length=1, max_length=32)]
    content: Annotated[str, Field(max_length=MOST_TEXT)]


class ContextIn(In):
    """What the target reads: exactly one of `text`, `messages` and `token_ids`.

    Attributes:
        text: Raw text.
        messages: A conversation.
        token_ids: Token ids, taken as they are.
        end: How a conversation ends; only with `messages`.
    """

    text: Annotated[str | None, Field(max_length=MOST_TEXT)] = None
    messages: Annotated[tuple[MessageIn, ...] | None, Field(max_length=MOST_TURNS)] = None
    token_ids: Annotated[tuple[Annotated[int, Field(ge=0)], ...] | None, Field(max_length=MOST_TOKENS)] = None
    end: End | None = None

    @model_validator(mode="after")
    def _one(self) -> ContextIn:
        given = [name for name in ("text", "messages", "token_ids") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"pass exactly one of text, messages and token_ids; given: {', '.join(given) or 'none'}")
        return self


class ReadingIn(In):
    """What the oracle is given: a `handle` of activations that are kept here, or a `context`.

    Attributes:
        handle: From `/v1/capture` or `/v1/activations`.
        context: It is captured for this request alone.
        layers: Layers to read; of a handle a selection among its own. None: the oracle's.
        positions: A selector such as `last 8`, `all` or `role(assistant)`, or indices; of a handle a selection.
        target: Which target reads the context; None: the base. A handle says by itself what was read.
    """

    handle: Handle | None = None
    context: ContextIn | None = None
    layers: Annotated[tuple[Layer, ...] | None, Field(min_length=1, max_length=64)] = None
    positions: Annotated[str, Field(max_length=1000)] | tuple[Position, ...] | None = None
    target: Target | None = None

    @model_validator(mode="after")
    def _one(self) -> ReadingIn:
        if (self.handle is None) == (self.context is None):
            raise ValueError("pass a handle or a context, and not both")
        if self.handle is not None and self.target is not None:
            raise ValueError("a target reads a context: what is kept under a handle was read already")
        return self


class AskedIn(In):
    """What every question needs.

    Attributes:
        reading: What is read.
        questions: One or more; each is answered by itself.
        oracle: Its name; None: the first that is served.
        coefficient: Of the injection; None: the contract's.
        donors: How many donors a percentile, a heat map and the control `shuffled` rest on; 0: none.
        stream: Whether parts are sent as they come, as server-sent events.
    """

    reading: ReadingIn
    questions: Annotated[tuple[Question, ...], Field(min_length=1, max_length=MOST_QUESTIONS)]
    oracle: Annotated[str | None, Field(max_length=200)] = None
    coefficient: float | None = None
    donors: Annotated[int, Field(ge=0, le=32)] = 32
    stream: bool = False


class AskIn(AskedIn):
    """Questions to answer in words.

    Attributes:
        samples: 0: one greedy answer.
        temperature: Of the samples.
        max_new_tokens: None: as the contract says.
        controls: Whether the same is asked under every control.
        seed: Of the samples.
    """

    samples: Annotated[int, Field(ge=0, le=1000)] = 0
    temperature: Annotated[float, Field(ge=0, le=10_000)] = 1.0
    max_new_tokens: Annotated[int | None, Field(ge=1, le=100_000)] = None
    controls: bool = False
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0


class ScoreIn(AskedIn):
    """Questions with given choices.

    Attributes:
        choices: Two or more.
        controls: Whether the same is scored under every control.
    """

    choices: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=32)] = (
        "Yes",
        "No",
    )
    controls: bool = False


class ScanIn(AskedIn):
    """Yes/no questions at every position.

    Attributes:
        window: How many positions each score reads: this one and those left of it.
    """

    window: Annotated[int, Field(ge=1, le=1000)] = 1


class CaptureIn(In):
    """A context whose activations are to be kept here.

    Attributes:
        context: What the target reads.
        layers: None: those that the oracle reads.
        positions: A selector, or indices.
        target: Which target reads it; None: the base.
        oracle: Whose layers are taken where none are named; None: the first that is served.
    """

    context: ContextIn
    layers: Annotated[tuple[Layer, ...] | None, Field(min_length=1, max_length=64)] = None
    positions: Annotated[str, Field(max_length=1000)] | tuple[Position, ...] = "all"
    target: Target | None = None
    oracle: Annotated[str | None, Field(max_length=200)] = None


class DiffIn(In):
    """Two handles of the caller, captured from the same tokens at the same layers and positions.

    Attributes:
        finetuned: What the fine-tune gave.
        base: What the base gave.
    """

    finetuned: Handle
    base: Handle


class TokenizeIn(In):
    """A context to be shown as tokens."""

    context: ContextIn


class GenerateIn(In):
    """A context that the target is to go on from.

    Attributes:
        context: What the target reads.
        max_new_tokens: At most so many.
        temperature: 0 is greedy.
        top_p: Nucleus sampling.
        seed: Of the sampling.
        target: Which target writes; None: the base.
        stream: Whether what has been written so far is sent as it comes, as server-sent events.
    """

    context: ContextIn
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 128
    temperature: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    target: Target | None = None
    stream: bool = False


class SpanOut(Out):
    """The positions `[start, stop)` of one turn's content."""

    role: str
    start: int
    stop: int


class TokensOut(Out):
    """A context as the target reads it.

    Attributes:
        token_ids: Its token ids.
        tokens: Each as text.
        special: Whether each is one of the template's own.
        spans: Its turns.
    """

    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    special: tuple[bool, ...]
    spans: tuple[SpanOut, ...]


class GeneratedOut(TokensOut):
    """A context with what the target wrote; its last turn is that.

    Attributes:
        text: What it wrote.
    """

    text: str


class CapturedOut(Out):
    """Activations that are kept here.

    Attributes:
        handle: What to ask about them with.
        layers: Which layers.
        positions: Which tokens.
        d_model: Their width.
        bytes: What they take.
        seconds: How long they are kept after they were last used.
        tokens: The context, where there is one.
        target: The target that was read; None: of an upload or a difference.
        relative_norms: Of a difference: `||difference|| / ||base||`, by layer and position.
        noise_floor: Of a difference: the relative norm that equal models would show.
    """

    handle: str
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    d_model: int
    bytes: int
    seconds: float
    tokens: TokensOut | None
    target: str | None
    relative_norms: tuple[tuple[float, ...], ...] | None
    noise_floor: float | None


class AnswersOut(Out):
    """One answer for each question."""

    answers: tuple[AnswerOut, ...]


class ScoresOut(Out):
    """One score for each question."""

    scores: tuple[ScoreOut, ...]


class ScansOut(Out):
    """One scan for each question."""

    scans: tuple[ScanOut, ...]


class ErrorOut(Out):
    """A refusal: what, why, and what to do instead."""

    code: str
    what: str
    why: str
    instead: str


class OracleOut(Out):
    """An oracle that is served.

    Attributes:
        name: What it is called here.
        layers: The layer tuples that it was trained on.
        max_slots: The most activations that it was trained on; None: not known.
        coefficient: Of its injection.
        notes: What could not be checked when it was loaded.
        yes_no_prefix: What stands before a yes/no question.
        max_new_tokens: What an answer gets where none is given.
    """

    name: str
    layers: tuple[tuple[int, ...], ...] | None
    max_slots: int | None
    coefficient: float
    notes: tuple[str, ...]
    yes_no_prefix: str
    max_new_tokens: int


class ServedOut(Out):
    """A target that is served.

    Attributes:
        name: What it is called here; `base` is the model without any adapter.
        model: The model that it is.
    """

    name: str
    model: str


class LimitsOut(Out):
    """What one request may ask for."""

    context_tokens: int
    questions: int
    samples: int
    new_tokens: int
    upload_bytes: int
    seconds: float


class InfoOut(Out):
    """What is served.

    Attributes:
        version: Of this package.
        model: The base.
        chats: Whether it has a chat template.
        targets: What may be read; the first is the base.
        oracles: What may be asked; the first is asked where none is named.
        limits: What one request may ask for.
    """

    version: str
    model: ModelIdentity
    chats: bool
    targets: tuple[ServedOut, ...]
    oracles: tuple[OracleOut, ...]
    limits: LimitsOut


class HealthOut(Out):
    """Whether the service works, and how much waits."""

    status: Literal["ok", "stopping"]
    waiting: int
    kept: int
