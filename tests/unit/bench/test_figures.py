"""What a run sums up beside plain figures: the probe, the calibration of agreement, and AObench's aggregate."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from augury.bench import baseline
from augury.bench.aggregate import TASKS, aggregate
from augury.bench.agreement import calibrations
from augury.bench.asks import Ask
from augury.bench.baseline import probe_items, probed
from augury.bench.dose import dose_of
from augury.bench.engine import ORACLE, PROBE, RATERS
from augury.bench.item import Item, Manifest
from augury.bench.marks import measures_of
from augury.bench.profile import Profile
from augury.bench.readings import Reading, Taken
from augury.bench.summary import MeasureSummary, TaskSummary, summary_of, task_summary
from augury.bench.task import NO, REGISTRY, YES, Task
from augury.contract import ModelIdentity
from augury.stats.clusters import Figure, mean_figure
from augury.stats.dose import threshold

MANIFEST = Manifest(name="x", model=ModelIdentity(name="m", d_model=8, n_layers=2), origin="o", licence="l")
PLAIN = Task("plain", "", "x", "yes_no", ("Is it?",), window=2)


def items(count, question="", problems=None):
    return [
        Item(f"{question}{i}", f"p{i % problems if problems else i}", (i, i + 1, i + 2), (1, 2),
             {"truth": YES if i % 2 else NO, "asked": question})
        for i in range(count)
    ]  # fmt: skip


def activations(found, signal, seed=0):
    """Vectors of which one direction says what is true, as strongly as told."""
    draw = torch.Generator().manual_seed(seed)
    taken = {}
    for item in found:
        vectors = torch.randn(2, 2, 8, generator=draw)
        vectors[:, :, 0] += signal * (1 if item.facts["truth"] == YES else -1)
        taken[Reading.of(item)] = Taken((1, 2), vectors)
    return taken


def test_a_probe_needs_two_hundred_items_to_learn_from():
    assert probe_items(PLAIN, items(249)) == [] and [len(g) for g in probe_items(PLAIN, items(250))] == [250]
    asked = replace(PLAIN, questions=("Is it {asked}?",))
    assert probe_items(asked, [*items(250, "a"), *items(250, "b")]) != []
    assert probe_items(asked, [*items(250, "a"), *items(20, "b")]) == [], "one question has too few"
    assert probe_items(replace(PLAIN, kind="word"), items(300)) == []


@pytest.mark.parametrize(("signal", "low", "high"), [(3.0, 0.97, 1.0), (0.0, 0.38, 0.62)])
def test_a_probe_finds_what_is_there_and_nothing_else(signal, low, high):
    found = items(300)
    asks = [Ask(item, 2, 0, "Is it?") for item in found[:120]]
    results = probed(PLAIN, [found], asks, activations(found, signal), 0)
    assert results is not None and len(results) == 120 and {r["fold"] for r in results} <= set(range(5))
    told = {rater: [{"log_probs": [0.0, 0.0]}] * 120 for rater in RATERS} | {PROBE: results}
    figure = task_summary(PLAIN, MANIFEST, asks, told).headline.raters[PROBE]
    assert low <= figure.estimate <= high


def test_a_probes_scores_are_compared_within_a_fold_alone():
    """Scores of other folds have another scale: shifting a fold's changes nothing."""
    found = items(300)
    asks = [Ask(item, 2, 0, "Is it?") for item in found]
    results = probed(PLAIN, [found], asks, activations(found, 0.4), 0)
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 50, 5)
    moved = [{**r, "log_probs": [r["log_probs"][0] + shifts[r["fold"]], 0.0]} for r in results]
    base = {rater: [{"log_probs": [0.0, 0.0]}] * 300 for rater in RATERS}
    one, other = (task_summary(PLAIN, MANIFEST, asks, base | {PROBE: rows}).headline for rows in (results, moved))
    assert one.raters[PROBE] == other.raters[PROBE] and 0.6 < one.raters[PROBE].estimate < 0.95


