"""Files that verbs write are looked at before any work, and a result is never thrown away for a picture."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from augury.cli.targets import check_target
from augury.errors import InputError, StorageError
from tests.cli.conftest import Invoke, Tiny, one_object, refused

ABOUT = "Is this about cooking?"


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augury.lm.load_model", lambda *_, **__: pytest.fail("a model was loaded"))


@pytest.mark.usefixtures("no_model")
def test_targets_that_cannot_be_files_are_refused_first(invoke: Invoke, tmp_path: Path) -> None:
    folder, file, pipe = tmp_path / "d.png", tmp_path / "file", tmp_path / "pipe"
    folder.mkdir()
    file.write_text(json.dumps({"context": "tea"}) + "\n")
    os.mkfifo(pipe)
    jsonl = ["ask", "--jsonl", file, "-q", ABOUT, "-o"]
    refused(invoke("scan", "tea", "-q", ABOUT, "--plot", folder), 2, "is a folder", "--plot")
    refused(invoke("scan", "tea", "-q", ABOUT, "--plot", file / "map.png"), 2, "is a file, not a folder")
    refused(invoke("capture", "tea", "-o", folder), 2, "is a folder", "-o")
    refused(invoke("capture", "tea", "-o", "/dev/null"), 2, "no regular file")
    refused(invoke(*jsonl, folder), 2, "is a folder", "-o")
    refused(invoke(*jsonl, pipe), 2, "no regular file")  # as /dev/stdout is before `| cat`: reading it waits for ever


def test_a_place_without_the_right_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(StorageError, match="no right to write"):
        check_target(tmp_path / "new" / "file", "-o")


def test_files_and_new_places_are_taken(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    check_target(tmp_path / "old", "-o")
    check_target(tmp_path / "new" / "folder" / "file", "-o")
    check_target(Path("file"), "-o")
    with pytest.raises(InputError):
        check_target(Path("."), "-o")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_picture_that_fails_leaves_the_scan(
    tiny: Tiny, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("augury.oracle.plot.heat_map", full)
    options = ["--donors", "0", "--plot", tmp_path / "map.png", *(["--json"] if as_json else [])]
    result = invoke("scan", "tea tea", "-q", ABOUT, *tiny.options, *options)
    assert result.exit_code == 1 and "error: " in result.stderr and "No space left" in result.stderr
    assert one_object(result)["kind"] == "scan" if as_json else "tea" in result.stdout


def test_an_interrupted_picture_leaves_one_object(
    tiny: Tiny, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("augury.oracle.plot.heat_map", interrupted)
    options = ["--donors", "0", "--plot", tmp_path / "map.png", "--json"]
    result = invoke("scan", "tea tea", "-q", ABOUT, *tiny.options, *options)
    assert result.exit_code == 130 and one_object(result)["kind"] == "scan" and "interrupted" in result.stderr


def test_a_user_that_is_none_is_told(invoke: Invoke) -> None:
    """The shell leaves such a name as it is."""
    nobody = "~nobody-of-this-name/x"
    refused(invoke("capture", "tea", "-o", nobody), 2, "is no path")
    refused(invoke("ask", "tea", "-q", ABOUT, "--model", nobody, "--oracle", "smollm2"), 2, "is no path")
    refused(invoke("ask", "--chat", nobody, "-q", ABOUT), 2, "is no path")
