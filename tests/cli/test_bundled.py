"""One real process for each verb, with the bundled model."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from augury.errors import NotFoundError
from augury.oracle.hub import find_oracle
from tests.cli.conftest import CONFIG, randomise
from tests.conftest import require
from tests.tiny import tiny_contract

pytestmark = [pytest.mark.bundled, pytest.mark.slow]

CONTEXT = "The philosopher who drank hemlock taught"
# Whoever asks the hub or a proxy for anything fails at once.
NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}


@pytest.fixture(autouse=True, scope="module")
def _cache() -> None:
    """The bundled model is wanted from where it lies: this takes the place of the other modules' own cache."""


@pytest.fixture(scope="module")
def oracle(smollm2: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shipped oracle; where a checkout has none yet, a random one of the same form."""
    try:
        find_oracle("smollm2")
        return "smollm2"
    except NotFoundError:
        require(not os.environ.get("CI"), "the shipped oracle is not in this checkout")
    from augury.lm.adapters import add_adapter, remove_adapter
    from augury.oracle.save import save_oracle

    add_adapter(smollm2, CONFIG, "made")
    randomise(smollm2, "made")
    contract = tiny_contract(smollm2, ((18,),), coefficient=2.0)
    folder = save_oracle(smollm2, "made", CONFIG, contract, tmp_path_factory.mktemp("oracles") / "random")
    remove_adapter(smollm2, "made")
    return str(folder)


def augury_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "augury", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **NOWHERE})
    assert done.returncode == 0, done.stderr
    return done


def test_ask(oracle: str) -> None:
    """In at most 15 s from a cold start; measured in processor time, which other work does not change."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = augury_command("ask", CONTEXT, "-q", "Who is this about?", "--oracle", oracle, "--json")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(done.stdout)
    assert found["layers"] == [18] and found["oracle"] == oracle and done.stderr == ""
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15


def test_ask_with_samples_and_controls(oracle: str) -> None:
    """In at most 30 s from a cold start, in processor time of two cores."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    options = ("--samples", "10", "--controls", "--json")
    done = augury_command("ask", CONTEXT, "-q", "Who is this about?", "--oracle", oracle, *options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(done.stdout)
    assert len(found["samples"]) == 10
    assert {"none", "shuffled", "text-window", "text-all", "untrained"} == set(found["controls"])
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60


def test_demo(oracle: str, root: Path, tmp_path: Path) -> None:
    """What `make demo` shows: questions beside their controls, a score, two scans, a picture, and where it lies."""
    command = [sys.executable, root / "examples" / "demo.py", "--oracle", oracle, "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **NOWHERE})
    assert done.returncode == 0, done.stderr
    for shown in (
        "What is this about?",
        "What was the model asked to do?",
        "What will the model say next?",
        "percentile",
    ):
        assert shown in done.stdout
    assert done.stdout.count("text-window") >= 4 and done.stdout.count("highest:") == 2
    picture = tmp_path / "heatmap.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and str(picture) in done.stdout.replace("\n", "")


def test_score_and_scan(oracle: str, tmp_path: Path) -> None:
    asked = ["-q", "Is this about cooking?", "--oracle", oracle]
    score = json.loads(augury_command("score", CONTEXT, *asked, "--json").stdout)
    assert 0 <= score["percentile"] <= 100 and 0 < score["mass"] <= 1
    picture = tmp_path / "map.png"
    done = augury_command("scan", CONTEXT, *asked, "--donors", "4", "--plot", picture)
    assert " taught" in done.stdout and picture.is_file()


def test_capture(tmp_path: Path) -> None:
    path = tmp_path / "acts.safetensors"
    found = json.loads(augury_command("capture", CONTEXT, "-o", path, "--positions", "all", "--json").stdout)
    assert found["shape"][0] == 1 and found["shape"][2] == 576 and found["layers"] == [18]
    assert found["estimated_bytes"] == pytest.approx(path.stat().st_size, rel=0.1)


def test_models(smollm2: Any) -> None:
    folder = augury_command("models", "path", "smollm2").stdout.strip()
    assert augury_command("models", "add", "smollm2").stdout.strip() == folder
    assert (Path(folder) / "model.safetensors").is_file()


def test_train_dry_run(root: Path) -> None:
    found = json.loads(augury_command("train", root / "recipes" / "smollm2.yaml", "--dry-run", "--json").stdout)
    assert found["memory_bytes"] > 4 * 134_000_000 and found["seconds"] > 60


def test_doctor() -> None:
    assert json.loads(augury_command("doctor", "smollm2", "--json").stdout)["ok"] is True
