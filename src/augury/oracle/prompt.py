"""The oracle's prompt: slots, question, answer, as the token ids of one chat turn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from augury.contract import Contract
from augury.errors import ContractError, InputError
from augury.lm import LanguageModel, render_chat
from augury.lm.chat import encodable, needs_tokenizer


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt.

    Attributes:
        token_ids: One user turn and the assistant's header.
        slots: The positions of the slots, in the order of the vectors (layer-major).
    """

    token_ids: tuple[int, ...]
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Labelled:
    """A prompt with its answer: `token_ids[answer_start:]` are the labels, the last `tail` of them end tokens."""

    token_ids: tuple[int, ...]
    slots: tuple[int, ...]
    answer_start: int
    tail: int

    @property
    def labels(self) -> list[int]:
        """The ids with -100 where there is no loss."""
        return [-100] * self.answer_start + list(self.token_ids[self.answer_start :])


def build_prompt(
    lm: LanguageModel, contract: Contract, layers: Sequence[int], n_positions: int, question: str
) -> Prompt:
    """Render a question with `len(layers) * n_positions` slots.

    Slots are looked for only inside the prefix, by its place in the rendered ids, so that slot tokens in a question are
    ordinary text. The prefix rendered alone must give the same tokens up to the last slot.

    Raises:
        InputError: An empty question.
        ContractError: The slot token is not one token, or the question changes the prefix's tokens.
    """
    question = check_question(question)
    prefix = contract.prefix(tuple(layers), n_positions)
    slots, alone = _slots(lm, contract, prefix, len(layers) * n_positions)
    ids = _render(lm, contract, prefix + question).token_ids
    last = slots[-1] + 1
    if ids[:last] != alone[:last]:
        raise ContractError(
            "The question changes the tokens of the slots.",
            f"'{question[:40]}' merges with the prefix in this tokenizer",
            "start the question with a letter",
        )
    return Prompt(ids, slots)


def plain_prompt(lm: LanguageModel, contract: Contract, content: str) -> Prompt:
    """A prompt without slots, rendered as the oracle's are: for readers that see text in place of activations."""
    return Prompt(_render(lm, contract, content).token_ids, ())


def check_question(question: str) -> str:
    """The question without outer space, or a refusal where nothing is left."""
    if not isinstance(question, str) or not question.strip():
        why = "an oracle answers questions"
        raise InputError("The question is empty.", why, 'ask one, for example "What is this about?"')
    return encodable(question.strip())


def label_answer(
    lm: LanguageModel, contract: Contract, prompt: Prompt, question: str, answer: str | Sequence[int], prefix: str
) -> Labelled:
    """The prompt with its answer, as text or as token ids, followed by what the template puts after a turn.

    Raises:
        ContractError: The prompt is not a prefix of the whole conversation.
    """
    tail = _tail(lm, contract, prefix + question)
    if not isinstance(answer, str):
        return Labelled((*prompt.token_ids, *answer, *tail), prompt.slots, len(prompt.token_ids), len(tail))
    ids = _render(lm, contract, prefix + question, answer).token_ids
    if ids[: len(prompt.token_ids)] != prompt.token_ids:
        raise ContractError(
            "The prompt is no prefix of the whole conversation.",
            "this chat template rewrites earlier turns, so labels would be wrong",
            "choose a template that appends turns",
        )
    return Labelled(ids, prompt.slots, len(prompt.token_ids), len(tail))


def build_labelled(
    lm: LanguageModel,
    contract: Contract,
    layers: Sequence[int],
    n_positions: int,
    question: str,
    answer: str | Sequence[int],
) -> Labelled:
    """`build_prompt` and `label_answer` in one step."""
    prompt = build_prompt(lm, contract, layers, n_positions, question)
    prefix = contract.prefix(tuple(layers), n_positions)
    return label_answer(lm, contract, prompt, question.strip(), answer, prefix)


def label_text(lm: LanguageModel, contract: Contract, content: str, answer: str | Sequence[int]) -> Labelled:
    """A prompt without slots with its answer: what a trained reader learns from."""
    return label_answer(lm, contract, plain_prompt(lm, contract, content), content, answer, "")


def _render(lm: LanguageModel, contract: Contract, content: str, answer: str | None = None) -> Any:
    messages = [{"role": "user", "content": content}]
    kwargs: dict[str, Any] = dict(contract.chat_template_kwargs or {})
    if contract.fallback_template and not needs_tokenizer(lm).chat_template:
        kwargs["chat_template"] = contract.fallback_template
    if answer is None:
        return render_chat(lm, messages, "generation", kwargs)
    return render_chat(lm, [*messages, {"role": "assistant", "content": answer}], "closed", kwargs)


def _rendering(lm: LanguageModel, contract: Contract) -> str:
    """Everything besides the messages that decides the rendered tokens: two contracts may share one model."""
    own = needs_tokenizer(lm).chat_template
    return json.dumps([str(own or ""), contract.chat_template_kwargs, contract.fallback_template], default=str)


def _slots(lm: LanguageModel, contract: Contract, prefix: str, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    token = slot_id(lm, contract)
    key = ("slots", prefix, contract.prompt.slot_token, _rendering(lm, contract))
    if key not in lm.memo:
        alone = _render(lm, contract, prefix)
        span = next((s for s in alone.spans if s.role == "user"), None)
        first = span.start if span else 0
        found = tuple(i for i, t in enumerate(alone.token_ids) if t == token and i >= first)[:count]
        if len(found) != count:
            raise ContractError(
                "The prompt does not hold its slots.",
                f"{count} were written and {len(found)} tokens {contract.prompt.slot_token!r} were found",
                "this tokenizer merges slot tokens: choose another slot token",
            )
        lm.memo[key] = (found, alone.token_ids)
    return lm.memo[key]


def _tail(lm: LanguageModel, contract: Contract, content: str) -> tuple[int, ...]:
    """What the template puts after an assistant's turn: its end token, and often a newline."""
    key = ("tail", _rendering(lm, contract))
    if key not in lm.memo:
        closed = _render(lm, contract, content, "Yes").token_ids
        header = len(_render(lm, contract, content).token_ids)
        answer = len(needs_tokenizer(lm)("Yes", add_special_tokens=False)["input_ids"])
        lm.memo[key] = closed[header + answer :]
    return lm.memo[key]


def slot_id(lm: LanguageModel, contract: Contract) -> int:
    """The id of the slot token, which must be one token."""
    return one_token(needs_tokenizer(lm), contract.prompt.slot_token)


def one_token(tokenizer: Any, slot_token: str) -> int:
    """The id of a slot token; a ContractError where this tokenizer has none for it."""
    ids = tokenizer(slot_token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ContractError(
            f"The slot token {slot_token!r} is {len(ids)} tokens here.",
            "a slot receives one vector, so it must be one token",
            "use the tokenizer that the oracle was trained with",
        )
    return int(ids[0])
