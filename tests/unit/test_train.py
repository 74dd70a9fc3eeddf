"""The training step and loop against plain arithmetic, on a tiny model."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from augury.data import bank
from augury.data.example import Example
from augury.data.prompts import make_prompts
from augury.data.sources.questions import YES_NO_KINDS
from augury.errors import FormatError, ModelError
from augury.lm.adapters import adapters_on, remove_adapter
from augury.lm.learning import add_learner, learning
from augury.oracle.choices import YES_NO, prefixed
from augury.oracle.inject import inject
from augury.train.batching import batches, collate, pools, prepare
from augury.train.checkpoint import latest
from augury.train.loop import ADAPTER, learning_rate, lora_config, train_adapter
from augury.train.metrics import read_metrics
from augury.train.question_report import yes_no_margins
from augury.train.reads import cache_reads
from augury.train.recipe import OptimizerSettings, Recipe, read_recipe
from augury.train.step import Learner, example_losses, token_losses, train_step
from tests.tiny import tiny_contract, tiny_lm
from tests.training import examples_of, recipe, rollouts, train, training_data


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture
def data(lm, tmp_path):
    found = rollouts(lm)
    return found, cache_reads(lm, found, [2], tmp_path / "reads", "train", shard=4)


def items_of(lm, contract, data, count: int = 6):
    found, reads = data
    made = examples_of(lm, found, 10)
    examples = [example for pair in zip(made["lens"], made["asked"], strict=False) for example in pair][:count]
    return [prepare(lm, contract, reads, example) for example in examples]


def plain_loss(lm, contract, item) -> torch.Tensor:
    """One example by itself: no padding, no sharing, all logits, injection written out by hand."""
    labelled = item.labelled
    ids = torch.tensor([labelled.token_ids])

    def hook(_module, _args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        changed = hidden.clone()
        for slot, vector in zip(labelled.slots, item.vectors, strict=True):
            h = hidden[0, slot]
            changed[0, slot] = h + contract.injection.coefficient * (h.norm() * vector / vector.norm()).detach()
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = lm.blocks[contract.injection.block].register_forward_hook(hook)
    try:
        logits = lm.model(ids).logits[0]
    finally:
        handle.remove()
    start = labelled.answer_start
    labels = torch.tensor(labelled.token_ids[start:])
    total = torch.nn.functional.cross_entropy(logits[start - 1 : -1], labels, reduction="sum")
    return total / (len(labels) - 2)  # the template closes a turn with two tokens


@pytest.mark.parametrize("share", [True, False])
def test_batched_loss_and_gradients_equal_plain_examples(lm, data, share):
    contract = tiny_contract(lm, coefficient=2.0)
    items = items_of(lm, contract, data)
    parameters = add_learner(lm, lora_config(recipe()), ADAPTER, recipe().optimizer.seed)
    try:
        with adapters_on(lm.model, [ADAPTER]), learning(lm, ADAPTER):
            for parameter in parameters.values():
                torch.nn.init.normal_(parameter, std=0.1)
            batch = collate(lm, items, share)
            assert bool(batch.rows.prefix) == share
            losses = example_losses(lm, contract.injection, batch)
            got = torch.autograd.grad(losses.mean(), list(parameters.values()))
            plain = torch.stack([plain_loss(lm, contract, item) for item in items])
            want = torch.autograd.grad(plain.mean(), list(parameters.values()))
    finally:
        remove_adapter(lm, ADAPTER)
    assert torch.allclose(losses, plain, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(got, want, strict=True))


def test_where_padding_leaks_batches_are_of_equal_lengths_and_step_the_same(lm, data, tmp_path, monkeypatch):
    contract = tiny_contract(lm)
    items = items_of(lm, contract, data)
    whole = example_losses(lm, contract.injection, collate(lm, items, True))
    monkeypatch.setitem(vars(lm), "pads_cleanly", False)
    monkeypatch.setitem(vars(lm), "shares_prefixes", False)
    found = torch.zeros(len(items))
    for places, batch in batches(lm, items, share=True):
        assert len({len(items[place].labelled.token_ids) for place in places}) == 1
        assert bool(batch.rows.padded.attention_mask.all()), "a padded row in a batch of one length"
        found[places] = example_losses(lm, contract.injection, batch)
    assert torch.allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_prompts_come_from_templates_of_their_own_split_only(split):
    lists = bank.read("attributes")
    templates = [t for kind in ("sentiment", "tense", "person") for group in lists[kind].values() for t in group]
    templates += [t for task in bank.tasks() for t in task.templates]
    foreign = [t for t in templates if bank.split_of("template", t) != split]
    patterns = [re.compile(re.escape(t).replace(r"\{topic\}", ".+") + "$") for t in foreign]
    own = [t for t in templates if bank.split_of("template", t) == split]
    own = [re.compile(re.escape(t).replace(r"\{topic\}", ".+") + "$") for t in own]
    seen = {key: 0 for key in ("sentiment", "tense", "person", "kind")}
    for prompt in make_prompts(600, split, 0):
        seen = {key: count + (key in prompt.labels) for key, count in seen.items()}
        if any(pattern.search(prompt.text) for pattern in patterns):
            assert any(pattern.search(prompt.text) for pattern in own), prompt.text
    assert min(seen.values()) > 10


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_topics_statements_and_sentences_are_of_their_own_split_only(split):
    lists = bank.read("attributes")
    of_split = {topic.name for topic in bank.topics_of(split)}
    sentences = {s for group in lists["language"].values() for s in group if bank.split_of("template", s) == split}
    own = [
        re.sub(r"\\\{\w+\\\}", ".+", re.escape(s)) for s in lists["statements"] if bank.split_of("template", s) == split
    ]
    counts = {"topic": 0, "persona": 0, "language": 0}
    for prompt in make_prompts(600, split, 0):
        counts = {key: count + (key in prompt.labels) for key, count in counts.items()}
        assert prompt.split == split
        if "topic" in prompt.labels:
            assert prompt.labels["topic"] in of_split
        if "persona" in prompt.labels:
            assert any(re.match(statement, prompt.text) for statement in own), prompt.text
        if "language" in prompt.labels:
            assert prompt.text in sentences
    assert min(counts.values()) > 10


def test_no_activation_receives_a_gradient(lm, data):
    contract = tiny_contract(lm)
    vectors = torch.randn(3, lm.d_model, requires_grad=True)
    hidden = torch.randn(3, lm.d_model, requires_grad=True)
    out = inject(hidden, vectors, contract.injection).sum()
    grads = torch.autograd.grad(out, [hidden, vectors], allow_unused=True)
    assert grads[0] is not None and grads[1] is None


@pytest.mark.parametrize("most", [1, 90, 150])
def test_passes_within_a_budget_of_tokens_step_as_one_does(lm, data, tmp_path, most):
    contract = tiny_contract(lm)
    items = items_of(lm, contract, data, 12)
    places = [place for part, _ in batches(lm, items, share=True, most=most) for place in part]
    assert sorted(places) == list(range(12))
    for part, batch in batches(lm, items, share=True, most=most):
        longest = max(len(items[place].labelled.token_ids) for place in part)
        assert len(part) == 1 or longest * len(part) <= most
        assert len(batch.slots) == len(part)
    one, a = train(lm, data, tmp_path / "one", examples=12)
    many, b = train(lm, data, tmp_path / "many", examples=12, pass_tokens=most)
    assert [row.loss for row in one] == pytest.approx([row.loss for row in many], abs=1e-5)
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)


def test_an_example_of_weight_two_counts_as_two(lm, data):
    contract = tiny_contract(lm)
    items = items_of(lm, contract, data, 4)
    examples = [item.example for item in items]
    found = {}
    for name, batch in {
        "weighed": [replace(examples[0], weight=2.0), *examples[1:]],
        "twice": [examples[0], *examples],
    }.items():
        parameters = add_learner(lm, lora_config(recipe()), ADAPTER, recipe().optimizer.seed)
        try:
            optimizer = torch.optim.SGD(parameters.values(), lr=1.0)
            settings = recipe(clip=None).optimizer
            learner = Learner(lm, contract, settings, {"answers": data[1]}, parameters, optimizer)
            with adapters_on(lm.model, [ADAPTER]), learning(lm, ADAPTER, settings.gradient_checkpointing):
                train_step(learner, batch, 0, 1.0)
            found[name] = {key: value.detach().clone() for key, value in parameters.items()}
        finally:
            remove_adapter(lm, ADAPTER)
    assert all(torch.allclose(found["weighed"][key], found["twice"][key], atol=1e-5) for key in found["twice"])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 5 bytes."),
        MemoryError(),
    ],
)
def test_memory_that_does_not_suffice_is_told_with_the_longest_example(lm, data, tmp_path, monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("augury.train.step.example_losses", full)
    with pytest.raises(ModelError, match=r"(?s)not enough memory for step 1.*longest example.*optimizer.pass_tokens"):
        train(lm, data, tmp_path)
    monkeypatch.setattr("augury.train.step.example_losses", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(lm, data, tmp_path)


def test_losses_stand_on_the_answer_tokens_only(lm, data):
    contract = tiny_contract(lm)
    items = items_of(lm, contract, data)
    losses = token_losses(lm, contract.injection, collate(lm, items, True))
    for item, row in zip(items, losses, strict=True):
        labels = len(item.labelled.token_ids) - item.labelled.answer_start
        assert int((row != 0).sum()) == labels and bool((row[-labels:] > 0).all())


def test_a_resumed_run_continues_to_the_same_losses(lm, data, tmp_path):
    whole, adapter = train(lm, data, tmp_path / "whole")
    train(lm, data, tmp_path / "cut", stop_after=3)
    resumed, again = train(lm, data, tmp_path / "cut")
    assert [row.loss for row in whole] == [row.loss for row in resumed]
    assert [row.step for row in resumed] == list(range(1, 7))
    assert all(torch.equal(adapter[name], again[name]) for name in adapter)


def test_a_killed_run_repeats_only_what_no_checkpoint_holds(lm, data, tmp_path):
    whole, _ = train(lm, data, tmp_path / "whole")
    train(lm, data, tmp_path / "cut", stop_after=3)
    newest = latest(tmp_path / "cut" / "checkpoints")
    for path in newest.iterdir():  # a kill after step 3 without its checkpoint: step 2's is the newest whole one
        path.unlink()
    newest.rmdir()
    resumed, _ = train(lm, data, tmp_path / "cut")
    assert [row.loss for row in whole] == [row.loss for row in resumed]


def nth(call, number, change):
    """`call` with the result of its call of this number, from 1, changed."""
    calls = itertools.count(1)
    return lambda *args, **kwargs: (lambda n, found: change(found) if n == number else found)(
        next(calls), call(*args, **kwargs)
    )


BROKEN = {
    "losses": ("augury.train.step.example_losses", example_losses, lambda losses: losses * float("nan")),
    "gradient": ("torch.nn.utils.clip_grad_norm_", torch.nn.utils.clip_grad_norm_, lambda norm: norm * float("inf")),
}


@pytest.mark.parametrize("broken", list(BROKEN))
def test_training_that_comes_apart_stops_before_the_step_and_keeps_the_last_checkpoint(
    lm, data, tmp_path, monkeypatch, broken
):
    path, call, change = BROKEN[broken]
    with monkeypatch.context() as patch:
        patch.setattr(path, nth(call, 4, change))
        with pytest.raises(ModelError, match=r"(?s)step 4.*step-000002 is whole.*lower optimizer.learning_rate"):
            train(lm, data, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000002"]
    kept = [json.loads(line) for line in (tmp_path / "bad-batch.jsonl").read_text().splitlines()]
    assert len(kept) == 4 and all(example["question"] and example["positions"] for example in kept)
    assert [report.step for report in read_metrics(tmp_path)] == [1, 2, 3]
    steps, adapter = train(lm, data, tmp_path)
    assert len(steps) == 6 and all(torch.isfinite(value).all() for value in adapter.values())


def test_weights_that_are_not_finite_are_not_saved(lm, data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "augury.train.step._apply",
        lambda optimizer, _: torch.nn.init.constant_(optimizer.param_groups[0]["params"][0], float("inf")),
    )
    with pytest.raises(ModelError, match=r"(?s)step 1 .*weights are not finite.*no checkpoint"):
        train(lm, data, tmp_path, checkpoint_every=1)
    assert not (tmp_path / "checkpoints").exists()


def test_without_clipping_the_gradient_is_taken_as_it_is(lm, data, tmp_path):
    (plain, *_), _ = train(lm, data, tmp_path / "plain", stop_after=1, clip=None)
    (wide, *_), _ = train(lm, data, tmp_path / "wide", stop_after=1, clip=1e9)
    assert plain.loss == wide.loss
    a, b = (load_file(latest(tmp_path / name / "checkpoints") / "optimizer.safetensors") for name in ("plain", "wide"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_training_lowers_the_loss_and_leaves_the_base_alone(lm, data, tmp_path):
    before = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
    metrics, _ = train(lm, data, tmp_path / "run", examples=160, learning_rate=2e-2)
    first = sum(row.loss for row in metrics[:6]) / 6
    last = sum(row.loss for row in metrics[-6:]) / 6
    assert last < first - 0.3
    after = dict(lm.model.named_parameters())
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_gradient_checkpointing_changes_nothing(lm, data, tmp_path):
    plain, a = train(lm, data, tmp_path / "plain", share_prefix=False)
    spared, b = train(lm, data, tmp_path / "spared", gradient_checkpointing=True)
    assert [row.loss for row in plain] == pytest.approx([row.loss for row in spared], abs=1e-5)
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_yes_no_questions_are_asked_in_training_as_they_are_later(lm, split):
    contract = tiny_contract(lm)
    for kind in YES_NO_KINDS:
        for wording in bank.wordings("topic" if kind == "near_topic" else kind, split):
            question = wording.format(x="the moon")
            assert prefixed(contract, question, YES_NO) == contract.prompt.yes_no_prefix + question


def test_a_question_that_begins_with_the_prefix_gets_no_second_one(lm, data):
    contract = tiny_contract(lm)
    plain = Example("yes_no", "topic", "train", 0, (12, 13), "Is this about tea?", "Yes", None, "", layers=(2,))
    begun = replace(plain, question=f" {contract.prompt.yes_no_prefix}{plain.question}")
    ids = [prepare(lm, contract, data[1], example).labelled.token_ids for example in (plain, begun)]
    assert ids[0] == ids[1]


def test_learning_rate_warms_up_stays_and_falls_to_zero():
    settings = OptimizerSettings(examples=1600, warmup=0.1, decay=0.25, learning_rate=1.0)
    rates = [learning_rate(settings, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1 and rates[74] == 1
    assert rates[99] == pytest.approx(1 / 25) and rates == sorted(rates[:50]) + sorted(rates[50:], reverse=True)


def test_pools_are_a_function_of_their_number(lm, data):
    examples = examples_of(lm, data[0])
    whole = list(pools(recipe(), training_data(recipe(), examples, data[1]), 0, 6))
    tail = list(pools(recipe(), training_data(recipe(), examples, data[1]), 4, 6))
    assert [step for step, _ in whole] == list(range(6)) and whole[4:] == tail
    assert all(len(batch) == 4 for _, batch in whole)


def test_a_recipe_with_a_wrong_field_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nmodel: y\nlayers: [[1]]\noptimizer: {examples: 5, learning_rat: 1}\nstages: []\n")
    with pytest.raises(FormatError, match="learning_rat"):
        read_recipe(path)


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe().model_dump(mode="json")))
    return path


@pytest.mark.parametrize(
    "setting",
    [
        "optimizer.clip=0",
        "optimizer.clip=-1",
        "optimizer.learning_rate=.inf",
        "optimizer.weight_decay=-0.1",
        "optimizer.betas=[0.9, 1]",
        "lora.alpha=0",
        "lora.target_modules=[]",
        "contexts.answers.temperature=-1",
        "contexts.answers.temperature=.nan",
        "contexts.answers.top_p=0",
        "contexts.answers.top_p=1.5",
        "layers=[]",
        "layers=[[]]",
    ],
)
def test_values_that_would_train_nothing_or_break_later_are_refused(recipe_file, setting):
    name = setting.partition("=")[0]
    with pytest.raises(FormatError, match=name.replace(".", r"\.")):
        read_recipe(recipe_file, [setting])


def test_clipping_is_switched_off_by_null(recipe_file):
    found = read_recipe(recipe_file, ["optimizer.clip=null"])
    assert found.optimizer.clip is None
    assert Recipe.model_validate_json(found.model_dump_json()) == found


def test_a_recipe_that_is_no_text_and_a_setting_that_is_no_yaml_are_told_apart(recipe_file):
    for setting in ("optimizer.examples=[", "name=2026-13-45"):
        with pytest.raises(FormatError, match=rf"^The value of '{re.escape(setting)}' is no YAML"):
            read_recipe(recipe_file, [setting])
    recipe_file.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(FormatError, match=r"(?s)recipe.yaml is no text.*UTF-8"):
        read_recipe(recipe_file)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_what_is_measured_during_a_run_is_what_is_measured_after_it(lm, data, tmp_path, checkpointing):
    contract, seen = tiny_contract(lm), []
    assert lm.shares_prefixes  # tried outside: sampling and capturing come first in a run
    made = recipe(gradient_checkpointing=checkpointing, examples=12)
    asked = [example for example in examples_of(lm, data[0])["asked"] if example.task == "yes_no"][:8]

    def margins():
        return yes_no_margins(lm, contract, ADAPTER, asked, data[1])

    try:
        run = training_data(made, examples_of(lm, data[0]), data[1])
        train_adapter(lm, contract, made, run, tmp_path, on_step=lambda _: seen.append(margins()))
        assert seen[-1] == pytest.approx(margins(), abs=1e-4)
    finally:
        remove_adapter(lm, ADAPTER)
