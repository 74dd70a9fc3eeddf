"""Ablations: runs that differ in one thing, compared on the same examples, and noise called noise."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from augury.errors import FormatError, InputError, NotFoundError
from augury.stats import bootstrap_interval
from augury.train import ablate as room
from augury.train import prepare as prepare_room
from augury.train.ablate import cells_of, read_figures, read_grid, run_grid
from augury.train.ablation_table import SAME, lines_of, markdown, plot, seed_spread
from augury.train.figures import Figure, from_json, to_json
from augury.train.run import Progress
from tests.tiny import tiny_lm
from tests.training import SOURCES

RECIPE = {
    "name": "tiny", "model": "tiny", "layers": [[2]], "lora": {"rank": 2, "alpha": 4},
    "contexts": {"answers": {"type": "rollouts", "train": 12, "heldout": 12, "max_new_tokens": 24}},
    "sources": SOURCES, "optimizer": {"examples": 12, "batch_size": 4, "pool": 2, "learning_rate": 0.01},
    "stages": [{"until": 1.0, "weights": {"lens": 1, "asked": 1}}], "evaluations": 0,
}  # fmt: skip
RUNS = {
    "base": {"seeds": [0, 1]},
    "lower": {"set": {"layers": [[1]]}},
    "weak": {"set": {"injection.coefficient": 0.5}, "ask": [0.5, 1]},
}


def write(folder, runs=RUNS, **more):
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    grid = {"recipe": "recipe.yaml", "base": "base", "runs": runs, "size": {"lens": 8, "pairs": 6, "topics": 4}, **more}
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(grid))
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A grid that was stopped in its second run and went on."""
    folder, lm = tmp_path_factory.mktemp("grid"), tiny_lm()
    grid = read_grid(write(folder))
    cells, trained = cells_of(grid), []

    def progress(cell):
        def step(report):
            trained.append((cell.folder, report.step))

        stop = cell.folder == "base-1" and len(trained) < 8
        return Progress(step=step, stop=lambda: stop and trained[-1] == ("base-1", 2))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "load_model", lambda name: lm)
        patch.setattr(prepare_room, "check_unloaded", lambda recipe, data: None)
        first = run_grid(grid, cells, folder / "out", progress)
        before = len(trained)
        second = run_grid(grid, cells, folder / "out", lambda cell: Progress(step=progress(cell).step))
    return grid, cells, folder / "out", trained, (first, before, second), lm


def test_a_grid_that_was_stopped_goes_on_and_trains_nothing_twice(ran):
    _, cells, _, trained, (first, before, second), _ = ran
    assert (first, before, second) == (False, 5, True)
    assert sorted(trained) == sorted((cell.folder, step) for cell in cells for step in (1, 2, 3))


def test_contexts_and_activations_are_made_once_for_all_runs(ran):
    _, cells, out, _, _, lm = ran
    assert {path.parent.name for path in out.rglob("answers-*.arrow")} == {"data"}
    assert len(list((out / "reads").glob("answers-train-*"))) == 1
    assert len(list(out.glob("runs/*/data/examples/*.arrow"))) >= 2 * len(cells)
    assert not hasattr(lm.model, "peft_config") or not lm.model.peft_config


def test_every_run_is_compared_with_the_base_on_the_same_examples(ran, tmp_path):
    grid, cells, out, _, _, _ = ran
    measured = read_figures(cells, out)
    assert set(measured) == {("base", 0, 1), ("base", 1, 1), ("lower", 0, 1), ("weak", 0, 0.5), ("weak", 0, 1)}
    lines = lines_of(grid, cells, measured)
    assert {line.run for line in lines} == {"base", "base, seed 1", "lower", "weak", "weak, asked at 1"}
    for line in lines:
        assert (line.difference is None) == (line.run == "base")
    loss = next(line for line in lines if (line.run, line.figure) == ("lower", "past lens: loss"))
    own, base = (np.array(measured[key]["past lens: loss"].rows) for key in (("lower", 0, 1), ("base", 0, 1)))
    want = own[:, 1].sum() / own[:, 2].sum() - base[:, 1].sum() / base[:, 2].sum()
    assert loss.difference.estimate == pytest.approx(want) and np.array_equal(own[:, 0], base[:, 0])
    text = markdown(lines, seed_spread(measured))
    assert "### past lens: loss" in text and "| lower |" in text and "| weak, asked at 1 |" in text
    plot(lines, tmp_path / "table.png")
    assert (tmp_path / "table.png").read_bytes()[:4] == b"\x89PNG"


