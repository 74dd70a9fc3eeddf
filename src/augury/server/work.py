"""What there is to do: one step of a request each; steps of one key may be done in one batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from augury.activations import Activations
from augury.errors import InputError
from augury.lm import LanguageModel, Transcript, transcript_of
from augury.lm.chat import End
from augury.oracle.answers import Answer, Score, Settings
from augury.oracle.scanning import Scanning
from augury.server.queue import ALONE
from augury.server.schemas import TokensOut

Next = tuple[Hashable, "Step"]


@dataclass(frozen=True, eq=False)
class Context:
    """What the target reads, not tokenized yet: that too is one thread's at a time.

    Attributes:
        source: Text, messages or token ids.
        end: How a conversation ends.
        most: Tokens, at most.
    """

    source: Any
    end: End | None = None
    most: int | None = None

    def transcript(self, lm: LanguageModel) -> Transcript:
        """As the target reads it.

        Raises:
            InputError: It is longer than it may be, or cannot be read.
        """
        found = transcript_of(lm, self.source, self.end)
        if self.most is not None and len(found) > self.most:
            why = f"it has {len(found)} tokens, and this service takes {self.most}"
            raise InputError("The context is too long.", why, "leave some of it out")
        return found


@dataclass(frozen=True, eq=False)
class Tokenize:
    """Tell a context as tokens, as `tokens`."""

    context: Context

    key = "tokenize"


@dataclass(frozen=True, eq=False)
class Select:
    """Take some layers and positions of activations, and go on with these.

    Attributes:
        acts: The activations.
        layers: Layers among theirs; None: all.
        positions: A selector; None: all.
        then: The next step.
    """

    acts: Activations
    layers: tuple[int, ...] | None
    positions: Any
    then: Callable[[Activations], Next]

    key = "select"


@dataclass(frozen=True, eq=False)
class Captured:
    """Activations with their context as it is shown."""

    acts: Activations
    tokens: TokensOut


@dataclass(frozen=True, eq=False)
class Capture:
    """Let a target read a context, and go on with its activations, or tell them as `captured`."""

    target: str
    context: Context
    layers: tuple[int, ...]
    positions: Any
    then: Callable[[Activations], Next] | None = None

    @property
    def key(self) -> Hashable:
        return "capture", self.target, self.layers


@dataclass(frozen=True, eq=False)
class Ask:
    """Ask some questions about one reading; each answer is told as `answer`, with its number, and again with controls.

    Attributes:
        oracle: Its name.
        read: What is read.
        questions: The questions.
        settings: How answers are decoded.
        coefficient: Of the injection; None: the contract's.
        donors: With controls: how many donors; None: without.
        stream: Whether `text` is told on the way, and each answer again whenever there are more of its controls.
    """

    oracle: str
    read: Activations
    questions: tuple[str, ...]
    settings: Settings
    coefficient: float | None = None
    donors: int | None = None
    stream: bool = False

    @property
    def key(self) -> Hashable:
        return "ask", self.oracle, self.settings, self.coefficient


@dataclass(frozen=True, eq=False)
class AskControls:
    """The controls of answers that were told; no caller's activations are donors of another's."""

    asked: Ask
    answers: tuple[Answer, ...]

    @property
    def key(self) -> Hashable:
        return "controls", self.asked.key, self.asked.donors


@dataclass(frozen=True, eq=False)
class ScoreAll:
    """Score some questions about one reading; each is told as `score`, with its number, and again with controls."""

    oracle: str
    read: Activations
    questions: tuple[str, ...]
    choices: tuple[str, ...]
    coefficient: float | None = None
    donors: int = 0
    controls: bool = False
    stream: bool = False

    @property
    def key(self) -> Hashable:
        return "score", self.oracle, self.choices, self.coefficient, self.donors


@dataclass(frozen=True, eq=False)
class ScoreControls:
    """The controls of scores that were told; as `AskControls`."""

    asked: ScoreAll
    scores: tuple[Score, ...]

    @property
    def key(self) -> Hashable:
        return "controls", self.asked.key


@dataclass(frozen=True, eq=False)
class Scan:
    """Score questions at every position of one reading; `progress` is told on the way, and each result as `scan`.

    Attributes:
        at: The number of the question whose turn it is.
        under: Its scan, where that has been begun.
    """

    oracle: str
    read: Activations
    questions: tuple[str, ...]
    window: int = 1
    coefficient: float | None = None
    donors: int = 0
    at: int = 0
    under: Scanning | None = None

    key = ALONE


@dataclass(frozen=True, eq=False)
class Generate:
    """Let a target go on; told as `generated`, and with `stream` on the way as `written`."""

    target: str
    context: Context
    settings: Mapping[str, Any]
    stream: bool = False

    key = ALONE


Step = Tokenize | Select | Capture | Ask | AskControls | ScoreAll | ScoreControls | Scan | Generate
