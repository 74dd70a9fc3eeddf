"""A tiny run to its very end: report, contract and card hold the figures that were measured."""

from __future__ import annotations

import json
import random

import pytest
import torch

from augury.data import bank
from augury.data.example import Context
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_parameters, remove_adapter
from augury.oracle.load import load_oracle
from augury.train.finish import finish_run
from augury.train.loop import ADAPTER, train_adapter
from augury.train.metrics import read_metrics
from augury.train.prepare import BankSet, Prepared
from augury.train.provenance import counted, described
from augury.train.reads import cache_reads
from augury.train.report import ReportSize
from tests.tiny import tiny_contract, tiny_lm
from tests.training import examples_of, recipe, training_data, two_turns

SIZE = ReportSize(lens=6, topic_pairs=8, anywhere_pairs=8, other_pairs=8, open_topics=4, source=12)


def rollouts_of(lm: LanguageModel, split: bank.Split, count: int = 16) -> list[Context]:
    """Random tokens under real topics, long enough for 50 tokens beside a window."""
    rng = random.Random(split)
    found = []
    for i, topic in enumerate(rng.sample(bank.topics_of(split), count)):
        ids = tuple(rng.randrange(3, lm.vocab_size) for _ in range(90))
        labels = {"topic": topic.name, "category": topic.category}
        found.append(two_turns(i, split, ids, (4, 16), (20, 90), labels))
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run, its oracle, and what was told on the way."""
    run, lm, phases = tmp_path_factory.mktemp("run"), tiny_lm(), []
    rollouts = {split: rollouts_of(lm, split) for split in ("train", "heldout")}
    reads = {split: cache_reads(lm, found, [2], run / "reads", split) for split, found in rollouts.items()}
    contract = described(tiny_contract(lm), recipe(), lm, "f" * 64)
    data = training_data(recipe(), examples_of(lm, rollouts["train"]), reads["train"])
    heldout = examples_of(lm, rollouts["heldout"], split="heldout")
    bank_set = BankSet(rollouts, reads, ("topic",))
    contexts, own = {"answers": rollouts["heldout"]}, {"answers": reads["heldout"]}
    prepared = Prepared(lm, contract, data, heldout, contexts, own, bank_set, "f" * 64)
    try:
        train_adapter(lm, contract, recipe(), data, run)
        contract = counted(contract, read_metrics(run))
        oracle = finish_run(recipe(), run, prepared, contract, SIZE, lambda phase, done, total: phases.append(phase))
    finally:
        remove_adapter(lm, ADAPTER)
    return run, oracle, phases


def test_the_report_says_what_was_measured_of_what(finished):
    run, _, phases = finished
    report = json.loads((run / "report.json").read_text())
    assert report["trained_on"]["steps"] == 6 and report["weights_fingerprint"] and report["versions"]["torch"]
    assert {(row["task"], row["max_k"]) for row in report["lens"]} == {
        (task, k) for task in ("past_lens", "future_lens") for k in (8, 50)
    }
    assert {row["window"] for row in report["yes_no"]} == {row["window"] for row in report["topic"]} == {1, 10}
    assert {"all", "topic", "topic, anywhere"} <= {row["kind"] for row in report["yes_no"]}
    assert any(phase.startswith("report") for phase in phases)


def test_the_report_is_readable(finished):
    run, _, _ = finished
    text = (run / "report.md").read_text()
    for part in (
        "### Lens loss",
        "### Yes/no questions",
        "### Open topic question",
        "| past | 1..8 |",
        "| topic | 1 |",
        "### Loss of each source",
        "| lens |",
    ):
        assert part in text


def test_the_oracle_carries_its_figures_in_contract_and_card(finished):
    run, folder, _ = finished
    evaluation = json.loads((folder / "oracle.json").read_text())["evaluation"]
    assert any(name.startswith("past lens") for name in evaluation)
    topic = next(row for name, row in evaluation.items() if name.startswith("yes/no AUC, topic, at 1 "))
    assert {"oracle", "shuffled", "none", "untrained", "text-window", "text-all", "questions"} <= topic.keys()
    report = json.loads((run / "report.json").read_text())
    measured = next(row for row in report["yes_no"] if (row["kind"], row["window"]) == ("topic", 1))
    assert topic["oracle"][0] == pytest.approx(measured["auc"]["oracle"]["estimate"], abs=1e-4)
    card = (folder / "README.md").read_text()
    figures = card[card.index("## Figures") :]
    assert "None were measured" not in figures and "past lens, k up to 8" in figures and "yes/no AUC, topic" in figures


def test_the_oracle_is_the_adapter_that_was_trained(finished):
    run, folder, _ = finished
    lm = tiny_lm()
    oracle, checkpoint = load_oracle(folder, lm), load_oracle(run / "checkpoints" / "step-000006", lm)
    assert oracle.contract.trained_on is not None and oracle.contract.evaluation
    kept = adapter_parameters(lm.model, checkpoint.adapter)
    for name, parameter in adapter_parameters(lm.model, oracle.adapter).items():
        assert torch.equal(parameter, kept[name].half().float())
