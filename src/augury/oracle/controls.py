"""The same question with the evidence removed or swapped.

none          slots present, nothing injected
shuffled      a donor's activations: of another problem in the batch, or of the package's neutral contexts
text-window   a reader sees the read tokens as text: the plain base, or one that was trained for it
text-all      a reader sees everything up to the last read token, and nothing right of it
untrained     same prompt, same injection, oracle adapter off
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from augury.activations import Activations
from augury.contract import Contract
from augury.lm import LanguageModel
from augury.oracle.answers import Unavailable
from augury.oracle.passes import Row, Runner
from augury.oracle.prompt import Prompt, plain_prompt
from augury.oracle.reading import whole_text, window_text

NONE, SHUFFLED, TEXT_WINDOW, TEXT_ALL, UNTRAINED = CONTROLS = (
    "none",
    "shuffled",
    "text-window",
    "text-all",
    "untrained",
)
WITH_ORACLE, WITH_READER = frozenset((NONE, SHUFFLED)), frozenset((TEXT_WINDOW, TEXT_ALL))

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Item:
    """One question about one reading.

    Attributes:
        acts: What is read.
        question: As it goes into the prompt.
        prompt: Rendered, with as many slots as there are activations.
        notes: What the checks had to say.
    """

    acts: Activations
    question: str
    prompt: Prompt
    notes: tuple[str, ...] = ()

    @property
    def row(self) -> Row:
        """The real thing."""
        return Row(self.prompt, self.acts.flat)


# A row to run; why there is none; or None: the donors of the bank are asked.
Plan = Row | Unavailable | None


def plans(
    lm: LanguageModel, contract: Contract, items: Sequence[Item], new_tokens: int = 1, swap: bool = True
) -> list[dict[str, Plan]]:
    """What each control of each item runs; an answer may be `new_tokens` long. Without `swap` no item is a donor."""
    problems = [_problem(item) if swap else None for item in items]
    swapped = derangement(problems, [_shape(item) for item in items])
    donors = [None if other is None else items[other] for other in swapped]
    return [_plan(lm, contract, item, donor, new_tokens) for item, donor in zip(items, donors, strict=True)]


def _plan(lm: LanguageModel, contract: Contract, item: Item, donor: Item | None, new_tokens: int) -> dict[str, Plan]:
    return {
        NONE: Row(item.prompt, None),
        SHUFFLED: None if donor is None else Row(item.prompt, donor.acts.flat),
        TEXT_WINDOW: text_row(lm, contract, item, window_text, new_tokens),
        TEXT_ALL: text_row(lm, contract, item, whole_text, new_tokens),
        UNTRAINED: item.row,
    }


def derangement(problems: Sequence[Hashable], shapes: Sequence[Hashable]) -> list[int | None]:
    """For each item another one, of another problem and the same shape; None where there is none.

    Fixed: each problem takes from the next one of its shape, the last from the first.
    """
    members: dict[Hashable, dict[Hashable, list[int]]] = {}
    for i, (problem, shape) in enumerate(zip(problems, shapes, strict=True)):
        members.setdefault(shape, {}).setdefault(problem, []).append(i)
    found: list[int | None] = [None] * len(problems)
    for by_problem in members.values():
        groups = list(by_problem.values())
        if len(groups) < 2:
            continue
        for group, donors in zip(groups, [*groups[1:], groups[0]], strict=True):
            for place, i in enumerate(group):
                found[i] = donors[place % len(donors)]
    return found


def _problem(item: Item) -> Hashable:
    """Readings of one conversation are one problem, however it went on; bare tensors of equal values are one too."""
    transcript = item.acts.transcript
    if transcript is None:
        return _values(item.acts)
    return transcript.messages or transcript.token_ids


def _values(acts: Activations) -> Hashable:
    """Not where the tensor lies: selecting layers or positions copies it, and it would be its own donor."""
    plain = acts.vectors.detach().to("cpu", torch.float32).contiguous()
    return acts.layers, tuple(plain.shape), hashlib.sha256(plain.numpy().tobytes()).hexdigest()


def _shape(item: Item) -> Hashable:
    return item.acts.layers, len(item.acts)


def text_row(
    lm: LanguageModel,
    contract: Contract,
    item: Item,
    text_of: Callable[[LanguageModel, Activations], str],
    new_tokens: int,
) -> Row | Unavailable:
    """The prompt of a reader that sees text in place of activations."""
    if item.acts.provenance.kind == "difference":
        return Unavailable("a difference has no text")
    if item.acts.transcript is None:
        return Unavailable("a bare tensor has no text")
    text = text_of(lm, item.acts)
    if not text:
        return Unavailable("the read tokens are special tokens, which have no text")
    prompt = plain_prompt(lm, contract, reader_text(text, item.question))
    longest = lm.max_positions
    if longest is not None and len(prompt.token_ids) + new_tokens > longest:
        return Unavailable(f"the text and its answer are longer than the {longest} tokens that the reader takes")
    return Row(prompt, None)


def reader_text(text: str, question: str) -> str:
    """What the reader is shown."""
    return f'Text: "{text}"\n\n{question}'


def answering(runner: Runner, reader: str | None) -> dict[str, Runner]:
    """Who answers each control: the oracle, its trained reader where there is one, or the plain base."""
    plain = runner.without_adapters()
    reads = plain if reader is None else replace(runner, adapters=(reader,))
    return {name: runner if name in WITH_ORACLE else reads if name in WITH_READER else plain for name in CONTROLS}


def run_plans(
    planned: Sequence[dict[str, Plan]],
    together: Iterable[Sequence[int]],
    who: Mapping[str, Runner],
    run: Callable[[Runner, list[Row]], Sequence[R]],
    made: Callable[[int, str, R], T],
    donors: Callable[[int], T | Unavailable],
) -> Iterator[dict[int, dict[str, T | Unavailable]]]:
    """Run all controls; each time some have been run, those that there are so far of the items that got one.

    Args:
        planned: What each control of each item runs.
        together: The numbers of the items whose rows may be run in one batched call.
        who: Who answers each control.
        run: Runs rows.
        made: What a control of an item is, from what its row gave.
        donors: The control `shuffled` of an item, where donors of the bank are asked.
    """
    controls: list[dict[str, T | Unavailable]] = [
        {name: row for name, row in plan.items() if isinstance(row, Unavailable)} for plan in planned
    ]
    for group in together:
        for runner in dict.fromkeys(who.values()):
            wanted = [
                (i, name, row) for i in group for name, row in planned[i].items()
                if who[name] is runner and isinstance(row, Row)
            ]  # fmt: skip
            results = run(runner, [row for _, _, row in wanted]) if wanted else ()
            for (i, name, _), result in zip(wanted, results, strict=True):
                controls[i][name] = made(i, name, result)
            yield {i: _in_order(controls[i]) for i, _, _ in wanted}
    for i, plan in enumerate(planned):
        if plan[SHUFFLED] is None:
            controls[i][SHUFFLED] = donors(i)
            yield {i: _in_order(controls[i])}


def _in_order(controls: Mapping[str, T]) -> dict[str, T]:
    return {name: controls[name] for name in CONTROLS if name in controls}
