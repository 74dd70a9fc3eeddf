"""Readers of the text: what a model says to a question when it sees the words in place of the activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from augury.contract import Contract, Injection, PromptFormat
from augury.data.example import Context, Example
from augury.lm import LanguageModel, Sampling
from augury.lm.adapters import adapters_on
from augury.lm.logprobs import continuation_logprobs
from augury.oracle.choices import YES_NO, choice_logprobs, prefixed, spell, weigh
from augury.oracle.controls import reader_text
from augury.oracle.passes import Row, Runner, decode_rows
from augury.oracle.prompt import label_answer, plain_prompt
from augury.oracle.reading import decoded, text_at, text_until

DATE = "01 Jan 2026"  # for templates that print the day: one and the same in training and ever after
LONGEST = 64  # tokens of a greedy answer


@dataclass(frozen=True)
class Asked:
    """An example with its question as each reading shows it.

    Attributes:
        example: The example.
        prompts: Under each reading, what the user's turn says.
        choices: The closed answers among which it is asked.
    """

    example: Example
    prompts: dict[str, str]
    choices: tuple[str, ...] = ()

    def among(self, choices: tuple[str, ...]) -> Asked:
        """The same with closed answers."""
        return replace(self, choices=choices)


class Reader(Protocol):
    """Who reads the text."""

    def asked(self, example: Example, context: Context) -> Asked | None:
        """The example as it is asked; None where it has no text, or more than the reader takes."""
        ...

    def margins(self, asked: Sequence[Asked], reading: str) -> list[float]:
        """Log-odds of Yes."""
        ...

    def hits(self, asked: Sequence[Asked], reading: str) -> list[float]:
        """1 where the true answer is the likeliest of the choices, else 0."""
        ...

    def nats(self, asked: Sequence[Asked], reading: str) -> list[float]:
        """Mean log-probability of a token of the true answer."""
        ...

    def greedy(self, asked: Sequence[Asked], reading: str) -> list[str]:
        """What it answers, in a few tokens more than the longest true answer has."""
        ...


def reader_contract(recipe: Mapping[str, Any]) -> Contract:
    """How a reader is asked: as the recipe's oracle is, where it is one of training."""
    prompt = PromptFormat.model_validate(recipe.get("prompt", {}))
    return Contract(injection=Injection(), prompt=prompt, chat_template_kwargs={"date_string": DATE})


@dataclass(frozen=True, eq=False)
class BaseReader:
    """The plain base, without any adapter.

    Attributes:
        lm: The base.
        contract: How it is asked: the chat template's arguments and the yes/no prefix.
        batch_size: Prompts in a forward pass.
    """

    lm: LanguageModel
    contract: Contract
    batch_size: int = 16

    def asked(self, example: Example, context: Context) -> Asked | None:
        """As `Reader`."""
        if not context.token_ids:
            return None
        question = prefixed(self.contract, example.question, YES_NO) if example.task == "yes_no" else example.question
        prompts = prompts_of(self.lm, context, example.positions, question.strip())
        room = self.lm.max_positions
        longest = max(len(self._row(text).prompt.token_ids) for text in prompts.values())
        if room is not None and longest + max(LONGEST, len(self._answer(question, example))) > room:
            return None
        return Asked(example, prompts)

    def margins(self, asked: Sequence[Asked], reading: str) -> list[float]:
        """As `Reader`."""
        found = choice_logprobs(self._runner, self._rows(asked, reading), spell(self.lm, self.contract, YES_NO))
        return [weigh(row).margin for row in found]

    def hits(self, asked: Sequence[Asked], reading: str) -> list[float]:
        """As `Reader`."""
        found = [0.0] * len(asked)
        for choices in dict.fromkeys(one.choices for one in asked):
            places = [i for i, one in enumerate(asked) if one.choices == choices]
            rows = self._rows([asked[i] for i in places], reading)
            best = choice_logprobs(self._runner, rows, spell(self.lm, self.contract, choices)).argmax(1).tolist()
            for place, choice in zip(places, best, strict=True):
                found[place] = float(choices[choice] == asked[place].example.answer)
        return found

    def nats(self, asked: Sequence[Asked], reading: str) -> list[float]:
        """As `Reader`."""
        prompts = [row.prompt.token_ids for row in self._rows(asked, reading)]
        answers = [self._answer(one.prompts[reading], one.example) for one in asked]
        with adapters_on(self.lm.model, ()):
            found = continuation_logprobs(self.lm, prompts, answers, batch_size=self.batch_size)
        return torch.stack([tokens.mean() for tokens in found]).tolist()

    def greedy(self, asked: Sequence[Asked], reading: str) -> list[str]:
        """As `Reader`."""
        truths = max(len(self._answer(one.prompts[reading], one.example)) for one in asked)
        sampling = Sampling(max_new_tokens=min(LONGEST, truths + 4))
        found = decode_rows(self._runner, self._rows(asked, reading), sampling)
        return [decoded(self.lm, [t for t in texts[0] if t not in self.lm.end_ids]).strip() for texts in found]

    @property
    def _runner(self) -> Runner:
        return Runner(self.lm, self.contract, (), 1.0, self.batch_size)

    def _rows(self, asked: Sequence[Asked], reading: str) -> list[Row]:
        return [self._row(one.prompts[reading]) for one in asked]

    def _row(self, content: str) -> Row:
        return Row(plain_prompt(self.lm, self.contract, content), None)

    def _answer(self, content: str, example: Example) -> tuple[int, ...]:
        """The true answer as it stands after a prompt, without what ends the turn."""
        if example.answer_ids:
            return example.answer_ids
        found = label_answer(self.lm, self.contract, plain_prompt(self.lm, self.contract, content), content,
                             example.answer, "")  # fmt: skip
        return found.token_ids[found.answer_start : len(found.token_ids) - found.tail]


def prompts_of(lm: LanguageModel, context: Context, positions: Sequence[int], question: str) -> dict[str, str]:
    """The question under each reading: alone, with the window's text, with everything up to its last token."""
    ids = context.token_ids
    return {
        "question": question,
        "text-window": reader_text(text_at(lm, ids, positions), question),
        "text-all": reader_text(text_until(lm, ids, positions), question),
    }
