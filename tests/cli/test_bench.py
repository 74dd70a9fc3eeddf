"""`augury bench` in process, on a tiny model and a random oracle."""

from __future__ import annotations

import json
import sys

import pytest

from tests.cli.conftest import one_object, refused


@pytest.fixture
def small(monkeypatch):
    from augury.bench.profile import PROFILES, Profile

    monkeypatch.setitem(PROFILES, "quick", Profile("quick", ("planted", "number_prediction"), 16, 1, sweep=False))


def test_a_run_is_shown_kept_and_gone_on_with(invoke, tiny, tmp_path, small):
    command = ("bench", "run", tiny.oracle, "--model", tiny.model, "--profile", "quick", "-o", tmp_path / "run")
    first = invoke(*command)
    assert first.exit_code == 0, first.output
    assert "planted" in first.stdout and "oracle less a reader" in " ".join(first.stdout.split())
    assert "number_prediction: not measurable on this model, since" in first.stdout
    assert "proves little" in first.stdout and "kept in" in first.stderr
    found = one_object(invoke(*command, "--json"))
    assert found["tasks"]["planted"]["measures"]["auc"]["raters"]["none"]["estimate"] == 0.5
    assert found == one_object(invoke("bench", "show", tmp_path / "run", "--json"))
    assert invoke("bench", "show", tmp_path / "run").stdout == first.stdout
    table = invoke("bench", "show", tmp_path / "run", "--markdown").stdout.splitlines()
    assert (
        table[2].startswith("| task | measure | items (problems) | oracle |") and "| planted | auc | 16 (" in table[4]
    )
    assert len({line.count("|") for line in table[2:5]}) == 1
    assert any(line.startswith("- number_prediction: not measurable on this model, since") for line in table[5:])
    beside = invoke("bench", "compare", tmp_path / "run", tmp_path / "run")
    assert beside.exit_code == 0 and "within noise" in beside.stdout and f"B  {tiny.oracle}" in beside.stdout
    rows = one_object(invoke("bench", "compare", tmp_path / "run", tmp_path / "run", "--json"))["tasks"]
    assert [row["difference"]["estimate"] for row in rows] == [0]


def test_misuse_is_told_before_a_model_is_loaded(invoke, tmp_path):
    run = ("bench", "run", "smollm2", "-o", tmp_path / "run")
    refused(invoke(*run, "--tasks", "plantd"), 2, "no task 'plantd'", "did you mean planted")
    refused(invoke(*run, "--profile", "fast"), 2, "no profile 'fast'", "quick, core, all")
    refused(invoke("bench", "run", "smollm2"), 2, "no place for the run", "-o")
    refused(invoke("bench", "build", "arithmetics", "-o", tmp_path / "x"), 2, "did you mean arithmetic")
    refused(invoke("bench", "build", "arithmetic"), 2, "no place for the items")
    refused(invoke("bench", "show", tmp_path), 1, "no finished run")
    refused(invoke("bench", "compare", tmp_path, tmp_path), 1, "no run of the bench")
    refused(invoke("bench", "rescore", tmp_path / "none"), 1, "no folder")


@pytest.mark.parametrize(("package", "extra"), [("scipy.special", "augury[bench]"), ("matplotlib", "augury[plot]")])
def test_a_missing_package_is_told_before_hours_of_work(invoke, tmp_path, monkeypatch, package, extra):
    monkeypatch.setattr("augury.lm.load_model", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setitem(sys.modules, package, None)
    result = invoke("bench", "run", "smollm2", "-o", tmp_path / "run")
    assert result.exit_code == 1 and extra in result.stderr and not (tmp_path / "run").exists()


def test_items_are_built_into_a_file(invoke, tiny, tmp_path):
    path = tmp_path / "planted.jsonl"
    made = one_object(invoke("bench", "build", "planted", "--model", tiny.model, "--size", 8, "-o", path, "--json"))
    assert made["counts"]["items"] == 8 and made["unmeasurable"] is None
    assert sum('"item"' in line for line in path.open()) == 8


def test_tasks_name_their_texts(invoke):
    rows = one_object(invoke("bench", "tasks", "--json"))["tasks"]
    assert {row["tier"] for row in rows} >= {"same window", "held in the weights", "planted state"}
    assert all(row["origin"] and row["licence"] and row["about"] for row in rows)
    assert all(row["task"] in invoke("bench", "tasks").stdout for row in rows)


def test_rescoring_prints_a_table_or_every_metric(invoke, tmp_path):
    folder = tmp_path / "vagueness"
    folder.mkdir()
    (folder / "one.jsonl").write_text(json.dumps({"category": "generic"}) + "\n")
    assert one_object(invoke("bench", "rescore", tmp_path, "--json"))["vagueness"]["one"]["vagueness_rate"] == 1
    shown = invoke("bench", "rescore", tmp_path).stdout
    assert "specificity_rate" in shown and "1  one" in shown


def test_open_answers_are_judged_now_or_later(invoke, tiny, tmp_path, monkeypatch):
    from augury.bench.profile import PROFILES, Profile
    from tests.scripted import completion, scripted

    monkeypatch.setitem(PROFILES, "quick", Profile("quick", ("activation_sensitivity",), 8, 1, sweep=False))
    run = ("bench", "run", tiny.oracle, "--model", tiny.model, "--profile", "quick", "-o", tmp_path / "run")
    first = invoke(*run)
    assert first.exit_code == 0 and "activation_sensitivity: not judged" in first.stdout
    again = ("bench", "rejudge", tmp_path / "run")
    refused(invoke(*again), 2, "no judge", "--judge")
    refused(invoke(*again, "--judge", tmp_path / "none.yaml"), 1, "no judge at", "--judge-model")
    reply = json.dumps({"reason": "x", "verdict": "same"})
    with scripted(lambda body: completion(reply)) as script:
        judge = tmp_path / "judge.yaml"
        judge.write_text(f"url: {script.url}\nmodel: m\nkey_env: null\n")
        found = invoke(*again, "--judge", judge)
        assert found.exit_code == 0 and "judged by m, 0 of" in found.stdout
        asked = len(script.bodies)
        told = one_object(invoke(*again, "--judge", judge, "--json"))
        assert len(script.bodies) == asked, "nothing is asked twice"
        assert script.bodies[0]["response_format"]["json_schema"]["strict"] is True
        other = one_object(invoke(*again, "--judge", script.url, "--judge-model", "n", "--json"))
        assert {body["model"] for body in script.bodies[asked:]} == {"n"}
    for summary, who in ((told, "m"), (other, "n")):
        task = summary["tasks"]["activation_sensitivity"]
        assert task["measures"]["same"]["raters"]["oracle"]["estimate"] == 1 and task["judge"]["model"] == who
    gone = tmp_path / "gone.yaml"
    gone.write_text("url: http://127.0.0.1:9/v1\nmodel: m\nkey_env: null\nretries: 0\n")
    out = tmp_path / "other"
    refused(invoke(*run[:-1], out, "--judge", gone), 1, "cannot be reached", "run it again")
    assert (out / "answers" / "activation_sensitivity.jsonl").exists()
    assert one_object(invoke("bench", "show", out, "--json"))["tasks"]["activation_sensitivity"]["measures"] == {}
