"""Answers in words: decoded, grouped, and set beside their controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from augury.contract import Contract
from augury.errors import ContractError, InputError
from augury.lm import Sampling
from augury.lm.values import is_whole
from augury.oracle.answers import Answer, Settings, Unavailable
from augury.oracle.consensus import consensus, normalise_answer
from augury.oracle.controls import Item, answering, plans, run_plans
from augury.oracle.passes import Row, RowsTold, Runner, Texts, decode_rows
from augury.oracle.reading import decoded

if TYPE_CHECKING:
    from augury.oracle.oracle import Oracle

DEFAULT_NEW_TOKENS = 24


def new_tokens(contract: Contract, given: int | None) -> int:
    """How long an answer may be: as given, else as the contract says, else 24 tokens.

    Raises:
        ContractError: The contract states something else than a number of tokens.
    """
    if given is not None:
        return given
    stated = contract.generation.get("max_new_tokens")
    if stated is None:
        return DEFAULT_NEW_TOKENS
    if not is_whole(stated) or stated < 1:
        why = f"its generation.max_new_tokens is {stated!r}"
        raise ContractError("The contract does not say how long an answer may be.", why, "pass max_new_tokens=24")
    return stated


def settings_of(samples: int | None, temperature: float, max_new_tokens: int, seed: int) -> Settings:
    """How answers are decoded: greedy without samples.

    Raises:
        InputError: A negative number of samples, several at temperature 0, or settings that cannot be used.
    """
    count = samples or 0
    if not is_whole(count) or isinstance(samples, bool) or count < 0:
        raise InputError("The number of samples cannot be used.", f"it is {samples!r}", "pass 0 (greedy) or more")
    if count > 1 and temperature == 0:
        raise InputError(
            "Samples at temperature 0 are all the same.",
            f"{count} of them would agree whatever the oracle knows",
            "use temperature=1 for samples, or leave samples out for the greedy answer",
        )
    checked = Sampling(max_new_tokens, temperature if count else 0.0, 1.0, seed)
    return Settings(int(count), checked.temperature, checked.max_new_tokens, checked.seed)


def _sampling(settings: Settings) -> Sampling:
    return Sampling(settings.max_new_tokens, settings.temperature, 1.0, settings.seed)


def ask_items(
    oracle: Oracle,
    items: Sequence[Item],
    runner: Runner,
    settings: Settings,
    *,
    donors: int | None = None,
    done: Callable[[int], None] | None = None,
    told: RowsTold | None = None,
) -> list[Answer]:
    """Ask each item; with `donors` (a number of donors) under all controls too.

    `told` is called after each token with what there is so far of each item that is being answered.
    """
    texts: list[Texts] = []
    for group in _apart(items, settings):
        rows = [items[i].row for i in group]
        texts += _texts(runner, rows, settings, done, None if told is None else partial(_told_from, told, group[0]))
    answers = [answer_of(oracle, item, runner, text, settings) for item, text in zip(items, texts, strict=True)]
    return answers if donors is None else with_controls(oracle, items, runner, settings, answers, donors)


def with_controls(
    oracle: Oracle,
    items: Sequence[Item],
    runner: Runner,
    settings: Settings,
    answers: Sequence[Answer],
    donors: int,
) -> list[Answer]:
    """The answers to these items, with the same question under every control."""
    results = dict(enumerate(answers))
    for some in controlled(oracle, items, runner, settings, answers, donors):
        results |= some
    return list(results.values())


def controlled(
    oracle: Oracle,
    items: Sequence[Item],
    runner: Runner,
    settings: Settings,
    answers: Sequence[Answer],
    donors: int,
    told: RowsTold | None = None,
    swap: bool = True,
) -> Iterator[dict[int, Answer]]:
    """The answers, by number, with the controls that there are so far, whenever some have been run.

    The last of each number has them all. What `told` raises, which is called after each token, ends it. Without `swap`
    donors are always the bank's.
    """
    who = answering(runner, oracle.reader)

    def run(whose: Runner, rows: Sequence[Row]) -> list[Texts]:
        return _texts(whose, rows, settings, told=told)

    def made(i: int, name: str, texts: Texts) -> Answer:
        control = answer_of(oracle, items[i], who[name], texts, settings)
        return replace(control, same_as_real=same_share(control, answers[i]))

    def of_donors(i: int) -> Answer | Unavailable:
        return donor_answer(oracle, items[i], runner, settings, donors, answers[i], told)

    planned = plans(runner.lm, runner.contract, items, settings.max_new_tokens, swap)
    for found in run_plans(planned, _apart(items, settings), who, run, made, of_donors):
        yield {i: replace(answers[i], controls=controls) for i, controls in found.items()}


def _apart(items: Sequence[Item], settings: Settings) -> list[Sequence[int]]:
    """Items by number; samples are drawn item by item, so that a seed gives the same whatever else is asked."""
    return [[i] for i in range(len(items))] if settings.samples else [range(len(items))]


def _texts(
    runner: Runner,
    rows: Sequence[Row],
    settings: Settings,
    done: Callable[[int], None] | None = None,
    told: RowsTold | None = None,
) -> list[Texts]:
    return decode_rows(runner, rows, _sampling(settings), max(1, settings.samples), done, told)


def _told_from(told: RowsTold, first: int, texts: Mapping[int, Sequence[Sequence[int]]]) -> None:
    told({first + i: own for i, own in texts.items()})


def answer_of(oracle: Oracle, item: Item, runner: Runner, texts: Texts, settings: Settings) -> Answer:
    """An answer from its token ids: one greedy text, or samples."""
    written = [decoded(oracle.base, ids).strip() for ids in texts]
    source = oracle.source_of(item.acts, runner)
    warned, noted = split_notes(item.notes)
    if not settings.samples:
        return Answer(written[0], item.question, tuple(texts[0]), source, settings, warnings=warned, notes=noted)
    agreed = consensus(written)
    text = agreed.groups[0].text
    return Answer(
        text,
        item.question,
        tuple(texts[written.index(text)]),
        source,
        settings,
        tuple(written),
        agreed.groups,
        agreed.agreement,
        warnings=warned,
        notes=noted,
    )


def split_notes(notes: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Warnings, and what merely could not be checked."""
    noted = tuple(note for note in notes if note.startswith("not checked"))
    return tuple(note for note in notes if note not in noted), noted


def same_share(control: Answer, real: Answer) -> float:
    """The share of a control's answers that are the real one."""
    given = control.samples or (control.text,)
    wanted = normalise_answer(real.text)
    return sum(normalise_answer(text) == wanted for text in given) / len(given)


def donor_answer(
    oracle: Oracle,
    item: Item,
    runner: Runner,
    settings: Settings,
    donors: int,
    real: Answer,
    told: RowsTold | None = None,
) -> Answer | Unavailable:
    """The most common greedy answer among the donors, and how many of them give the real one."""
    greedy = Settings(0, 0.0, settings.max_new_tokens, settings.seed)
    rows = oracle.donor_rows(item, donors)
    if isinstance(rows, Unavailable):
        return rows
    key = ("ask", item.acts.layers, item.prompt.token_ids, runner.coefficient, greedy, donors)
    together = replace(runner, batch_size=max(runner.batch_size, len(rows)))
    texts = oracle.remember(key, lambda: [text[0] for text in _texts(together, rows, greedy, told=told)])
    answer = answer_of(oracle, item, runner, texts, replace(greedy, samples=len(texts)))
    return replace(answer, settings=greedy, same_as_real=same_share(answer, real))
