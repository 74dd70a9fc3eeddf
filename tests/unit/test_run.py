"""A run's folder: who may work in it, what it must have before it begins, and what it says about its data."""

from __future__ import annotations

import json
import re
import sys
from importlib.machinery import ModuleSpec
from subprocess import PIPE, Popen
from types import SimpleNamespace

import pytest
import torch

from augury.data import build as build_room
from augury.errors import AuguryError, ContractError, InputError, NotFoundError, StorageError
from augury.lm.size import ModelSize
from augury.train import metrics as metrics_room
from augury.train import prepare as prepare_room
from augury.train import run as run_room
from augury.train.checks import check_recipe
from augury.train.costs import estimate
from augury.train.curve import curve_at
from augury.train.metrics import Metrics, StepReport, read_curve, read_metrics
from augury.train.prepare import contract_of
from augury.train.provenance import counted, described, write_environment
from augury.train.recipe import Recipe
from augury.train.run import Progress, one_run, prepare_run, start_run
from tests.tiny import tiny_contract, tiny_lm
from tests.training import recipe

HOLD = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
input()
"""


def step(number: int) -> StepReport:
    return StepReport(number, 6, 4, 100, 2.0, 1e-3, 1.0, {"open": 1.0})


def test_a_run_that_is_worked_on_is_refused_before_anything_changes(tmp_path):
    start_run(recipe(), tmp_path)
    before = (tmp_path / "config.yaml").read_text()
    with Popen([sys.executable, "-c", HOLD, tmp_path / ".lock"], stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="worked on already"):
            start_run(recipe(examples=48), tmp_path, resume=True)
        assert (tmp_path / "config.yaml").read_text() == before
        other.communicate("\n")
    start_run(recipe(examples=48), tmp_path, resume=True)
    assert (tmp_path / "config.yaml").read_text() != before


def test_the_lock_is_held_until_its_first_holder_lets_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    from filelock import FileLock, Timeout

    with one_run(tmp_path):
        start_run(recipe(), tmp_path.relative_to(tmp_path.parent))  # a part of the same run takes it again
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".lock", timeout=0).acquire()
    FileLock(tmp_path / ".lock", timeout=0).acquire()


def test_a_run_that_is_not_there_is_not_resumed(tmp_path):
    with pytest.raises(NotFoundError, match="no run"):
        start_run(recipe(), tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_what_the_report_lacks_is_told_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(run_room, "find_spec", lambda name: None)
    with pytest.raises(AuguryError, match=r"(?s)speaker needs scikit-learn.*pip install 'augury\[train\]'"):
        start_run(recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(run_room, "find_spec", lambda name: ModuleSpec(name, None))
    start_run(recipe(), tmp_path / "run")


def test_rollouts_are_sampled_in_the_recipes_dtype_whatever_the_model_was_loaded_as(tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(build_room, "load_model", lambda name, dtype: (name, dtype))
    monkeypatch.setattr(build_room, "sample_rollouts", lambda lm, *_, **__: used.append(lm))
    settings, empty = recipe().contexts["answers"], SimpleNamespace(units=0, split="train", name="answers")
    loaded = SimpleNamespace(dtype=torch.float32)
    for lm in (SimpleNamespace(dtype=torch.bfloat16), loaded):
        build_room._sample(lm, recipe(), settings, empty, tmp_path, lambda done: None)
    assert used == [("test", "float32"), loaded]


MISFITS = {
    "layer": ({"layers": [[99]]}, InputError, "99 is no layer"),
    "percent": ({"layers": [["200%"]]}, InputError, "'200%' is no layer"),
    "twice": ({"layers": [[1, 1]]}, InputError, "named twice"),
    "block": ({"injection": {"block": 99}}, InputError, "injects at block 99"),
    "slot": ({"prompt": {"slot_token": " hemlock philosopher"}}, ContractError, "slot token"),
    "merged": ({"prompt": {"slot_token": "s"}}, ContractError, "does not hold its slots"),
    "module": ({"lora": {"target_modules": ["q_proj", "nope"]}}, InputError, "(?s)no module nope.*q_proj"),
    "expression": ({"lora": {"target_modules": "nope"}}, InputError, "(?s)cannot be put on.*q_proj"),
}


@pytest.mark.parametrize("misfit", list(MISFITS))
def test_what_does_not_fit_the_model_is_told_before_anything_is_sampled(tmp_path, monkeypatch, misfit):
    change, error, words = MISFITS[misfit]
    lm = tiny_lm()
    plain = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    monkeypatch.setattr(prepare_room, "load_model", lambda name: lm)
    monkeypatch.setattr(prepare_room, "build", lambda *_: pytest.fail("it was begun"))
    wrong = Recipe.model_validate({**recipe().model_dump(mode="json"), **change})
    with pytest.raises(error, match=words):
        prepare_run(wrong, tmp_path, Progress())
    after = dict(lm.model.named_parameters())
    assert after.keys() == plain.keys() and all(torch.equal(after[name], plain[name]) for name in plain)


def test_the_check_leaves_the_model_as_it_was():
    lm, found = tiny_lm(), recipe()
    before = [name for name, _ in lm.model.named_modules()]
    check_recipe(lm, found, contract_of(found, lm))
    assert [name for name, _ in lm.model.named_modules()] == before


def test_a_run_says_what_it_goes_on_with(tmp_path):
    lm = tiny_lm()
    write_environment(tmp_path, recipe(), lm)
    found = json.loads((tmp_path / "env.json").read_text())
    assert found["model"]["weights_fingerprint"] == lm.identity.weights_fingerprint
    assert found["model"]["chat_template_hash"] and found["model"]["tokenizer_hash"]
    assert found["seeds"] == {"data": 0, "training": 0} and found["versions"]["torch"] and found["started"]
    assert found["threads"] == torch.get_num_threads() and found["processes"] == 1


def test_a_contract_says_how_far_it_was_trained():
    lm = tiny_lm()
    contract = counted(described(tiny_contract(lm), recipe(), lm, "f" * 64), [step(1), step(2)])
    trained = contract.trained_on
    assert trained is not None and contract.versions["peft"] and contract.created
    assert (trained.recipe, trained.data_fingerprint, trained.seed) == ("test", "f" * 64, 0)
    assert (trained.steps, trained.tokens, trained.examples, trained.seconds) == (2, 200, 8, 4)
    assert trained.data and "4,000 answers of the base itself" in trained.data and "lens 50%" in trained.data
    on = described(contract, recipe().model_copy(update={"init_from": "smollm2"}), lm, "f" * 64).trained_on
    two = described(contract, recipe(processes=2), lm, "f" * 64).trained_on
    assert two is not None and re.fullmatch(r"2 processes, each on cpu, \d+ threads? \(\w+\)", str(two.hardware))
    assert on is not None and re.match(
        r"begun with the oracle smollm2 \(SHA-256 [0-9a-f]{16}, [0-9,]+ examples\); 4,000 answers", str(on.data)
    )


def test_metrics_go_on_behind_whole_lines_only(tmp_path):
    with Metrics(tmp_path, 0) as metrics:
        for number in (1, 2, 3):
            metrics.write(step(number))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "st')
    assert [report.step for report in read_metrics(tmp_path)] == [1, 2, 3]
    costs = estimate(recipe(), tmp_path)
    assert costs.measured and costs.seconds == 3 * 2.0 and costs.tokens == 600
    with Metrics(tmp_path, 2) as metrics:
        metrics.write(step(3))
    assert read_metrics(tmp_path) == [step(1), step(2), step(3)]


class Full:
    """A file on a full disk."""

    def write(self, text: str) -> None:
        raise OSError(28, "No space left on device")

    close = flush = lambda self: None


def test_metrics_on_a_full_disk_are_told_in_three_parts(tmp_path, monkeypatch):
    with pytest.raises(StorageError, match=r"metrics.jsonl could not be written"), Metrics(tmp_path, 0) as metrics:
        metrics.file.close()
        monkeypatch.setattr(metrics, "file", Full())
        metrics.write(step(1))

    def full(path, text):
        raise StorageError("full", "full", "free some space")

    monkeypatch.setattr(metrics_room, "write_text", full)
    with pytest.raises(StorageError), Metrics(tmp_path, 0):
        pass


def test_a_curve_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("augury.train.curve.measure_once", lambda prepared, size, ranks: {"gap": 0.5})
    measure = curve_at(recipe(examples=24).model_copy(update={"evaluations": 6}), None, tmp_path)  # type: ignore[arg-type]
    measure(step(1))
    before = (tmp_path / "curve.jsonl").read_text()

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(StorageError, match=r"curve.jsonl could not be written"):
            measure(step(2))
    assert (tmp_path / "curve.jsonl").read_text() == before
    measure(step(2))
    assert [json.loads(line)["step"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize(("times", "steps"), [(10, 100), (10, 64), (10, 4), (1, 7), (0, 9)])
def test_a_curve_is_measured_at_equal_distances_and_at_the_end(tmp_path, monkeypatch, times, steps):
    measured = []
    monkeypatch.setattr("augury.train.curve.measure_once", lambda prepared, size, ranks: measured.append(1) or {})
    made = recipe(examples=4 * steps).model_copy(update={"evaluations": times})
    measure = curve_at(made, None, tmp_path)  # type: ignore[arg-type]
    for number in range(1, steps + 1):
        measure(step(number))
    found = [row["step"] for row in read_curve(tmp_path)]
    assert len(measured) == len(found) == min(times, steps)
    if times:
        distances = {b - a for a, b in zip([0, *found], found, strict=False)}
        assert found[-1] == steps and max(distances) - min(distances) <= 1


def test_texts_are_in_the_costs_too(tmp_path, monkeypatch):
    monkeypatch.setattr("augury.train.costs.size_here", lambda model: ModelSize(100_000_000, 512, 8, 40_000))
    monkeypatch.setattr("augury.data.estimate.size_here", lambda model: None)

    def costs(lines, **changes):
        path = tmp_path / "corpus.txt"
        path.write_text("Ten words of a text that is read as is.\n" * lines)
        settings = {**recipe().model_dump(), "contexts": {"answers": {"type": "text", "path": path}}, **changes}
        settings["sources"] = {"lens": settings["sources"]["lens"]}
        settings["stages"] = [{"until": 1.0, "weights": {"lens": 1}}]
        return estimate(Recipe.model_validate(settings))

    few, many = costs(100), costs(10_000)
    assert many.seconds > 10 * few.seconds and many.disk_bytes > few.disk_bytes  # each text is captured once
    live = costs(10_000, cache_activations=False)
    assert live.seconds < many.seconds and live.disk_bytes < many.disk_bytes  # 24 examples read 24 of them
