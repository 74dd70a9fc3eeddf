"""Losses of a source's held-out examples: against plain arithmetic, and with donors that are never one's own."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from augury.data.example import Context, Example, Part
from augury.lm.adapters import adapters_on, add_adapter, remove_adapter
from augury.train.batching import collate, prepare
from augury.train.ranks import Ranks
from augury.train.reads import LiveReads
from augury.train.source_report import source_report, swapped
from augury.train.step import example_losses
from tests.tiny import tiny_contract, tiny_lm


@pytest.fixture(scope="module")
def lm():
    found = tiny_lm()
    add_adapter(found, {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}, "oracle")
    yield found
    remove_adapter(found, "oracle")


@pytest.fixture(scope="module")
def contexts(lm):
    rng = random.Random(0)
    ids = [[rng.randrange(3, lm.vocab_size) for _ in range(rng.randint(12, 30))] for _ in range(9)]
    return [Context(i, "heldout", tuple(row), (Part("text", "x", 0, len(row)),)) for i, row in enumerate(ids)]


@pytest.fixture(scope="module")
def examples(contexts):
    rng, found = random.Random(1), []
    for i in range(20):
        context = contexts[rng.randrange(len(contexts))]
        n = rng.randint(1, 5)
        last = rng.randint(n - 1, len(context.token_ids) - 1)
        positions = tuple(range(last - n + 1, last + 1))
        found.append(
            Example("custom", "x", "heldout", context.number, positions, "What?", f"answer {i}", None, "w",
                    source="mine", contexts="set", layers=(2,))
        )  # fmt: skip
    return found


def test_a_donor_is_another_context_with_as_many_positions_that_it_has(contexts, examples):
    for own, other in zip(examples, swapped(examples, contexts), strict=True):
        assert other is not None and other.context != own.context
        assert len(other.positions) == len(own.positions) and other.question == own.question
        assert other.positions[0] >= 0 and other.positions[-1] < len(contexts[other.context].token_ids)


def test_saved_activations_lend_only_what_they_hold(contexts, examples):
    bare = [Context(c.number, c.split, (), ()) for c in contexts]
    for own, other in zip(examples, swapped(examples, bare), strict=True):
        if other is not None:
            held = {e.positions[-len(own.positions) :] for e in examples if e.context == other.context}
            assert other.positions in held


def test_losses_are_those_of_single_examples(lm, contexts, examples):
    contract, reads = tiny_contract(lm), LiveReads(lm, contexts)
    found = source_report(lm, contract, "oracle", examples, contexts, reads, samples=3)
    alone = {"real": [], "shuffled": []}
    with torch.no_grad(), adapters_on(lm.model, ["oracle"]):
        for own, other in zip(examples, swapped(examples, contexts), strict=True):
            for name, example in (("real", own), ("shuffled", other)):
                reads.prefetch([example])
                batch = collate(lm, [prepare(lm, contract, reads, example)], False)
                alone[name].append(float(example_losses(lm, contract.injection, batch)))
    mean = {name: sum(values) / len(values) for name, values in alone.items()}
    assert found.real.estimate == pytest.approx(mean["real"], abs=1e-4)
    assert found.shuffled.estimate == pytest.approx(mean["shuffled"], abs=1e-4)
    assert found.gap.estimate == pytest.approx(mean["shuffled"] - mean["real"], abs=1e-4)
    assert found.examples == 20 and len(found.samples) == 3
    assert {sample.truth for sample in found.samples} <= {example.answer for example in examples}


def test_one_context_alone_has_no_donor(lm, contexts, examples):
    same = [e for e in examples if e.context == examples[0].context]
    reads = LiveReads(lm, contexts)
    assert source_report(lm, tiny_contract(lm), "oracle", same, contexts, reads) is None


def test_shares_of_several_processes_merge_in_order(monkeypatch):
    items = list(range(11))
    shares = [Ranks(rank, 3).share(items) for rank in range(3)]
    monkeypatch.setattr("accelerate.utils.gather_object", lambda own: shares)
    assert Ranks(1, 3).merge(shares[1]) == items


def test_two_lines_about_one_text_do_not_lend_to_each_other(contexts, examples):
    twins = [replace(context, token_ids=contexts[context.number // 3 * 3].token_ids) for context in contexts]
    short = [replace(example, positions=(3, 4)) for example in examples]
    for own, other in zip(short, swapped(short, twins), strict=True):
        assert other is not None and twins[other.context].token_ids != twins[own.context].token_ids
    same = [replace(example, context=example.context % 3) for example in short]
    assert swapped(same, twins) == [None] * len(same)
