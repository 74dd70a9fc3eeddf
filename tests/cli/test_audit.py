"""`augury audit`: a report in a folder, its claims on stdout, and refusals before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from augury.lm import load_model
from augury.lm.adapters import add_adapter, remove_adapter, save_adapter
from tests.cli.conftest import CONFIG, Invoke, Tiny, one_object, randomise, refused

FAST = ("--planted", "1")


@pytest.fixture(scope="module")
def fine_tunes(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, lm = tmp_path_factory.mktemp("fine-tunes"), load_model(str(tiny.model))
    for seed in range(6):
        add_adapter(lm, CONFIG, "made")
        randomise(lm, "made", 40 + seed)
        save_adapter(lm, "made", CONFIG, folder / str(seed), torch.float32)
        remove_adapter(lm, "made")
    return [folder / str(seed) for seed in range(6)]


@pytest.fixture
def files(tmp_path: Path) -> list[str | Path]:
    (tmp_path / "prompts").write_text("Good morning to you!\nWho is speaking here?\nWhat is a loop?\n")
    (tmp_path / "concepts").write_text("tea\ncooking\nsystems\ntokens\nspeaking\n")
    return ["--prompts", tmp_path / "prompts", "--concepts", tmp_path / "concepts"]


def test_an_audit_with_peers(tiny: Tiny, invoke: Invoke, tmp_path: Path, fine_tunes: list[Path], files: list) -> None:
    out, options = tmp_path / "run", ["--base", tiny.model, "--oracle", tiny.oracle, *files, *FAST]
    result = invoke("audit", fine_tunes[0], "--peers", *fine_tunes[1:], *options, "-o", out)
    assert result.exit_code == 0, result.output
    assert "5 peers" in result.stderr and ("MB" in result.stderr or "kB" in result.stderr)
    report = json.loads((out / "report.json").read_text())
    assert all(line.split(":")[0] in result.stdout for line in report["verdict"])
    assert report["target"] == str(fine_tunes[0]) and len(report["contrast"]["peers"]) == 5
    assert "<h1>" in (out / "report.html").read_text()
    again = invoke("audit", fine_tunes[0], "--peers", *fine_tunes[1:], *options, "-o", out, "--json")
    assert one_object(again) == report


def test_the_base_with_an_adapter_is_that_adapter(
    tiny: Tiny, invoke: Invoke, tmp_path: Path, fine_tunes: list[Path], files: list
) -> None:
    options = ["--base", tiny.model, "--oracle", tiny.oracle, *files, *FAST, "--json", "-o"]
    plain = one_object(invoke("audit", fine_tunes[0], *options, tmp_path / "a"))
    other = one_object(invoke("audit", tiny.model, "--adapter", fine_tunes[0], *options, tmp_path / "b"))
    assert plain["findings"] == other["findings"] and plain["contrast"] is None


def test_a_model_against_itself(tiny: Tiny, invoke: Invoke, tmp_path: Path, files: list) -> None:
    options = ["--base", tiny.model, "--oracle", tiny.oracle, *files, "-o", tmp_path / "run"]
    refused_after_costs = invoke("audit", tiny.model, *options)
    assert refused_after_costs.exit_code == 2 and "below the noise floor everywhere" in refused_after_costs.stderr


def test_what_cannot_be_meant_is_refused_first(
    invoke: Invoke, tmp_path: Path, fine_tunes: list[Path], files: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augury.lm.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    own = fine_tunes[0]
    refused(invoke("audit", own), 2, "no place for the audit", "-o")
    refused(invoke("audit", own, *files, "--per-kind", 1, "-o", tmp_path / "r"), 2, "--per-kind")
    refused(invoke("audit", own, "--adapter", fine_tunes[1], "-o", tmp_path / "r"), 2, "Two adapters")
    refused(invoke("audit", own, "--concepts", tmp_path / "none", "-o", tmp_path / "r"), 1, "no file")
    missing = invoke("audit", tmp_path / "my-adaptr", "--make-peers", 8, "-o", tmp_path / "r")
    refused(missing, 1, "no fine-tune", "my-adaptr")
    many = invoke("audit", own, "--per-kind", 13, "-o", tmp_path / "r")
    assert many.exit_code == 2 and "per-kind" in many.stderr
    swallowed = invoke("audit", "--peers", fine_tunes[1], own, "-o", tmp_path / "r")
    assert swallowed.exit_code == 2 and "TARGET" in swallowed.output  # the last name is a peer too
