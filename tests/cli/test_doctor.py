"""`augury doctor` in process: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from augury.cli.doctor import doctor
from augury.errors import InputError, NotFoundError
from augury.lm.adapters import adapter_parameters, add_adapter, remove_adapter, save_adapter
from augury.lm.chat import needs_tokenizer
from augury.oracle import golden
from augury.oracle.golden import CaseResult
from tests.families import LORA
from tests.tiny import tiny_lm

CONFIG: dict[str, Any] = {**LORA, "target_modules": ["q_proj", "v_proj"]}

app = typer.Typer()
app.command()(doctor)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    lm = tiny_lm()
    lm.model.save_pretrained(folder)
    needs_tokenizer(lm).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that nobody trained: it is whole, and reads nothing."""
    lm = tiny_lm()
    add_adapter(lm, CONFIG, "noise")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter_parameters(lm.model, "noise").values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("oracles") / "noise"
    save_adapter(lm, "noise", CONFIG, folder, torch.float32)
    remove_adapter(lm, "noise")
    return folder


def test_a_sound_model(model: Path) -> None:
    result = run(str(model))
    assert result.exit_code == 0, result.output
    for name in ("blocks", "capture", "injection", "padding", "cache", "restored", "chat template", "slot token"):
        assert name in result.stdout
    assert "FAILS" not in result.stdout


def test_json_is_one_object_on_stdout(model: Path) -> None:
    result = run(str(model), "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and found["ok"] is True
    assert [check["name"] for check in found["checks"]][:2] == ["blocks", "capture"]
    assert all(check["ok"] and check["detail"] for check in found["checks"])


def test_a_model_with_a_fault(model: Path, tmp_path: Path) -> None:
    lm = tiny_lm()
    tokenizer = needs_tokenizer(lm)
    tokenizer.chat_template = None
    lm.model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    result = run(str(tmp_path / "base"))
    assert result.exit_code == 1 and "FAILS" in result.stdout and "fallback_template" in result.stdout


def test_an_oracle_without_a_contract(model: Path, oracle: Path) -> None:
    result = run(str(model), "--oracle", str(oracle), "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and found["ok"] is False
    checks = {check["name"]: check["ok"] for check in found["oracle"]["checks"]}
    assert checks == {"tensors": True, "contract": False}
    assert len(found["oracle"]["candidates"]) == 32
    assert all(check["ok"] for check in found["checks"])


def test_the_table_of_candidates(model: Path, oracle: Path) -> None:
    result = run(str(model), "--oracle", str(oracle))
    assert result.exit_code == 1
    for word in ("operation", "layout", "shuffled", "inline", "replace", "20 more"):
        assert word in result.stdout


def outcome(capture_max_abs: float = 0.0, logits_max_abs: float = 9e-5, greedy_equal: bool = True) -> CaseResult:
    return CaseResult(capture_max_abs, logits_max_abs, greedy_equal, {})


def case_gives(monkeypatch: pytest.MonkeyPatch, found: CaseResult) -> Any:
    monkeypatch.setattr(golden, "run_case", lambda folder: found)
    return run("--case", "somewhere")


def test_a_case_prints_exactly_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    result = case_gives(monkeypatch, outcome())
    assert result.exit_code == 0
    assert result.stdout == '{"capture_max_abs": 0.0, "logits_max_abs": 9e-05, "greedy_equal": true}\n'


@pytest.mark.parametrize(
    "outcome",
    [
        outcome(capture_max_abs=1.1e-5),
        outcome(logits_max_abs=1.1e-4),
        outcome(greedy_equal=False),
        outcome(logits_max_abs=float("nan")),
    ],
)
def test_a_case_out_of_bounds(monkeypatch: pytest.MonkeyPatch, outcome: CaseResult) -> None:
    result = case_gives(monkeypatch, outcome)
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 1 and result.stderr


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_golden_cases(golden: Path, family: str) -> None:
    result = run("--case", str(golden / family))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["capture_max_abs"] <= 1e-5 and found["logits_max_abs"] <= 1e-4 and found["greedy_equal"] is True


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), InputError),
        (("smollm2", "--case", "x"), InputError),
        (("--case", "x", "--oracle", "y"), InputError),
        (("./nowhere",), NotFoundError),
    ],
)
def test_misuse(arguments: tuple[str, ...], error: type[Exception]) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, error)
    assert result.stdout == ""


def test_an_unknown_oracle(model: Path) -> None:
    assert isinstance(run(str(model), "--oracle", "./nowhere").exception, NotFoundError)