def figure(shift, better=1):
    rng = np.random.default_rng(0)
    return Figure(tuple((i // 2, v + shift, 1.0) for i, v in enumerate(rng.normal(size=80))), better)


@pytest.mark.parametrize(
    ("shift", "seed", "better", "verdict"),
    [(0.5, 0.1, 1, "better"), (0.5, 0.1, -1, "worse"), (0.5, 0.6, 1, SAME), (0.0, 0.0, 1, SAME)],
)
def test_a_difference_counts_where_it_is_larger_than_that_of_two_seeds(ran, shift, seed, better, verdict):
    grid, cells, *_ = ran
    measured = {
        ("base", 0, 1): {"x": figure(0, better)},
        ("base", 1, 1): {"x": figure(seed, better)},
        ("lower", 0, 1): {"x": figure(shift, better)},
    }
    found = {line.run: line.verdict for line in lines_of(grid, cells, measured)}
    assert found["lower"] == verdict


def test_figures_of_other_examples_are_not_compared():
    with pytest.raises(InputError, match="same examples"):
        figure(0).minus(Figure(figure(0).rows[:-1], 1))
    kept = from_json(json.loads(json.dumps(to_json({"x": figure(0)}))))["x"]
    assert kept == figure(0)
    rows = np.array(kept.rows)
    want = bootstrap_interval(rows[:, 1], groups=rows[:, 0])
    assert kept.interval().estimate == pytest.approx(want.estimate) and kept.interval().n_groups == 40


BAD = {
    "base": ({"base": "bas"}, "did you mean base"),
    "field": ({"runs": {**RUNS, "x": {"sets": {}}}}, "did you mean set"),
    "setting": ({"runs": {**RUNS, "x": {"set": {"optimizer.examples": -1}}}}, "run x of the grid"),
    "path": ({"runs": {**RUNS, "x": {"set": {"lora.rnak": 1}}}}, "did you mean rank"),
    "name": ({"runs": {**RUNS, "a/b": {}}}, "folder"),
}


@pytest.mark.parametrize("bad", list(BAD))
def test_a_grid_that_is_none_is_told_before_anything_is_trained(tmp_path, bad):
    change, told = BAD[bad]
    with pytest.raises(FormatError, match=told):
        cells_of(read_grid(write(tmp_path, **change)))


def test_nothing_to_compare_with_is_told(ran, tmp_path):
    grid, cells, *_ = ran
    with pytest.raises(InputError, match="not measured yet"):
        lines_of(grid, cells, read_figures(cells, tmp_path))
    with pytest.raises(NotFoundError):
        read_grid(tmp_path / "none.yaml")


def test_figures_of_another_recipe_are_not_shown_as_this_grids(ran, monkeypatch):
    grid, _, out, _, _, lm = ran
    monkeypatch.setattr(room, "load_model", lambda name: lm)
    changed = cells_of(grid, ["optimizer.learning_rate=1"])
    with pytest.raises(InputError, match="differ in recipe"):
        run_grid(grid, changed, out, lambda cell: Progress())


def test_a_grid_has_one_model_and_a_base_that_is_asked_as_it_was_trained(tmp_path):
    with pytest.raises(FormatError, match="several models"):
        cells_of(read_grid(write(tmp_path, {**RUNS, "x": {"set": {"model": "gpt2"}}})))
    with pytest.raises(FormatError, match="nothing to compare with base"):
        cells_of(read_grid(write(tmp_path, {**RUNS, "base": {"ask": [2]}})))