def test_problems_are_held_out_whole():
    """Each problem has its own direction and one truth: who sees it in training knows it."""
    found = [
        replace(item, facts={"truth": YES if int(item.problem[1:]) % 2 else NO}) for item in items(300, problems=20)
    ]
    taken = {}
    for item in found:
        draw = torch.Generator().manual_seed(int(item.problem[1:]))
        taken[Reading.of(item)] = Taken((1, 2), torch.randn(2, 2, 64, generator=draw))
    asks = [Ask(item, 2, 0, "Is it?") for item in found]
    results = probed(PLAIN, [found], asks, taken, 0)
    base = {rater: [{"log_probs": [0.0, 0.0]}] * 300 for rater in RATERS}
    figure = task_summary(PLAIN, MANIFEST, asks, base | {PROBE: results}).headline.raters[PROBE]
    assert abs(figure.estimate - 0.5) < 0.35
    few = [replace(item, problem=f"p{i % 4}") for i, item in enumerate(found)]
    assert probed(PLAIN, [few], asks, taken, 0) is None
    assert baseline.FOLDS == 5


def test_the_own_features_are_means_of_unit_vectors_layer_by_layer():
    vectors = torch.randn(3, 4, 8)
    found = baseline._feature(Taken((5, 6, 7, 9), vectors), (6, 9))
    by_hand = [sum(vectors[layer, i] / vectors[layer, i].norm() for i in (1, 3)) / 2 for layer in range(3)]
    assert np.allclose(found, torch.cat(by_hand).numpy(), atol=1e-6)


WORD = Task("word", "", "x", "word", ("What?",), window=2, samples=10)


def sampled(truths, shares, sure):
    """Asks whose samples agree with so large a share, on the truth or not."""
    asks, results = [], []
    for i, (right, share, confidence) in enumerate(zip(truths, shares, sure, strict=True)):
        item = Item(str(i), f"p{i}", (1, 2), (0, 1), {"truth": "owl", "also": ""})
        most = "an owl" if right else "a cat"
        said = [most] * round(10 * share) + [f"x{j}" for j in range(10 - round(10 * share))]
        asks.append(Ask(item, 2, 0, "What?"))
        results.append({"text": most, "samples": said, "log_prob": math.log(confidence)})
    return asks, results


def test_calibration_against_a_simulation():
    rng = random.Random(0)
    shares = [rng.choice([0.2, 0.4, 0.6, 0.8, 1.0]) for _ in range(4000)]
    asks, results = sampled([rng.random() < share for share in shares], shares, [0.5] * 4000)
    agreement, log_prob = calibrations(WORD, asks, results)
    assert agreement.ece < 0.04, "it is right as often as it agrees"
    right = sum(r["samples"][0] == "an owl" for r in results) / 4000
    assert log_prob.ece == pytest.approx(abs(0.5 - right)) and log_prob.auc.estimate == 0.5
    by_threshold = {row.threshold: row for row in agreement.at_least}
    kept = [r["samples"][0] == "an owl" for r, share in zip(results, shares, strict=True) if share >= 0.7]
    assert by_threshold[0.7].answered == len(kept)
    assert by_threshold[0.7].precision.estimate == pytest.approx(sum(kept) / len(kept))
    assert by_threshold[0.7].recall == pytest.approx(sum(kept) / (right * 4000))
    assert agreement.auc.low > 0.6
    assert 0 < agreement.ece_by_chance < 0.06 and agreement.ece < agreement.ece_by_chance, "it is calibrated"
    assert agreement.gap.low < 0 < agreement.gap.high
    assert log_prob.ece > log_prob.ece_by_chance and log_prob.gap.estimate == pytest.approx(0.5 - right)


def test_calibration_of_nothing_and_of_one_answer():
    assert calibrations(WORD, *sampled([], [], [])) == []
    asks, results = sampled([True] * 8, [1.0] * 8, [0.9] * 8)
    agreement, _ = calibrations(WORD, asks, results)
    assert agreement.auc is None and agreement.ece == 0 and agreement.at_least[0].precision.estimate == 1
    asks, results = sampled([False] * 8, [0.3] * 8, [0.9] * 8)
    agreement, _ = calibrations(WORD, asks, results)
    assert agreement.at_least[-1].precision is None and agreement.at_least[-1].recall is None


