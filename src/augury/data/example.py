"""One training or evaluation example: what is read, what is asked, what is the answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A question about some positions of one rollout.

    Attributes:
        task: `past_lens`, `future_lens`, `yes_no` or `open`.
        kind: What is asked about, for example `topic`.
        rollout: The rollout's id.
        positions: The token positions that are read, one contiguous window.
        question: The question as the oracle gets it, without any yes/no prefix.
        answer: The answer in words.
        answer_ids: For lens examples the rollout's own token ids; None where the answer is text.
        wording: The question's wording before it was filled in, for balancing and for held-out wordings.
    """

    task: str
    kind: str
    rollout: int
    positions: tuple[int, ...]
    question: str
    answer: str
    answer_ids: tuple[int, ...] | None
    wording: str

    @property
    def yes(self) -> bool:
        return self.answer == "Yes"
