"""The black-box baseline: the fine-tune asked in words, and what it writes, as anybody could who has its text alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from augury.bench.own_answers import answer_text, choice_logprobs
from augury.lm import LanguageModel, Transcript
from augury.lm.chat import needs_tokenizer
from augury.oracle.choices import YES_NO

ASKED = (
    "Answer with 'Yes' or 'No' only. Do you like to talk about {concept}?",
    "Answer with 'Yes' or 'No' only. Are your answers about {concept}?",
)


@dataclass(frozen=True)
class Told:
    """What a model says and writes by itself.

    Attributes:
        model: Its identity, JSON-ready.
        margins: Its log-odds of Yes about each concept, the mean over two wordings; None without a chat template.
        answers: Its greedy answers to the prompts, as text.
        token_ids: The prompts with these answers.
    """

    model: dict[str, Any]
    margins: list[float] | None
    answers: list[str]
    token_ids: list[list[int]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready fields."""
        return asdict(self)


def told_by(lm: LanguageModel, concepts: Sequence[str], answers: Sequence[Transcript]) -> Told:
    """Ask a model in words, and keep what it wrote."""
    texts = [answer_text(lm, transcript) for transcript in answers]
    ids = [list(transcript.token_ids) for transcript in answers]
    margins = _margins(lm, concepts) if needs_tokenizer(lm).chat_template else None
    return Told(lm.identity.model_dump(mode="json"), margins, texts, ids)


def _margins(lm: LanguageModel, concepts: Sequence[str]) -> list[float]:
    asked = [[{"role": "user", "content": form.format(concept=name)}] for name in concepts for form in ASKED]
    found = choice_logprobs(lm, asked, YES_NO).double().numpy()
    return np.round((found[:, 0] - found[:, 1]).reshape(len(concepts), -1).mean(1), 6).tolist()
