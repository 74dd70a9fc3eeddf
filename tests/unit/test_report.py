"""The measure itself: an oracle that is told the answer scores 1.0; a random one, or swapped evidence, chance."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from augury.data import bank
from augury.lm.adapters import add_adapter, remove_adapter
from augury.oracle import choices
from augury.stats import auc_interval
from augury.train import lens_report as lens
from augury.train import question_report as questions
from augury.train import report as report_room
from augury.train import topic_probe
from augury.train.batching import prepare
from augury.train.prepare import BankSet, Prepared
from augury.train.reads import LiveReads, cache_reads
from augury.train.topic_report import topic_report
from tests.tiny import tiny_contract, tiny_lm
from tests.training import two_turns


class Kept:
    """Activations that are at hand: `[1, tokens, d_model]` of each context."""

    def __init__(self, tensors):
        self._tensors = tensors

    def prefetch(self, examples):
        pass

    def vectors(self, context, layers, positions):
        return self._tensors[context][0, list(positions)]

    def text(self, example):
        return None


KINDS = {"topic": 160, "speaker": 100}


@pytest.fixture(scope="module")
def lm():
    found = tiny_lm()
    add_adapter(found, {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}, "oracle")
    yield found
    remove_adapter(found, "oracle")


@pytest.fixture(scope="module")
def rollouts(lm):
    rng = random.Random(0)
    topics = rng.sample(bank.topics_of("heldout"), 30)
    found = []
    for i, topic in enumerate(topics):
        ids = tuple(rng.randrange(3, lm.vocab_size) for _ in range(60))
        labels = {"topic": topic.name, "category": topic.category}
        found.append(two_turns(i, "heldout", ids, (4, 10), (14, 60), labels))
    return found


@pytest.fixture(scope="module")
def reads(lm, rollouts, tmp_path_factory):
    return cache_reads(lm, rollouts, [2], tmp_path_factory.mktemp("reads"), "heldout")


@pytest.fixture(scope="module")
def asked(lm, rollouts, reads):
    contract = tiny_contract(lm)
    examples = questions.yes_no_examples(rollouts, KINDS, 3, lm.tokenizer.decode)
    items = [prepare(lm, contract, reads, replace(example, layers=(2,))) for example in examples]
    return contract, examples, items


def key(row):
    return row.prompt.token_ids, row.vectors.numpy().tobytes() if row.vectors is not None else b""


def report(lm, rollouts, reads, contract, examples):
    results = questions.yes_no_report(lm, contract, "oracle", examples, rollouts, reads, controls=("shuffled", "none"))
    return {result.kind: result.auc for result in results}


def test_an_oracle_that_is_told_the_answer_scores_one(lm, rollouts, reads, asked, monkeypatch):
    contract, examples, items = asked
    told = {key(row): example.yes for row, example in zip(questions.item_rows(items), examples, strict=True)}
    rng = np.random.default_rng(1)

    def cheat(runner, rows, token_ids, done=None):
        half = len(token_ids) // 2
        out = torch.full((len(rows), len(token_ids)), -3.0)
        for i, row in enumerate(rows):
            yes = told.get(key(row), bool(rng.random() < 0.5))  # swapped or absent evidence: nothing is known
            out[i, :half] += 3.0 * yes + float(rng.normal()) * 0.01
        return out

    monkeypatch.setattr(choices, "next_logprobs", cheat)
    auc = report(lm, rollouts, reads, contract, examples)
    for kind in ("all", "topic", "speaker"):
        assert auc[kind]["oracle"].estimate == 1.0
    assert auc["all"]["shuffled"].low < 0.5 < auc["all"]["shuffled"].high
    assert auc["all"]["none"].low < 0.5 < auc["all"]["none"].high


def test_a_random_oracle_scores_chance(lm, rollouts, reads, asked, monkeypatch):
    contract, examples, _ = asked
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(
        choices,
        "next_logprobs",
        lambda runner, rows, token_ids, done=None: torch.randn(len(rows), len(token_ids), generator=generator),
    )
    auc = report(lm, rollouts, reads, contract, examples)["all"]["oracle"]
    assert auc.low < 0.5 < auc.high and auc.high - auc.low < 0.4


def test_pairs_are_balanced_within_each_wording_and_read(asked):
    _, examples, _ = asked
    for first, second in zip(examples[::2], examples[1::2], strict=True):
        assert (first.answer, second.answer) == ("Yes", "No")
        assert (first.context, first.positions, first.wording) == (second.context, second.positions, second.wording)
        assert first.question != second.question


def test_held_out_questions_use_held_out_topics_and_wordings_only(asked):
    _, examples, _ = asked
    training = {text for kind in KINDS for text in bank.wordings(kind, "train")}
    names = {topic.answer for topic in bank.topics_of("train")}
    for example in examples:
        kind, wording = example.wording.split(":", 1)
        assert wording not in training and bank.split_of("wording", f"{kind}:{wording}") == "heldout"
        if kind == "topic":
            assert not any(example.question == wording.format(x=name) for name in names)


def test_no_donor_is_of_the_same_rollout_or_topic(lm, rollouts, reads, asked):
    _, _, items = asked
    for item, donor in zip(items, lens.shuffled_items(items, rollouts, reads, (2,)), strict=True):
        assert donor.labelled is item.labelled and donor.vectors.shape == item.vectors.shape
        assert not torch.equal(donor.vectors, item.vectors)


@pytest.mark.parametrize("window", [1, 4, 10])
def test_a_read_of_the_requests_end_is_shuffled_for_one_of_another_requests_end(lm, rollouts, reads, window):
    contract = tiny_contract(lm)
    examples = questions.yes_no_examples(rollouts, {"topic": 40}, window, lm.tokenizer.decode)
    by_id = {rollout.number: rollout for rollout in rollouts}
    for example in examples:
        own = by_id[example.context]
        assert own.user[1] - 1 in example.positions and example.positions[-1] < own.assistant[0]
        assert len(example.positions) == window
    items = [prepare(lm, contract, reads, replace(example, layers=(2,))) for example in examples]
    for item, donor in zip(items, lens.shuffled_items(items, rollouts, reads, (2,)), strict=True):
        own = by_id[item.example.context]
        starts = [
            reads.vectors(other.number, (2,), range(first, first + window))
            for other in rollouts
            if other.labels["topic"] != own.labels["topic"]
            for first in [item.example.positions[0] - own.assistant[0] + other.assistant[0]]
        ]
        assert any(torch.equal(donor.vectors, start) for start in starts)


def test_the_shuffled_control_does_not_tell_whose_turn_it_is(lm, rollouts, reads):
    contract = tiny_contract(lm)
    examples = questions.yes_no_examples(rollouts, {"speaker": 100}, 2, lm.tokenizer.decode)
    items = [prepare(lm, contract, reads, replace(example, layers=(2,))) for example in examples]
    users = {
        reads.vectors(r.number, (2,), range(first, first + 2)).numpy().tobytes()
        for r in rollouts
        for first in range(r.user[0], r.user[1] - 1)
    }
    same = []
    for item, donor in zip(items, lens.shuffled_items(items, rollouts, reads, (2,)), strict=True):
        of_user = donor.vectors.numpy().tobytes() in users
        same.append(of_user == (item.example.positions[-1] < 13))
    assert 0.35 < sum(same) / len(same) < 0.65


def test_a_kind_with_one_rollout_is_left_out(lm, rollouts, reads, asked):
    contract, examples, _ = asked
    alone = next(example for example in examples if example.kind == "speaker").context
    kept = [e for e in examples if e.kind == "topic" or e.context == alone]
    results = questions.yes_no_report(lm, contract, "oracle", kept, rollouts, reads, controls=())
    assert [result.kind for result in results] == ["all", "topic", questions.NAMELESS]
    assert results[0].questions == sum(example.kind == "topic" for example in examples)


@pytest.mark.parametrize("signal", [0.0, 3.0])
def test_the_topic_probe_reads_topics_it_never_saw_if_they_are_there(lm, monkeypatch, signal):
    generator = torch.Generator().manual_seed(0)
    names = {
        t.answer: torch.nn.functional.normalize(torch.randn(16, generator=generator), dim=0) for t in bank.topics()
    }
    monkeypatch.setattr(topic_probe, "topic_directions", lambda lm, layer: names)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    sets, tensors = {}, {}
    for split, count in (("train", 400), ("heldout", 120)):
        pool = bank.topics_of(split)
        found = []
        for i in range(count):
            topic, number = pool[i % len(pool)], len(tensors)
            vectors = signal * names[topic.answer] @ turn + torch.randn(60, 16, generator=generator)
            tensors[number] = vectors[None]
            labels = {"topic": topic.name, "category": topic.category}
            found.append(two_turns(number, split, tuple(range(60)), (4, 10), (14, 60), labels))
        sets[split] = found
    reads = Kept(tensors)
    probe = topic_probe.fit_topic_probe(lm, 2, sets["train"], reads, 4, "request_end")
    examples = questions.yes_no_examples(sets["heldout"], {"topic": 120}, 4, lm.tokenizer.decode)
    auc = auc_interval(probe.scores(examples, reads), [e.yes for e in examples], [e.context for e in examples])
    assert auc.low > 0.9 if signal else auc.low < 0.5 < auc.high


def test_a_near_topics_negative_is_of_its_own_area(rollouts, lm):
    examples = questions.yes_no_examples(rollouts, {"near_topic": 30, "topic": 30}, 2, lm.tokenizer.decode)
    areas = {topic.answer: topic.category for topic in bank.topics_of("heldout")}
    by_id = {rollout.number: rollout for rollout in rollouts}
    for example in examples:
        head, tail = example.wording.partition(":")[2].split("{x}")
        asked = example.question[len(head) : len(example.question) - len(tail)]
        named = next(name for name in areas if name.lower() == asked.lower())
        own = bank.topic_named(by_id[example.context].labels["topic"])
        assert (named == own.answer) is example.yes
        assert example.yes or (areas[named] == own.category) is (example.kind == "near_topic")


def test_a_report_that_was_cut_off_measures_only_what_is_missing(lm, rollouts, reads, tmp_path, monkeypatch):
    contract = tiny_contract(lm)
    found = BankSet({"heldout": rollouts}, {"heldout": reads}, ("topic",))
    prepared = Prepared(lm, contract, None, {}, {}, {}, found, "f" * 64)
    size, kept = report_room.ReportSize(6, 4, 4, 4, 4), tmp_path / "parts.json"
    whole = report_room.make_report(prepared, contract, "oracle", size)
    measured = []

    def cut_off(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(report_room, "topic_report", cut_off)
        report_room.make_report(prepared, contract, "oracle", size, kept=kept)
    real = report_room.lens_report
    monkeypatch.setattr(report_room, "lens_report", lambda *a, **k: measured.append(k["max_k"]) or real(*a, **k))
    assert report_room.make_report(prepared, contract, "oracle", size, kept=kept) == whole
    assert measured == [50, 50], "what was measured before the cut was measured again"
    smaller = report_room.ReportSize(5, 4, 4, 4, 4)
    report_room.make_report(prepared, contract, "oracle", smaller, kept=kept)
    assert measured[2:] == [8, 8, 50, 50], "parts of another size were taken for this one"


def test_lens_losses_equal_a_plain_pass_and_the_targets_own_loss(lm, rollouts, reads):
    contract = tiny_contract(lm)
    examples = lens.lens_examples(lm, rollouts, "future_lens", 4, 20)
    result = lens.lens_report(lm, contract, "oracle", examples, rollouts, reads, max_k=4)
    by_id = {rollout.number: rollout for rollout in rollouts}
    own, tokens = 0.0, 0
    for example in examples:
        ids = torch.tensor([by_id[example.context].token_ids])
        with torch.no_grad():
            logprobs = lm.model(ids).logits[0].log_softmax(-1)
        for position in range(example.positions[-1] + 1, example.positions[-1] + 1 + len(example.answer_ids)):
            own -= float(logprobs[position - 1, ids[0, position]])
            tokens += 1
    assert result.target.estimate == pytest.approx(own / tokens, abs=1e-4)
    assert result.real.low < result.real.estimate < result.real.high
    want = min(result.none.estimate, result.shuffled.estimate) - result.real.estimate
    assert result.gap.estimate == pytest.approx(want, abs=1e-9)


def test_nothing_of_a_lens_answer_lies_in_the_window(lm, rollouts):
    by_id = {rollout.number: rollout for rollout in rollouts}
    for task in ("past_lens", "future_lens"):
        for example in lens.lens_examples(lm, rollouts, task, 8, 60):
            ids, k = by_id[example.context].token_ids, len(example.answer_ids)
            first, last = example.positions[0], example.positions[-1]
            place = slice(first - k, first) if task == "past_lens" else slice(last + 1, last + 1 + k)
            assert ids[place] == example.answer_ids and 1 <= k <= 8 and 1 <= len(example.positions) <= 8


def test_long_k_is_as_frequent_as_short(lm, rollouts):
    lengths = [len(e.answer_ids) for e in lens.lens_examples(lm, rollouts, "past_lens", 40, 800)]
    counts = np.bincount(np.array(lengths) - 1, minlength=40).reshape(4, 10).sum(1)
    assert min(lengths) == 1 and max(lengths) <= 40
    assert counts.min() > 140, f"k in tens: {counts}"  # of 800: 200 each, less where the window leaves no room
    used = np.bincount([e.context for e in lens.lens_examples(lm, rollouts, "past_lens", 8, 60)])
    assert used.max() - used.min() <= 1, "some rollouts are asked more often than others"


def test_a_name_in_the_window_is_told_apart(lm, rollouts):
    """Every second rollout has its topic's name inside the window: a reader of names has 0.75, and 1.0 and 0.5."""
    spelled = {r.number: lm.tokenizer(f" {bank.topic_named(r.labels['topic']).name}.")["input_ids"] for r in rollouts}
    short = [r for r in rollouts if len(spelled[r.number]) <= 10]
    made = []
    for i, rollout in enumerate(short[: len(short) // 2 * 2]):
        ids, name = list(rollout.token_ids), spelled[rollout.number]
        if i % 2 == 0:
            ids[10 - len(name) : 10] = name
        made.append(two_turns(rollout.number, "heldout", ids, (0, 10), rollout.assistant, rollout.labels))
    reads = Kept({r.number: torch.randn(1, 60, 48) for r in made})
    examples = questions.yes_no_examples(made, {"topic": len(made)}, 14, lm.tokenizer.decode)
    results = questions.yes_no_report(lm, tiny_contract(lm), "oracle", examples, made, reads, controls=())
    found = {result.kind: result for result in results}
    assert 0.6 < found["topic"].auc["string match"].estimate < 0.9
    assert found[questions.NAMELESS].auc["string match"].estimate == 0.5
    assert found[questions.NAMELESS].questions * 2 == found["topic"].questions


def test_an_oracle_that_is_told_the_topic_names_it(lm, rollouts, reads, monkeypatch):
    contract = tiny_contract(lm)
    topics = {}
    for rollout in rollouts:
        for first in range(rollout.user[0], rollout.assistant[0] - 3):
            key = reads.vectors(rollout.number, (2,), range(first, first + 4)).numpy().tobytes()
            topics[key] = bank.topic_named(rollout.labels["topic"]).name
    monkeypatch.setattr(
        "augury.train.topic_report.decode_rows",
        lambda runner, rows, sampling: [
            [lm.tokenizer(f"the {topics[row.vectors.numpy().tobytes()]}.", add_special_tokens=False)["input_ids"]]
            for row in rows
        ],
    )
    result = topic_report(lm, contract, "oracle", rollouts, reads, window=4, count=30)
    assert result.real.estimate == 1.0 and result.real.low < 1.0, "thirty of thirty prove no certainty"
    assert result.shuffled.estimate == 0.0 and result.shuffled.high > 0.0
    assert result.nameless is not None and result.nameless.estimate == 1.0


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ("the moon", True), ("Moon.", True), ("moonlight", False), ("honeymoon", False), ("A trip to the moon!", True),
        ("of the moon.\nassistant", True), ("moons", False), ("", False),
    ],
)  # fmt: skip
def test_a_topic_is_named_by_whole_words_only(answer, names):
    assert questions.names_topic(answer, bank.topic_named("moon")) is names


def test_activations_that_are_captured_live_give_the_same_figures(lm, rollouts, reads):
    contract, live = tiny_contract(lm), LiveReads(lm, rollouts)
    examples = lens.lens_examples(lm, rollouts, "past_lens", 4, 12)
    found = [lens.lens_losses(lm, contract, "oracle", examples, rollouts, kind) for kind in (reads, live)]
    assert np.allclose(*found, atol=2e-2)  # float16 on disk
    asked = questions.yes_no_examples(rollouts, {"topic": 6}, 3, lm.tokenizer.decode)
    auc = questions.yes_no_report(lm, contract, "oracle", asked, rollouts, live, controls=("shuffled",))
    assert {"oracle", "shuffled"} <= auc[0].auc.keys()
