"""Choices as tokens, and their log-probabilities as an answer.

A choice is scored by the tokens that spell it at the first position of the answer; where the tokenizer has none that
all choices share, by the whole choice with its end token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from augury.contract import Contract
from augury.errors import InputError
from augury.lm import LanguageModel
from augury.lm.chat import encodable, needs_tokenizer
from augury.oracle.answers import LEAST_MASS, Method
from augury.oracle.passes import Row, Runner, next_logprobs, whole_logprobs
from augury.oracle.prompt import Prompt, label_answer

YES_NO = ("Yes", "No")

_FORMS: tuple[Callable[[str], str], ...] = (str, str.lower, lambda text: text[:1].upper() + text[1:], str.upper)


@dataclass(frozen=True)
class Spelled:
    """How the choices are scored.

    Attributes:
        choices: The choices.
        method: `first-token`, or `whole-choice`.
        ids: For `first-token` the single tokens that count for each choice; else each whole choice with its end token.
        texts: The spellings that `ids` stand for, per choice.
    """

    choices: tuple[str, ...]
    method: Method
    ids: tuple[tuple[int, ...], ...]
    texts: tuple[tuple[str, ...], ...]

    @property
    def new_tokens(self) -> int:
        """How many tokens the longest answer has that is scored."""
        return 1 if self.method == "first-token" else max(map(len, self.ids))


def check_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """The choices without outer space.

    Raises:
        InputError: Fewer than two, an empty one, or two that are one.
    """
    if isinstance(choices, str):
        raise InputError("The choices are one text.", f"{choices!r} was passed", 'pass several, such as ("Yes", "No")')
    if not all(isinstance(choice, str) for choice in choices):
        raise InputError("A choice is no text.", f"they are {list(choices)!r:.80}", 'pass texts, such as ("Yes", "No")')
    found = tuple(encodable(choice.strip()) for choice in choices)
    if len(found) < 2 or not all(found):
        raise InputError("These choices cannot be scored.", f"they are {list(choices)}", "pass two or more, none empty")
    if len(set(found)) < len(found):
        raise InputError("Two choices are the same.", f"they are {list(choices)}", "pass each once")
    return found


def prefixed(contract: Contract, question: str, choices: Sequence[str]) -> str:
    """The question with the contract's yes/no prefix, unless it begins so or has other choices."""
    prefix, question = contract.prompt.yes_no_prefix, question.strip()
    # In either order: it is the same question, asked about the other answer.
    yes_no = sorted(choice.casefold() for choice in choices) == sorted(choice.casefold() for choice in YES_NO)
    if not yes_no or not question or question.startswith(prefix.strip()):
        return question
    return prefix + question


def spell(lm: LanguageModel, contract: Contract, choices: Sequence[str]) -> Spelled:
    """Find the tokens that score these choices."""
    found = check_choices(choices)
    return _single_tokens(needs_tokenizer(lm), found) or _whole(lm, contract, found)


def _single_tokens(tokenizer: Any, choices: tuple[str, ...]) -> Spelled | None:
    """Spellings that are one token for every choice; none of these tokens serves two choices."""
    owner: dict[int, int] = {}
    ids: list[list[int]] = [[] for _ in choices]
    texts: list[list[str]] = [[] for _ in choices]
    for form in _FORMS:
        for space in ("", " "):
            spelled = [space + form(choice) for choice in choices]
            tokens = [_one_token(tokenizer, text) for text in spelled]
            if None in tokens or len(set(tokens)) < len(choices):
                continue
            if any(owner.get(token, i) != i for i, token in enumerate(tokens) if token is not None):
                continue
            for i, (token, text) in enumerate(zip(tokens, spelled, strict=True)):
                if token is not None and token not in owner:
                    owner[token] = i
                    ids[i].append(token)
                    texts[i].append(text)
    if not owner:
        return None
    return Spelled(choices, "first-token", tuple(map(tuple, ids)), tuple(map(tuple, texts)))


def _one_token(tokenizer: Any, text: str) -> int | None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return None if len(ids) != 1 or ids[0] in tokenizer.all_special_ids else int(ids[0])


def _whole(lm: LanguageModel, contract: Contract, choices: tuple[str, ...]) -> Spelled:
    tokenizer, end = needs_tokenizer(lm), end_of_answer(lm, contract)
    ids = [(*tokenizer(choice, add_special_tokens=False)["input_ids"], *end) for choice in choices]
    if len(set(ids)) < len(ids):
        why = "this tokenizer gives two of them the same tokens"
        raise InputError("These choices cannot be told apart.", why, "word them differently")
    return Spelled(choices, "whole-choice", tuple(ids), tuple((choice,) for choice in choices))


def end_of_answer(lm: LanguageModel, contract: Contract) -> tuple[int, ...]:
    """What ends an answer in the chat template, up to the first token at which generation stops."""
    tail = label_answer(lm, contract, Prompt((), ()), "Is it so?", (), "").token_ids
    stops = [i for i, token in enumerate(tail) if token in lm.end_ids]
    return tail[: stops[0] + 1] if stops else tail


def choice_logprobs(
    runner: Runner, rows: Sequence[Row], spelled: Spelled, done: Callable[[int], None] | None = None
) -> Float[Tensor, "rows choices"]:
    """The log-probability of each choice as each row's answer: `[rows, choices]`, float32."""
    if spelled.method == "whole-choice":
        found = whole_logprobs(runner, rows, spelled.ids)
        if done is not None:
            done(len(rows))
        return found
    flat = [token for ids in spelled.ids for token in ids]
    by_token = next_logprobs(runner, rows, flat, done)
    parts = by_token.split([len(ids) for ids in spelled.ids], dim=1)
    return torch.stack([part.logsumexp(1) for part in parts], 1)


@dataclass(frozen=True)
class Weighed:
    """Choices compared: log-odds and probability of the first, and the mass of all."""

    log_probs: tuple[float, ...]
    margin: float
    probability: float
    mass: float

    @property
    def warning(self) -> str | None:
        """Set where the oracle is not answering with any of the choices."""
        if self.mass >= LEAST_MASS:
            return None
        return f"the choices have only {self.mass:.0%} of the probability: this is not answering the question"


def weigh(log_probs: Float[Tensor, " choices"]) -> Weighed:
    """Compare the log-probabilities `[choices]` of one row."""
    values = log_probs.double()
    margin = float(values[0] - values[1:].logsumexp(0))
    probability = float(values.softmax(0)[0])
    return Weighed(tuple(values.tolist()), margin, probability, math.exp(float(values.logsumexp(0))))