def test_sampled_answers_come_from_the_oracle_alone(run, tmp_path):
    found = run("topic").tasks[0]
    assert [one.confidence for one in found.calibrations] == ["agreement", "log-probability"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "answers" / "topic.jsonl").open()][1:]
    assert all(("samples" in row) == (row["rater"] == ORACLE) for row in rows)
    own = [row for row in rows if row["rater"] == ORACLE]
    assert all(len(row["samples"]) == 10 and row["log_prob"] <= 0 for row in own)
    assert any(len(set(row["samples"])) > 1 for row in own), "samples differ"


def summary_with(name, estimates, kind):
    """A task's summary in which the oracle has a figure in each measure."""
    task = REGISTRY.tasks[name]
    measures = {}
    for measure in measures_of(task):
        own = Figure(estimates.get(measure.name, estimates.get("*", 0.0)), None, None, 1, 1, "none")
        measures[measure.name] = MeasureSummary(measure, {ORACLE: own}, {}, {}, {}, {}, 1)
    assert next(iter(measures.values())).measure.kind == kind
    return TaskSummary(task, MANIFEST, measures, {})


def test_the_aggregate_is_the_published_formula():
    """Against the table that is published for four oracles: its rows give its own aggregates."""
    table = {
        "hallucination": (.706, .739, .740, .710), "vagueness": (.411, .680, .685, .893),
        "activation_sensitivity": (.511, .778, .800, .911), "backtracking": (2.13, 2.37, 2.31, 2.21),
        "domain_confusion": (.152, .257, .244, .264), "missing_info": (.582, .733, .743, .644),
        "mmlu_prediction": (.611, .680, .723, .692), "number_prediction": (.013, .040, .073, .033),
        "sycophancy": (.775, .724, .740, .860), "taboo": (.280, .429, .407, .478),
        "personaqa": (.074, .170, .139, .172),
    }  # fmt: skip
    kinds = {"backtracking": "scale"} | dict.fromkeys(("missing_info", "mmlu_prediction", "sycophancy"), "auc")
    for column, published in enumerate((0.306, 0.428, 0.439, 0.469)):
        tasks = []
        for name in TASKS:
            measure = "not obviously wrong" if name == "hallucination" else "*"
            tasks.append(summary_with(name, {measure: table[name][column]}, kinds.get(name, "rate")))
        found = aggregate(tasks)
        assert found.value.estimate == pytest.approx(published, abs=6e-4) and not found.missing
    two = aggregate(
        [summary_with(n, {"*": v}, "auc") for n, v in (("mmlu_prediction", 0.9), ("mmlu_prediction_after", 0.7))]
    )
    assert two.value.estimate == pytest.approx(0.6) and len(two.missing) == len(TASKS) - 1
    assert aggregate([]).value is None


def planted_summary(by_strength):
    """A run in which so large a share of pairs is told apart at each strength."""
    asks, results = [], []
    for strength, share in by_strength.items():
        for i in range(20):
            for truth in (YES, NO):
                item = Item(f"{strength} {i} {truth}", f"p{strength}{i}", (1,), (0,),
                            {"truth": truth, "strength": f"{strength:g}", "concept": f"{strength} {i}"})  # fmt: skip
                asks.append(Ask(item, 10, 0, "?"))
                right = i < 20 * share
                results.append({"log_probs": [1.0 if (truth == YES) == right else -1.0, 0.0]})
    told = dict.fromkeys(RATERS, results)
    return task_summary(REGISTRY.tasks["planted"], MANIFEST, asks, told)


def test_the_strength_from_which_three_of_four_are_told_apart():
    found = planted_summary({0.1: 0.5, 0.2: 0.7, 0.4: 0.8}).dose
    assert found.strength == pytest.approx(0.3) and found.tried == 3
    assert 0.1 < found.low < found.strength and found.high is None, "by the lower ends at none that was tried"
    assert planted_summary({0.1: 0.9, 0.2: 1.0}).dose.strength == 0.1, "the least that was tried"
    assert planted_summary({0.1: 0.4, 0.2: 0.7}).dose.strength is None


