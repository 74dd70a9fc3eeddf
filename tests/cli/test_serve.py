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

from augury.cli.serve import _listening, _oracles
from augury.errors import InputError
from tests.cli.conftest import refused

ASKED = {"reading": {"context": {"text": "Explain how bread is baked."}}, "questions": ["What is this about?"]}


def test_it_serves_and_stops_when_told(tiny):
    command = [sys.executable, "-m", "augury", "serve", *tiny.options, "--port", "0", "--json"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        told = json.loads(process.stdout.readline())
        assert told["oracles"] == [tiny.oracle.name] and told["tokens"] == 0
        (answer,) = httpx2.post(f"{told['url']}/v1/ask", json=ASKED, timeout=120).json()["answers"]
        assert answer["oracle"] == tiny.oracle.name, "where it lies is not told"
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - began < 15
    finally:
        process.kill()
    assert process.returncode in (0, -signal.SIGTERM) and "Traceback" not in errors
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith('{"at"')]
    assert [(row["request"]["path"], row["request"]["status"]) for row in lines] == [("/v1/ask", 200)]


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
