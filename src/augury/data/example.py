"""The one schema of training and evaluation data: what was read, by whom it was written, what is asked and answered."""

from __future__ import annotations

from dataclasses import dataclass, field

from augury.data.bank import Split


@dataclass(frozen=True)
class Part:
    """A stretch of a context.

    Attributes:
        role: Whose turn it is: `system`, `user`, `assistant`, or `text` where there are no turns.
        author: Who wrote it: `target` (sampled from the model that is read), `bank` (a template of the prompt bank),
            the name of a file or data set, or the name of the model that annotated it.
        start: Its first token.
        stop: The token after its last.
    """

    role: str
    author: str
    start: int
    stop: int


@dataclass(frozen=True)
class LeftOut:
    """An entry that makes no context, and why."""

    reason: str


@dataclass(frozen=True)
class Context:
    """A text of the target, as the token ids that it read or sampled.

    Tokens outside every part are the chat template's.

    Attributes:
        number: Its place in its set and split.
        split: `train` or `heldout`.
        token_ids: The whole text, end token included where one was sampled.
        parts: Who wrote what, in reading order.
        labels: What is known from how it was made.
        origin: Where it comes from: a prompt's place in the bank, or a file and line.
        adapter: The target's own adapter that was on; None for the plain model.
    """

    number: int
    split: Split
    token_ids: tuple[int, ...]
    parts: tuple[Part, ...]
    labels: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    adapter: str | None = None

    def last(self, role: str) -> Part:
        """The last part of a role; KeyError where there is none."""
        for part in reversed(self.parts):
            if part.role == role:
                return part
        raise KeyError(role)

    @property
    def body(self) -> tuple[int, int]:
        """Tokens `[start, stop)` of the last part: an answer, or the text itself."""
        return (self.parts[-1].start, self.parts[-1].stop) if self.parts else (0, len(self.token_ids))

    @property
    def user(self) -> tuple[int, int]:
        """Tokens `[start, stop)` of the last user turn's content."""
        return self.last("user").start, self.last("user").stop

    @property
    def assistant(self) -> tuple[int, int]:
        """Tokens `[start, stop)` of the last answer's content."""
        return self.last("assistant").start, self.last("assistant").stop


@dataclass(frozen=True)
class Example:
    """A question about some activations of one context.

    Attributes:
        task: `past_lens`, `future_lens`, `yes_no`, `open`, `conversation`, `classification`, `system` or `custom`.
        kind: What is asked about, for example `topic`.
        split: `train` or `heldout`.
        context: The number of its context.
        positions: The token positions that are read, rising.
        question: As the oracle gets it, without any yes/no prefix.
        answer: In words.
        answer_ids: Where the answer is the context's own tokens, these; None where it is text.
        wording: The question before it was filled in, for balancing and for held-out wordings.
        author: Who wrote the answer, as in `Part`; `template` where it follows from how the context was made.
        source: The name of the recipe's source that made it.
        contexts: The name of the set that its context stands in.
        layers: The layers that are read at each position.
        unit: Examples of one unit belong together (a Yes and the No to it).
        weight: Of its loss.
        notes: What else is known, such as the answer that a reader of the text gave.
    """

    task: str
    kind: str
    split: Split
    context: int
    positions: tuple[int, ...]
    question: str
    answer: str
    answer_ids: tuple[int, ...] | None
    wording: str
    author: str = "template"
    source: str = ""
    contexts: str = ""
    layers: tuple[int, ...] = ()
    unit: int = 0
    weight: float = 1.0
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def yes(self) -> bool:
        return self.answer == "Yes"
