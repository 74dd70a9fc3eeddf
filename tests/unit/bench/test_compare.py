"""Two runs side by side."""

from __future__ import annotations

import json

import pytest

from augury.bench.compare import compare, oracle_of
from augury.bench.engine import ORACLE, Engine
from augury.errors import InputError, NotFoundError
from tests.unit.bench.conftest import SMALL
from tests.unit.bench.test_instrument import Cheat


def test_a_run_differs_from_itself_by_nothing_and_from_a_cheats_by_what_is_missing(run, tmp_path, monkeypatch):
    plain = run("planted", "future_lens", out=tmp_path / "a")
    monkeypatch.setattr("augury.bench.run.Engine", Cheat)
    cheat = run("planted", "missing_info", "future_lens", out=tmp_path / "b")
    for row in compare(tmp_path / "a", tmp_path / "a"):
        assert (row.difference.estimate, row.difference.low, row.difference.high) == (0, 0, 0)
    rows = compare(tmp_path / "a", tmp_path / "b")
    assert [row.task for row in rows] == ["future_lens", "future_lens", "planted"], "what both have"
    for row in rows:
        own = [next(t for t in s.tasks if t.task.name == row.task).measures[row.measure] for s in (plain, cheat)]
        assert (row.one, row.other) == tuple(found.raters[ORACLE] for found in own)
        assert row.difference.estimate == pytest.approx(row.other.estimate - row.one.estimate, abs=1e-9)
        assert row.better * row.difference.estimate > 0
    turned = compare(tmp_path / "b", tmp_path / "a")
    assert turned[0].difference.low == pytest.approx(-rows[0].difference.high)


def test_other_items_are_not_paired(run, tmp_path, lm, oracle):
    from augury.bench.run import Bench, run_bench

    run("same_window", out=tmp_path / "a")
    run_bench(oracle, Bench(SMALL, ("same_window",), seed=5), tmp_path / "b")
    (row,) = compare(tmp_path / "a", tmp_path / "b")
    assert row.one is not None and row.other is not None
    assert row.items < row.one.n / 2, "only what stands in both by chance"


def test_other_organisms_or_targets_are_not_paired(run, tmp_path):
    run("same_window", out=tmp_path / "a")
    run("same_window", out=tmp_path / "b")
    assert compare(tmp_path / "a", tmp_path / "b")[0].difference is not None
    path = tmp_path / "b" / "items" / "same_window.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    manifest = json.loads(first)
    manifest["manifest"]["organisms"] = {"moon": "0" * 64}
    path.write_text("".join([json.dumps(manifest) + "\n", *rest]))
    (row,) = compare(tmp_path / "a", tmp_path / "b")
    assert row.difference is None and row.items == 0 and row.one is not None and row.other is not None


def test_misuse(run, tmp_path):
    run("planted", out=tmp_path / "a")
    run("same_window", out=tmp_path / "b")
    with pytest.raises(InputError, match="nothing to compare"):
        compare(tmp_path / "a", tmp_path / "b")
    with pytest.raises(NotFoundError, match="no run of the bench"):
        oracle_of(tmp_path)
    assert issubclass(Cheat, Engine)
