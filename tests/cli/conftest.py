"""A tiny model and an oracle on disk, and the command line in process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from augury.cli import app
from augury.lm import LanguageModel, load_model
from augury.lm.adapters import adapter_parameters, add_adapter, remove_adapter
from augury.lm.chat import needs_tokenizer
from augury.oracle.save import save_oracle
from tests.families import LORA
from tests.tiny import tiny_contract, tiny_lm

CONFIG: dict[str, Any] = {**LORA, "target_modules": ["q_proj", "v_proj", "down_proj"]}
LAYER = 2


@dataclass(frozen=True)
class Tiny:
    """Folders of a random model and of a random oracle for its layer 2."""

    model: Path
    oracle: Path

    @property
    def options(self) -> list[str]:
        return ["--model", str(self.model), "--oracle", str(self.oracle)]

    def lm(self) -> LanguageModel:
        return load_model(str(self.model))


def save_model(lm: LanguageModel, folder: Path) -> Path:
    lm.model.save_pretrained(folder)
    needs_tokenizer(lm).save_pretrained(folder)
    return folder


def randomise(lm: LanguageModel, name: str, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(lm.model, name).values():
            parameter.copy_((0.3 * torch.randn(parameter.shape, generator=generator)).half().float())


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("cli")
    lm = load_model(str(save_model(tiny_lm(), folder / "model")))
    add_adapter(lm, CONFIG, "made")
    randomise(lm, "made")
    contract = tiny_contract(lm, ((LAYER,), (1, LAYER)), block=1, coefficient=2.0)
    oracle = save_oracle(lm, "made", CONFIG, contract, folder / "oracle")
    remove_adapter(lm, "made")
    return Tiny(folder / "model", oracle)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Donor banks of tiny models do not belong into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("AUGURY_CACHE", str(folder))
        yield folder


Invoke = Callable[..., Any]


@pytest.fixture
def invoke() -> Invoke:
    """Run `augury` in process: `.exit_code`, `.stdout`, `.stderr`."""

    def run(*arguments: object, stdin: str | bytes | None = None) -> Any:
        return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, env={"COLUMNS": "160"})

    return run


def refused(result: Any, exit_code: int, *words: str) -> None:
    """A refusal: three parts on stderr, nothing on stdout, no traceback, and this exit code."""
    assert result.exit_code == exit_code, (result.exit_code, result.output)
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("error: "))
    _what, why, instead = lines[start : start + 3]
    assert why.startswith("  why: ") and instead.startswith("  instead: ")
    assert "Traceback" not in result.output
    for word in words:
        assert word in "\n".join(lines), (word, lines)


def one_object(result: Any) -> Any:
    """What `--json` printed: one object on one line."""
    assert result.stdout.count("\n") == 1, result.output
    return json.loads(result.stdout)