def test_the_interval_of_that_strength_holds_it():
    """Pairs that are told apart so much more often with strength, each concept pair with a bent of its own."""
    rng, doses, held = np.random.default_rng(0), (0.1, 0.2, 0.4, 0.7, 1.0), []

    def share(dose, bent=0.0):
        return 0.5 + 0.5 / (1 + np.exp(-(dose - 0.4) / 0.12 - bent))

    bents = rng.normal(0, 0.5, 10**5)
    truth = threshold(doses, [float(share(dose, bents).mean()) for dose in doses], 0.75)
    for _ in range(1000):
        pairs = rng.normal(0, 0.5, 12)
        told = {f"{d:g}": mean_figure((rng.random((12, 6)) < share(d, pairs)[:, None]).mean(1)) for d in doses}
        found = dose_of(told)
        held.append((found.low or 0) <= truth <= (found.high or np.inf))
    assert np.mean(held) >= 0.92


def test_the_headline_is_the_mean_of_both_tiers_with_an_interval():
    """Against the errors of its parts by hand: four tasks of three organisms, and one of twelve pairs of concepts."""

    def task(name, auc, clusters, error):
        own = Figure(auc, None, None, 40, clusters, "none", error, clusters - 1.0)
        entry = REGISTRY.tasks[name]
        (measure,) = measures_of(entry)
        kept = MeasureSummary(measure, {ORACLE: own}, {}, {}, {}, {}, 40)
        return TaskSummary(entry, MANIFEST, {measure.name: kept}, {})

    names = ("secret_word", "persona", "gender", "side_constraint")
    held = [task(name, auc, 3, 0.05) for name, auc in zip(names, (0.6, 0.7, 0.5, 0.6), strict=True)]
    found = summary_of({}, [*held, task("planted", 0.9, 12, 0.03)])
    weights, planted = (found.tiers[tier] for tier in ("held in the weights", "planted state"))
    assert weights.estimate == pytest.approx(0.2) and weights.error == pytest.approx(0.1 / 2) and weights.clusters == 12
    assert planted.estimate == pytest.approx(0.8) and planted.error == pytest.approx(0.06)
    assert found.headline.estimate == pytest.approx(0.5)
    assert found.headline.error == pytest.approx((0.05**2 + 0.06**2) ** 0.5 / 2)
    assert found.headline.low < 0.5 < found.headline.high
    alone = summary_of({}, held)
    assert alone.headline is None and alone.tiers["planted state"] is None
    assert alone.to_dict()["tiers"]["held in the weights"]["low"] == weights.low


def test_windows_are_compared_over_the_items_that_were_asked_at_all_of_them():
    """At its own window the later items are easier; the sweep must not show that as a gain of the window."""
    task = replace(PLAIN, sweep=(1, 3), questions=("Is it?", "Is it so?"))
    profile = Profile("p", None, 40, 2, sweep=True, swept=16)
    found = items(60)
    asks = profile.asks(task, tuple(found))
    assert [len([a for a in asks if (a.window, a.wording) == at]) for at in ((2, 0), (2, 1), (1, 0), (3, 0))] == [
        40, 40, 16, 16]  # fmt: skip
    assert {ask.item.id for ask in asks if ask.window != 2} == {str(i) for i in range(16)}
    results = [
        {"log_probs": [1.0 if (ask.item.facts["truth"] == YES) == (int(ask.item.id) >= 16) else -1.0, 0.0]}
        for ask in asks
    ]
    measure = task_summary(task, MANIFEST, asks, dict.fromkeys(RATERS, results)).headline
    assert {window: by[ORACLE].estimate for window, by in measure.windows.items()} == {1: 0, 2: 0, 3: 0}
    assert measure.raters[ORACLE].estimate > 0.5
    dosed = replace(profile, dosed=52).asks(replace(task, tier="planted state"), tuple(found))
    assert len({ask.item.id for ask in dosed}) == 52 and len(profile.asks(task, tuple(found))) == 40 * 2 + 16 * 2
    opened = replace(profile, opened=8).asks(replace(task, kind="open"), tuple(found))
    assert len(opened) == 8 and {(ask.window, ask.wording) for ask in opened} == {(2, 0)}
