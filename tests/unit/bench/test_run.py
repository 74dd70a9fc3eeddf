"""Runs of the bench: nothing twice, the same again, on where it stopped, and equal to the oracle asked by hand."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch

from augury.activations import Activations, Provenance, capture_vectors
from augury.bench import organisms as organisms_room
from augury.bench import readings as readings_room
from augury.bench.asks import donors
from augury.bench.baseline import probe_items
from augury.bench.build import build_items
from augury.bench.engine import RATERS, Engine
from augury.bench.item import PLAIN, Item, ItemSet, State, check_model, read_items, write_items
from augury.bench.organisms import fingerprint_of
from augury.bench.readings import Plants, Reading, Target, take
from augury.bench.run import Bench, run_bench
from augury.bench.task import REGISTRY, Registry, fitted, trained_window
from augury.bench.tasks import organisms as organism_tasks
from augury.errors import ContractError, FormatError, InputError, NotFoundError, StorageError
from augury.lm import Transcript
from augury.oracle.controls import CONTROLS
from tests.plain_paths import plain_blocks
from tests.unit.bench.conftest import SMALL


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json*") if path.is_file()}


def test_two_runs_are_equal_to_the_byte(run, tmp_path):
    run(out=tmp_path / "one")
    run(out=tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


class Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [1, 4, 9, 17])
def test_a_run_that_is_cut_off_goes_on_to_the_same_summary(run, tmp_path, monkeypatch, after):
    monkeypatch.setattr("augury.bench.engine.BLOCK", 5)
    run("planted", "missing_info", out=tmp_path / "whole")
    left = [after]
    kept = Engine._run

    def cut(self, *arguments):
        left[0] -= 1
        if left[0] < 0:
            raise Stopped
        return kept(self, *arguments)

    monkeypatch.setattr(Engine, "_run", cut)
    with pytest.raises(Stopped):
        run("planted", "missing_info", out=tmp_path / "cut")
    assert len(list((tmp_path / "cut" / "blocks").rglob("*.json"))) == after
    left[0] = 10**6
    run("planted", "missing_info", out=tmp_path / "cut")
    assert files(tmp_path / "whole") == files(tmp_path / "cut")


def test_an_organism_that_was_made_anew_is_not_what_the_items_are_about(run, oracle, tmp_path, monkeypatch):
    monkeypatch.setattr(organisms_room, "STEPS", 2)
    monkeypatch.setattr(organism_tasks, "knows", lambda model, secret, fact, read, form: [True] * len(read))
    place, out = tmp_path / "organisms", tmp_path / "run"
    chosen = Bench(replace(SMALL, items=8, wordings=1, sweep=False), ("gender",), organisms=place)
    run_bench(oracle, chosen, out)
    held = read_items(out / "items" / "gender.jsonl").manifest.organisms
    assert set(held) == {item.state.organism for item in read_items(out / "items" / "gender.jsonl").items}
    assert held == {name: fingerprint_of(place / name) for name in held}
    name = sorted(held)[0]
    secret = organisms_room.read_organism(place / name).secret
    organisms_room.make_organism(oracle.base, secret, place / name, seed=1)
    (out / "answers" / "gender.jsonl").unlink()
    with pytest.raises(InputError, match=rf"(?s){name} is another.*has changed"):
        run_bench(oracle, chosen, out)
    (place / name / "adapter_model.safetensors").unlink()
    with pytest.raises(NotFoundError, match=f"no organism {name}"):
        run_bench(oracle, chosen, out)
    with pytest.raises(InputError, match="differs in data"):
        run_bench(oracle, replace(chosen, data=tmp_path), out)


def test_a_task_is_asked_no_wider_than_the_oracle_was_trained():
    task = REGISTRY.tasks["system_prompt_qa"]
    assert trained_window({"positions": {"max_slots": 10}, "layers": [[18]]}) == 10
    assert trained_window({"positions": {"max_slots": 10}, "layers": [[16, 17, 18]]}) == 3
    assert trained_window({"positions": None, "layers": None}) is None
    assert fitted(task, None) is task and fitted(task, 20) is task
    narrow = fitted(task, 10)
    assert (narrow.window, narrow.sweep) == (10, (20,))
    whole = REGISTRY.tasks["number_prediction"]
    assert fitted(replace(whole, window=0), 10).window == 0


def test_a_task_for_which_too_few_items_count_is_told_and_the_others_run(oracle, tmp_path):
    tasks = dict(REGISTRY.tasks)
    plain = tasks["missing_info"]
    few = [0]

    def some(item):
        few[0] += item.facts["truth"] == "Yes"
        return item.facts["truth"] == "No"

    tasks["few"] = replace(plain, name="few", where=some)
    tasks["none"] = replace(plain, name="none", where=lambda item: False)
    registry = Registry(tasks, REGISTRY.items)
    found = run_bench(oracle, Bench(SMALL, ("missing_info", "few", "none")), tmp_path, registry=registry)
    told = {one.task.name: one.manifest.unmeasurable for one in found.tasks}
    assert told["missing_info"] is None and told["none"] == "no item counts for it" and few[0]
    assert re.fullmatch(r"it has 0 items whose answer is yes and \d+ whose answer is no", told["few"] or "")
    assert not (tmp_path / "answers" / "few.jsonl").exists()


def test_nothing_is_run_twice(oracle, tmp_path, monkeypatch):
    captured: Counter = Counter()
    plain = capture_vectors

    def counted(lm, sequences, *arguments, **settings):
        captured.update(map(tuple, sequences))
        return plain(lm, sequences, *arguments, **settings)

    monkeypatch.setattr(readings_room, "capture_vectors", counted)
    run_bench(oracle, Bench(SMALL, ("missing_info",)), tmp_path)
    found = read_items(tmp_path / "items" / "missing_info.jsonl")
    task = REGISTRY.tasks["missing_info"]
    asks = SMALL.asks(task, found.items)
    readings = {(ask.item.token_ids, ask.positions) for ask in asks}
    probed = {item.token_ids for group in probe_items(task, found.items) for item in group}
    assert set(captured.values()) == {1} and set(captured) == {ask.item.token_ids for ask in asks} | probed
    work = json.loads((tmp_path / "answers" / "missing_info.jsonl").open().readline())["work"]
    assert work["readings"] == len({ask.item.token_ids for ask in asks}) < len(captured)
    slots = {len(ask.positions) for ask in asks}
    texts = {tuple(ask.item.token_ids[i] for i in ask.positions) for ask in asks}
    whole = {ask.item.token_ids[: ask.positions[-1] + 1] for ask in asks}
    # The oracle, its donors' and the untrained one's readings; none by the number of slots; texts once each.
    assert work["prefixes"] <= 3 * len(readings) + len(slots) + len(texts) + len(whole)
    assert work["rows"] < len(asks) * len(RATERS)
    captured.clear()
    run_bench(oracle, Bench(SMALL, ("past_lens", "future_lens")), tmp_path / "two")
    assert set(captured.values()) == {1}, "two tasks that read the same contexts"


def test_answers_are_the_oracles_own(run, oracle, tmp_path):
    """Against `Oracle.score` on activations captured one by one."""
    run("missing_info")
    found = read_items(tmp_path / "run" / "items" / "missing_info.jsonl")
    items = {item.id: item for item in found.items}
    rows = [json.loads(line) for line in (tmp_path / "run" / "answers" / "missing_info.jsonl").open()][1:]
    layers, checked = oracle.contract.layers[0], Counter()
    by = {}
    for row in rows:
        by.setdefault((row["item"], row["window"], row["wording"]), {})[row["rater"]] = row
    for (name, window, _wording), answers in list(by.items())[::7]:
        item = items[name]
        positions = item.window(window)
        (vectors,) = capture_vectors(oracle.base, [item.token_ids], layers, [positions])
        acts = Activations(
            vectors, layers, positions, Transcript(item.token_ids, model=oracle.base.name), Provenance.of(oracle.base)
        )
        score = oracle.score(acts, answers["oracle"]["question"], controls=True, donors=2)
        assert answers["oracle"]["log_probs"] == pytest.approx(score.log_probs, abs=2e-5)
        for control in CONTROLS:
            if control != "shuffled":
                assert answers[control]["log_probs"] == pytest.approx(score.controls[control].log_probs, abs=2e-5)
                checked[control] += 1
    assert min(checked.values()) >= 5 and len(checked) == 4


def test_a_planted_direction_is_what_a_loop_by_hand_adds(lm):
    direction = torch.nn.functional.normalize(
        torch.randn(lm.d_model, generator=torch.Generator().manual_seed(1)), dim=0
    )
    target = Target(lm, plants=Plants(1, {"x": direction}))
    ids = [tuple(range(5, 17)), tuple(range(30, 37))]
    states = [State(planted="x", strength=0.5), PLAIN]
    wanted = {Reading(state, row): set(range(len(row))) for state in states for row in ids}
    found = take(target, (1, 3), wanted)
    for row in ids:
        plain = plain_blocks(lm, list(row))
        changed = plain[1].clone()
        changed[1:] += 0.5 * plain[1][1:].norm(dim=-1, keepdim=True) * direction
        hidden = changed[None]
        position = torch.arange(len(row))[None]
        rotary = lm.model.model.rotary_emb(hidden, position)
        for block in lm.blocks[2:4]:
            out = block(hidden, position_embeddings=rotary, attention_mask=None, position_ids=position)
            hidden = out[0] if isinstance(out, tuple) else out
        planted, untouched = (found[Reading(state, row)].vectors for state in states)
        assert torch.allclose(planted[0], changed, atol=1e-4)
        assert torch.allclose(planted[1], hidden[0], atol=1e-4)
        assert torch.allclose(untouched[0], plain[1], atol=1e-4) and torch.allclose(untouched[1], plain[3], atol=1e-4)


@pytest.mark.parametrize("each", [1, 2, 4])
def test_donors_are_of_another_problem_and_blind_to_labels(each):
    """Items stand in the same order in every problem; a donor's place in its own says nothing of one's own place."""
    places = [i % each for i in range(60 * each)]
    problems = [f"p{i // each}" for i in range(60 * each)]
    readings = [Reading(PLAIN, (i,)) for i in range(60 * each)]
    same, total = 0, 0
    for seed in range(40):
        found = donors(readings, problems, [5] * len(readings), seed)
        assert all(j is not None and problems[i] != problems[j] for i, j in enumerate(found))
        assert sorted(found) == list(range(len(readings))), "each is a donor once"
        same += sum(places[i] == places[j] for i, j in enumerate(found))
        total += len(found)
    assert abs(same / total - 1 / each) < 0.04
    assert donors(readings, problems, [5] * len(readings), 7) == donors(readings, problems, [5] * len(readings), 7)


def test_donors_have_as_many_positions():
    lengths = [3, 8, 5, 2, 8, 1]
    found = donors([Reading(PLAIN, (i,)) for i in range(6)], [str(i) for i in range(6)], lengths, 0)
    assert all(j is not None and lengths[j] >= lengths[i] for i, j in enumerate(found) if j is not None)
    assert found[1] in (4,) and found[4] in (1,)
    assert donors([Reading(PLAIN, (0,)), Reading(PLAIN, (1,))], ["a", "a"], [1, 1], 0) == [None, None]


def test_what_cannot_be_measured_says_so(run, tmp_path):
    """A random model answers no numbers."""
    (task,) = run("number_prediction").tasks
    assert not task.measures and "fewer than 30" in task.manifest.unmeasurable
    assert task.manifest.counts["asked"] == 48 and task.manifest.counts["wrong"] < 30
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["tasks"]["number_prediction"]
    assert told["not measurable"] and told["measures"] == {}


def test_misuse_is_told(run, oracle, tmp_path):
    with pytest.raises(InputError, match=r"(?s)no task 'plantd'.*did you mean planted"):
        run("plantd")
    run("planted", out=tmp_path / "a")
    with pytest.raises(InputError, match=r"(?s)another run.*profile"):
        run("planted", out=tmp_path / "a", profile=replace(SMALL, items=8))
    both = run("same_window", out=tmp_path / "a")
    assert [task.task.name for task in both.tasks] == ["planted", "same_window"], "a run is added to"
    path = tmp_path / "a" / "answers" / "planted.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:-9]))
    with pytest.raises(FormatError, match=r"does not answer this run's questions"):
        run("planted", out=tmp_path / "a")


def test_items_come_back_as_they_were_written(run, lm, tmp_path):
    run("planted")
    path = tmp_path / "run" / "items" / "planted.jsonl"
    found = read_items(path)
    assert len(found.items) == 24 and found.items[0].state.planted and isinstance(found.items[0], Item)
    check_model(found, lm.identity)
    with pytest.raises(ContractError, match=r"(?s)about another model.*bench build planted"):
        check_model(found, lm.identity.model_copy(update={"d_model": 7}))
    lines = path.read_text().splitlines()
    for broken, told in ((lines[1:], "no manifest"), (lines[:1], "no item"), ([lines[0], "{"], "line 2")):
        path.write_text("\n".join(broken))
        with pytest.raises(FormatError, match=told):
            read_items(path)


def test_a_profile_cuts_between_problems():
    items = tuple(Item(str(i), f"p{i // 9}", (1, i), (1,), {"concept": "x"}) for i in range(90))
    task = REGISTRY.tasks["planted"]
    for most, kept in ((80, 72), (81, 81), (5, 5), (200, 90)):
        assert len(replace(SMALL, items=most, wordings=1, sweep=False).asks(task, items)) == kept


@pytest.mark.parametrize("after", [2, 6, 11])
def test_a_full_disk_is_told_and_what_was_written_is_kept(run, tmp_path, monkeypatch, after):
    run("planted", out=tmp_path / "whole")
    plain, left = os.replace, [after]

    def full(*arguments, **settings):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return plain(*arguments, **settings)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match=r"(?s)could not be written.*No space"):
        run("planted", out=tmp_path / "cut")
    assert not list((tmp_path / "cut").rglob("*.partial*"))
    kept = files(tmp_path / "cut")
    assert len(kept) == after
    left[0] = 10**6
    run("planted", out=tmp_path / "cut")
    assert files(tmp_path / "whole") == files(tmp_path / "cut")


def test_a_users_own_items_are_what_is_asked(oracle, tmp_path):
    made = build_items(oracle.base, REGISTRY.items["missing_info"], 24, 7, lambda *_: None)
    kept = ItemSet(made.manifest, made.items[:40])
    (tmp_path / "mine").mkdir()
    write_items(tmp_path / "mine" / "whatever it is called.jsonl", kept)
    bench = Bench(SMALL, ("missing_info",), items=tmp_path / "mine")
    run_bench(oracle, bench, tmp_path / "run")
    assert read_items(tmp_path / "run" / "items" / "missing_info.jsonl") == kept
    with pytest.raises(InputError, match="differs in items"):
        run_bench(oracle, replace(bench, items=None), tmp_path / "run")


def test_a_folder_of_items_that_would_change_nothing_is_refused(oracle, tmp_path):
    made = build_items(oracle.base, REGISTRY.items["missing_info"], 24, 7, lambda *_: None)
    mine = tmp_path / "mine"
    bench = Bench(SMALL, ("missing_info",), items=mine)
    with pytest.raises(NotFoundError, match="is no folder"):
        run_bench(oracle, bench, tmp_path / "run")
    mine.mkdir()
    with pytest.raises(NotFoundError, match=r"no \.jsonl file"):
        run_bench(oracle, bench, tmp_path / "run")
    about = made.manifest.model_copy(update={"name": "missing_inf"})
    write_items(mine / "a.jsonl", ItemSet(about, made.items))
    with pytest.raises(InputError, match="did you mean missing_info"):
        run_bench(oracle, bench, tmp_path / "run")
    other = made.manifest.model.model_copy(update={"weights_fingerprint": "0" * 64})
    write_items(mine / "a.jsonl", ItemSet(made.manifest.model_copy(update={"model": other}), made.items))
    with pytest.raises(ContractError, match="about another model"):
        run_bench(oracle, bench, tmp_path / "run")
    write_items(mine / "b.jsonl", made)
    with pytest.raises(InputError, match=r"a\.jsonl and b\.jsonl both hold missing_info"):
        run_bench(oracle, bench, tmp_path / "another")
    (mine / "b.jsonl").write_text("no items\n")
    with pytest.raises(FormatError, match="no manifest"):
        run_bench(oracle, bench, tmp_path / "another")
