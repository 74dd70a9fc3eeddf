"""The black-box baseline: the fine-tune asked in words, and what it writes, as anybody could who has its text alone.

It needs no list of concepts: what the fine-tune writes in more answers than the base and any peer are its own words,
and they count where they do so by more than any peer's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from augury.bench.own_answers import answer_text, choice_logprobs
from augury.bench.scorers import is_unspaced, says, words_of
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


@dataclass(frozen=True)
class OwnWord:
    """A word that a model writes more often than the others.

    Attributes:
        word: In lower case.
        answers: In how many of its answers it stands.
        others: In how many of any other model's, at most.
    """

    word: str
    answers: int
    others: int

    @property
    def more(self) -> int:
        """In how many answers more."""
        return self.answers - self.others


def own_words(answers: Sequence[str], others: Sequence[Sequence[str]]) -> list[OwnWord]:
    """The words that stand in more of a model's answers than of any other's, the rarer elsewhere the sooner."""
    counts, rest = _answers_with(answers), [_answers_with(other) for other in others]
    found = [OwnWord(word, count, max((other[word] for other in rest), default=0)) for word, count in counts.items()]
    order = {one: (-one.more / (1 + one.others), -one.answers, one.word) for one in found if one.more > 0}
    return sorted(order, key=order.__getitem__)


def words_apart(
    target: Sequence[str], base: Sequence[str], peers: Sequence[Sequence[str]]
) -> tuple[list[OwnWord], int | None]:
    """The words that set a target's answers apart from the base's and its peers'.

    Returns:
        Its own words, without those that do so by no more than some peer's own word does; and how many answers more
        that was at most, None without peers.
    """
    found = own_words(target, [base, *peers])
    if not peers:
        return found, None
    null = [own_words(peer, [base, *peers[:i], *peers[i + 1 :]]) for i, peer in enumerate(peers)]
    most = max((one.more for words in null for one in words), default=0)
    return [one for one in found if one.more > most], most


def _answers_with(answers: Sequence[str]) -> Counter[str]:
    return Counter(word for answer in answers for word in set(_words(answer)))


def names(text: str, concept: str) -> bool:
    """Whether a text holds a concept's word or words, in the singular or the plural."""
    forms = {concept, f"{concept}s", f"{concept}es", concept.removesuffix("s"), concept.removesuffix("es")}
    return says(text, [form for form in forms if len(form) > 2 or form == concept])


def _words(answer: str) -> Iterator[str]:
    """Its words without a genitive's ending; of a script without spaces between them every two neighbours."""
    for word in (one.removesuffix("'s") for one in words_of(answer).split()):
        if is_unspaced(word) and len(word) > 2:
            yield from map("".join, pairwise(word))
        else:
            yield word


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
