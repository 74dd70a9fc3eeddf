"""`augury hub`: what is told, what is asked before sending, and every refusal without a traceback."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke, Tiny, one_object, refused
from tests.cli.test_help import augury_command
from tests.hub_server import READER, UNKNOWN, WRITER, ScriptedHub, folder_bytes, serving, use

REPOSITORY, BASE = "me/my-oracle", "org/base"


@pytest.fixture
def oracle(tiny: Tiny, tmp_path: Path) -> Path:
    """The tiny oracle, whose base is a folder, under a base of the hub."""
    folder = Path(shutil.copytree(tiny.oracle, tmp_path / "oracle"))
    for name in ("oracle.json", "adapter_config.json", "ao_config.json", "README.md"):
        path = folder / name
        path.write_text(path.read_text().replace(str(tiny.model), BASE))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedHub]:
    with serving() as server:
        use(server, monkeypatch, tmp_path / "home")
        yield server


def push(*more: object) -> list[object]:
    return ["hub", "push", *more, "--license", "mit"]


def test_push_tells_what_is_sent_and_where_it_is(oracle: Path, hub: ScriptedHub, invoke: Invoke) -> None:
    result = invoke(*push(oracle, REPOSITORY, "--yes"))
    there = hub.repositories[REPOSITORY]
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{hub.url}/{REPOSITORY} (private)\ncommit {there.branches['main']}\n"
    size = (oracle / "adapter_model.safetensors").stat().st_size
    assert f"{size:,} bytes" in result.stderr and "5 files" in result.stderr and BASE in result.stderr
    assert "will be private" in result.stderr and WRITER not in result.output
    again = invoke(*push(oracle, REPOSITORY, "--yes", "--private", "--revision", "v2"))
    assert again.exit_code == 0 and again.stdout.endswith("\nbranch v2\n")


def test_push_and_pull_with_json(oracle: Path, hub: ScriptedHub, invoke: Invoke, tmp_path: Path) -> None:
    sent = one_object(invoke(*push(oracle, REPOSITORY, "--yes", "--public", "--json")))
    assert sent["url"] == f"{hub.url}/{REPOSITORY}" and not sent["private"] and sent["created"] and sent["changed"]
    assert sent["commit"] == hub.repositories[REPOSITORY].branches["main"] and sent["base_model"] == BASE
    found = one_object(invoke("hub", "pull", REPOSITORY, "-o", tmp_path / "here", "--json"))
    assert found["commit"] == sent["commit"] and found["folder"] == str(tmp_path / "here")
    assert {file["name"]: file["bytes"] for file in found["files"]} == {
        file["name"]: file["bytes"] for file in sent["files"]
    }
    there, here = hub.repositories[REPOSITORY].files(), folder_bytes(tmp_path / "here")
    assert here == {name: content for name, content in there.items() if name != ".gitattributes"}


def test_pull_tells_the_folder(oracle: Path, hub: ScriptedHub, invoke: Invoke, tmp_path: Path) -> None:
    invoke(*push(oracle, REPOSITORY, "--yes"))
    result = invoke("hub", "pull", REPOSITORY, "-o", tmp_path / "here")
    assert result.exit_code == 0 and result.stdout == f"{tmp_path / 'here'}\n" and "5 files" in result.stderr
    cached = invoke("hub", "pull", REPOSITORY)
    assert Path(cached.stdout.strip()).is_dir() and str(tmp_path / "home") in cached.stdout
    refused(invoke("hub", "pull", REPOSITORY, "-o", tmp_path / "here"), 2, "is not replaced", "not empty")


def test_a_dry_run_asks_nobody(oracle: Path, hub: ScriptedHub, invoke: Invoke) -> None:
    result = invoke(*push(oracle, REPOSITORY, "--dry-run"))
    assert result.exit_code == 0 and "oracle.json" in result.stdout and "5 files" in result.stdout
    told = one_object(invoke(*push(oracle, REPOSITORY, "--dry-run", "--json")))
    assert told["dry_run"] and {file["name"] for file in told["files"]} == set(folder_bytes(oracle))
    assert hub.asked == []


def test_nothing_is_sent_unconfirmed(oracle: Path, hub: ScriptedHub, invoke: Invoke) -> None:
    refused(invoke(*push(oracle, REPOSITORY)), 2, "Nothing was sent", "--yes")
    error = one_object(invoke(*push(oracle, REPOSITORY, "--json")))["error"]
    assert error["code"] == "input" and "--yes" in error["instead"]
    assert hub.asked == []


@pytest.mark.parametrize(("answer", "code", "sent"), [("y\n", 0, True), ("n\n", 1, False), ("\n", 1, False)])
def test_a_terminal_is_asked(
    oracle: Path, hub: ScriptedHub, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, sent: bool
) -> None:
    monkeypatch.setattr(sys.modules["augury.cli.hub"], "_interactive", lambda: True)
    result = invoke(*push(oracle, REPOSITORY), stdin=answer)
    assert result.exit_code == code and (REPOSITORY in hub.repositories) is sent
    assert "Send this?" in result.stderr and "Send this?" not in result.stdout


@pytest.mark.parametrize(
    ("token", "words"),
    [(None, ["Nobody is logged in"]), (UNKNOWN, ["does not take the token"]), (READER, ["may not write"])],
)
def test_tokens(
    oracle: Path, hub: ScriptedHub, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    token: str | None, words: list[str],
) -> None:  # fmt: skip
    use(hub, monkeypatch, tmp_path / "home", token)
    refused(invoke(*push(oracle, REPOSITORY, "--yes")), 1, *words)
    error = one_object(invoke(*push(oracle, REPOSITORY, "--yes", "--json")))["error"]
    assert error["code"] == "access" and error["why"] and error["instead"]


def test_refusals(tiny: Tiny, oracle: Path, hub: ScriptedHub, invoke: Invoke, tmp_path: Path) -> None:
    refused(invoke("hub", "push", oracle, REPOSITORY, "--yes"), 1, "states no licence", "--license")
    refused(invoke(*push(tiny.oracle, REPOSITORY, "--yes")), 1, "no model of the hub")
    refused(invoke(*push(tmp_path / "none", REPOSITORY, "--yes")), 1, "There is no folder")
    refused(invoke(*push(oracle, "mine", "--yes")), 2, "is no repository", "owner/name")
    refused(invoke("hub", "pull", "mine"), 2, "is no repository", "owner/name")
    refused(invoke(*push(oracle, REPOSITORY, "--yes", "--dry-run")), 2, "--yes does nothing")
    assert hub.asked == []
    hub.make(REPOSITORY, {"oracle.json": b'{"base_model": "org/other"}'})
    refused(invoke(*push(oracle, REPOSITORY, "--yes")), 1, "is not replaced", "org/other", "--replace")
    refused(invoke(*push(oracle, REPOSITORY, "--yes", "--private")), 2, "is not private")
    assert invoke(*push(oracle, REPOSITORY, "--yes", "--replace")).exit_code == 0


def test_a_process_of_its_own_offline(oracle: Path, tmp_path: Path) -> None:
    environment = {**ScriptedHub("http://127.0.0.1:9").environment(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = augury_command(*map(str, push(oracle, REPOSITORY, "--yes")), **environment)
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    what, why, instead = done.stderr.strip().splitlines()[-3:]
    assert what.startswith("error: The hub could not be reached") and "HF_HUB_OFFLINE" in why and "network" in instead
    assert WRITER not in done.stderr


def test_a_process_of_its_own_pushes(oracle: Path, tmp_path: Path) -> None:
    with serving() as server:
        arguments = push(oracle, REPOSITORY, "--yes", "--json")
        done = augury_command(*map(str, arguments), **server.environment(tmp_path / "home"))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["commit"] == server.repositories[REPOSITORY].branches["main"]
