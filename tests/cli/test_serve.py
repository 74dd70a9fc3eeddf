"""`augury serve`: one real process, and what it refuses before a model is loaded."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest
import torch

from augury.cli.serve import _listening, _oracles, _targets
from augury.errors import ContractError, InputError
from augury.lm import load_model
from augury.lm.adapters import add_adapter, save_adapter
from tests.cli.conftest import CONFIG, randomise, refused, save_model
from tests.tiny import tiny_lm

ASKED = {"reading": {"context": {"text": "Explain how bread is baked."}}, "questions": ["What is this about?"]}


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory):
    """An adapter that makes the tiny model another target."""
    lm = tiny.lm()
    add_adapter(lm, CONFIG, "tuned")
    randomise(lm, "tuned", 5)
    folder = tmp_path_factory.mktemp("target") / "tuned"
    save_adapter(lm, "tuned", CONFIG, folder, torch.float32)
    return folder


def test_it_serves_and_stops_when_told(tiny, adapter):
    command = [sys.executable, "-m", "augury", "serve", *tiny.options, "--target", str(adapter)]
    command += ["--port", "0", "--json"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        told = json.loads(process.stdout.readline())
        assert told["oracles"] == [tiny.oracle.name] and told["tokens"] == 0
        assert told["targets"] == ["base", adapter.name]
        (answer,) = httpx2.post(f"{told['url']}/v1/ask", json=ASKED, timeout=120).json()["answers"]
        assert answer["oracle"] == tiny.oracle.name, "where it lies is not told"
        read = {**ASKED, "reading": {**ASKED["reading"], "target": adapter.name}}
        (answer,) = httpx2.post(f"{told['url']}/v1/ask", json=read, timeout=120).json()["answers"]
        assert answer["target"]["model"]["name"].endswith(f"+{adapter.name}")
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - began < 15
    finally:
        process.kill()
    assert process.returncode in (0, -signal.SIGTERM) and "Traceback" not in errors
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith('{"at"')]
    assert [(row["request"]["path"], row["request"]["status"]) for row in lines] == [("/v1/ask", 200)] * 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_nobody_is_let_in_unasked(invoke, host):
    refused(invoke("serve", "--host", host), 1, "let anyone in", "--token-file")


def test_a_port_in_use_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="--port 0"):
            _listening("127.0.0.1", taken.getsockname()[1])


def test_two_oracles_of_one_name_are_refused(monkeypatch):
    monkeypatch.setattr("augury.oracle.load_oracle", lambda place, lm: type("Loaded", (), {})())
    with pytest.raises(InputError, match="Two oracles are called o"):
        _oracles(["a/o", "b/o"], "m", None)
    assert set(_oracles(["a/o", "b/p"], "m", None)) == {"o", "p"}
    assert _oracles(None, "some/model", None) == {}


def test_targets_are_adapters_and_fine_tunes_by_their_last_name(tiny, adapter, tmp_path):
    lm, tuned = tiny.lm(), save_model(tiny_lm(seed=1), tmp_path / "whole")
    found = _targets([str(adapter), str(tuned)], lm, load_model)
    assert list(found) == ["base", adapter.name, "whole"] and found["base"] is lm
    assert not lm.target_adapters and found[adapter.name].target_adapters and found[adapter.name].model is lm.model
    assert found["whole"].model is not lm.model and found["whole"].identity.name == "whole"


def test_targets_of_one_name_or_of_another_model_are_refused(tiny, adapter, tmp_path):
    lm = tiny.lm()
    for places, what in (([adapter, adapter], "Two targets are called tuned"), (["a/base"], "The base is called base")):
        with pytest.raises(InputError, match=what):
            _targets([str(place) for place in places], lm, load_model)
    for made, what in ((tiny_lm(d_model=64), "width is 64"), (tiny_lm(n_layers=5), "depth is 5")):
        folder = save_model(made, tmp_path / what.split()[0])
        with pytest.raises(ContractError, match=what):
            _targets([str(folder)], lm, load_model)
