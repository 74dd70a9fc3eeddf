"""Several questions about one reading equal each question alone, on tiny random models of every family."""

from __future__ import annotations

import pytest
import torch

from augury.errors import ModelError
from augury.lm import LanguageModel, Sampling
from augury.oracle.passes import Row, Runner, decode_rows, next_logprobs
from augury.oracle.prompt import Prompt
from augury.oracle.together import Group, Work, continuations_together, decode_together, logprobs_together
from tests.contracts import contract
from tests.families import ids
from tests.plain_paths import SLOTS, close, model, plain_logits, vectors

TOKENS = [3, 5, 8, 11]


def runner(lm: LanguageModel, *adapters: str, batch_size: int = 8) -> Runner:
    return Runner(lm, contract(), adapters, 1.0, batch_size)


def reading(number: int, questions: int, text: bool = False) -> Group:
    """One reading of its own length, asked several questions of several lengths."""
    head = ids(9 + number, seed=3 + number)
    given = None if text else vectors(3, seed=number)
    slots = () if text else tuple(SLOTS)
    rows = [Row(Prompt((*head, *ids(3 + 2 * n, seed=50 + n)), slots), given) for n in range(questions)]
    return Group.of(rows)


GROUPS = [reading(0, 3), reading(1, 2), reading(2, 3), reading(3, 3, text=True)]


def test_questions_together_equal_each_alone(lm: LanguageModel) -> None:
    who = runner(lm)
    found = logprobs_together(who, GROUPS, TOKENS)
    for group, part in zip(GROUPS, found, strict=True):
        for row, values in zip(group.rows, part, strict=True):
            assert close(values, next_logprobs(who, [row], TOKENS)[0])
    last = plain_logits(lm, list(GROUPS[3].rows[1].prompt.token_ids))[-1].log_softmax(-1)
    assert close(found[3][1], last[TOKENS]), "no activations: the plain model"


def test_continuations_equal_the_plain_model(lm: LanguageModel) -> None:
    group = reading(3, 3, text=True)
    wanted = [[ids(2, seed=9), ids(4, seed=8), ids(1, seed=7)]]
    (found,) = continuations_together(runner(lm), [group], wanted)
    for row, tail, values in zip(group.rows, wanted[0], found, strict=True):
        whole = [*row.prompt.token_ids, *tail]
        logits = plain_logits(lm, whole)[-len(tail) - 1 : -1].log_softmax(-1)
        assert close(values.log_probs, logits[torch.arange(len(tail)), tail])
        assert values.likeliest.tolist() == (logits.argmax(-1) == torch.tensor(tail)).tolist()


def test_answers_equal_each_alone(decoding: LanguageModel) -> None:
    who, sampling = runner(decoding), Sampling(4)
    found = decode_together(who, GROUPS, sampling)
    for group, texts in zip(GROUPS, found, strict=True):
        assert [one.token_ids for one in texts] == [decode_rows(who, [row], sampling)[0][0] for row in group.rows]


def test_samples_and_the_answer_come_from_one_prefill(decoding: LanguageModel) -> None:
    who, sampling, work = runner(decoding), Sampling(3), Work()
    found = decode_together(who, GROUPS, sampling, work, samples=40)
    plain = Work()
    alone = decode_together(who, GROUPS, sampling, plain)
    assert work == plain, "samples cost no prefill of their own"
    wanted = [[one.token_ids for one in rows] for rows in found]
    forced = continuations_together(who, GROUPS, wanted)
    for group, texts, greedy, given in zip(GROUPS, found, alone, forced, strict=True):
        for row, one, same, values in zip(group.rows, texts, greedy, given, strict=True):
            assert one.token_ids == same.token_ids and len(one.samples) == 40
            assert close(one.log_probs, values.log_probs)
            first = next_logprobs(who, [row], range(plain_logits(decoding, [1]).shape[-1]))[0].exp()
            drawn = torch.bincount(torch.tensor([ids[0] for ids in one.samples]), minlength=len(first)) / 40
            assert (drawn - first).abs().max() < 5 * float((first * (1 - first) / 40).sqrt().max()), (
                "as the model draws"
            )


def test_adapters_answer_and_are_off_again(adapted: LanguageModel) -> None:
    plain = logprobs_together(runner(adapted), GROUPS[:2], TOKENS)
    asked = logprobs_together(runner(adapted, "oracle"), GROUPS[:2], TOKENS)
    assert not close(plain[0], asked[0])
    again = logprobs_together(runner(adapted), GROUPS[:2], TOKENS)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_a_beginning_is_run_once_for_all_its_questions() -> None:
    lm, work = model("llama"), Work()
    logprobs_together(runner(lm), GROUPS, TOKENS, work)
    heads = [group.shared for group in GROUPS]
    tails = [len(row) - group.shared for group in GROUPS for row in group.rows]
    assert (work.prefixes, work.rows) == (4, 11)
    assert work.tokens <= sum(heads) + sum(tails) < sum(len(row) for group in GROUPS for row in group.rows)


def test_a_state_that_padding_would_reach_is_not_shared() -> None:
    for family in ("qwen3_next", "mistral"):
        work = Work()
        logprobs_together(runner(model(family)), [reading(9, 3)], TOKENS, work)
        assert work.prefixes == work.rows == 3, family


def test_what_shares_no_reading_is_refused() -> None:
    one, other = reading(0, 2), reading(1, 2)
    with pytest.raises(ModelError, match="share no reading"):
        Group.of([one.rows[0], other.rows[0]])
    moved = Row(Prompt(tuple(ids(12, seed=99)), tuple(SLOTS)), one.rows[0].vectors)
    with pytest.raises(ModelError, match="share no slots"):
        Group.of([one.rows[0], moved])
