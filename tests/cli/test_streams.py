"""What is printed where stdout cannot hold every character, or is closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from augury.cli import main
from augury.cli.common import dumps
from augury.lm.bundled import RECORD, smollm2_folder
from tests.cli.conftest import Invoke, Tiny, one_object
from tests.cli.test_help import augury_command

NAMED = ("ask", "tea", "-q", "Who?", "--model", "\u65e5\u672c \U0001f600")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_json_is_whole_in_every_encoding(encoding: str) -> None:
    done = augury_command(*NAMED, "--json", PYTHONIOENCODING=encoding)
    assert NAMED[-1] in json.loads(done.stdout)["error"]["what"] and done.stderr == ""


def test_plain_text_is_printed_in_every_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGURY_CACHE", str(tmp_path / "\u65e5\u672c"))
    smollm2_folder().mkdir(parents=True)
    (smollm2_folder() / "config.json").write_text("{}")
    (smollm2_folder() / RECORD).write_text('{"config.json": 2}')
    done = augury_command("models", "path", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "") and "\\u65e5\\u672c" in done.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-"])
@pytest.mark.parametrize("arguments", ["--version", "ask tea --json", "ask -"])
def test_closed_streams_give_no_traceback(closed: str, arguments: str) -> None:
    command = f"{sys.executable} -m augury {arguments} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == (0 if arguments == "--version" else 2)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_text_that_is_no_utf8_is_refused_before_a_model_is_loaded() -> None:
    for arguments in ([b"caf\xe9 tea", b"-q", b"Who?"], [b"tea", b"-q", b"caf\xe9?"]):
        command = [sys.executable, "-m", "augury", "ask", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONUTF8": "1"})
        error = json.loads(done.stdout)["error"]
        assert done.returncode == 2 and "0xe9" in error["why"] and error["code"] == "input"


def test_json_escapes_only_what_cannot_be_written() -> None:
    assert dumps({"a": "\u65e5"}) == '{"a": "\u65e5"}' and dumps({"a": "\u65e5"}, "ascii") == '{"a": "\\u65e5"}'
    assert dumps({"folder": "caf\udce9"}) == '{"folder": "caf\\udce9"}'
    assert dumps([float("nan"), "\u65e5"], "latin-1") == '[null, "\\u65e5"]'


def interrupted(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


def test_an_interruption_as_json(tiny: Tiny, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augury.cli.reading.run_single", interrupted)
    result = invoke("ask", "tea", "-q", "Who?", *tiny.options, "--json")
    error = one_object(result)["error"]
    assert result.exit_code == 130 and error["code"] == "interrupted" and all(error.values())


def test_an_interruption_before_the_verb_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("augury.cli.app", interrupted)
    monkeypatch.setattr(sys, "argv", ["augury", "ask", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130 and json.loads(capsys.readouterr().out)["error"]["code"] == "interrupted"
