"""`--jsonl`: in batches, resumable to the same file, and no line dropped in silence."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

import augury
from augury.cli import fingerprint
from augury.cli.fingerprint import folder_fingerprint
from augury.cli.jsonl import run_file
from augury.lm.adapters import add_adapter, save_adapter
from augury.oracle import Oracle
from tests.cli.conftest import CONFIG, Invoke, Tiny, one_object, randomise, refused
from tests.tiny import tiny_lm

ABOUT, WHO = "Is this about cooking?", "Who is speaking here?"
TEXTS = [
    "The philosopher drank tea.",
    "Who is speaking here?",
    "Is this about cooking? Yes",
    "Answer only. No",
    "tea tea",
]


def write(path: Path, rows: Sequence[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def undated(path: Path) -> list[dict[str, Any]]:
    """The rows without when their activations were captured, in the results and in their controls."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key != "captured"}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(rows_of(path))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", [{"id": f"c{i}", "context": text} for i, text in enumerate(TEXTS)])


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of four questions, so that a few lines make several."""
    from dataclasses import replace

    def chunked(verb: Any, request: Any, as_json: bool) -> None:
        run_file(replace(verb, chunk=min(4, verb.chunk)), request, as_json)

    monkeypatch.setattr("augury.cli.jsonl.run_file", chunked)


@pytest.mark.parametrize("verb", ["ask", "score", "scan"])
def test_contexts_times_questions(tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path, verb: str) -> None:
    out = tmp_path / "made" / "out.jsonl"
    donors = [] if verb == "ask" else ["--donors", "2"]
    result = invoke(verb, "--jsonl", many, "-o", out, "-q", ABOUT, "-q", WHO, *tiny.options, *donors, "--json")
    assert result.exit_code == 0, result.output
    assert one_object(result) == {"out": str(out), "rows": 10, "new": 10, "kept": 0, "bad": []}
    rows = rows_of(out)
    asked = [(row["line"], row["id"], row["asked"]) for row in rows]
    assert asked == [(i + 1, f"c{i}", question) for i in range(5) for question in (ABOUT, WHO)]
    oracle = augury.load_oracle(tiny.oracle, tiny.lm())
    for row, text in zip(rows[::2], TEXTS, strict=True):
        if verb == "ask":
            assert row["text"] == oracle.ask(text, ABOUT).text
        elif verb == "score":
            assert row["margin"] == pytest.approx(oracle.score(text, ABOUT, donors=0).margin, abs=1e-4)
        else:
            assert row["margins"] == pytest.approx(oracle.scan(text, ABOUT, donors=0).margins, abs=1e-4)


def test_every_kind_of_context_and_its_own_reading(tiny: Tiny, invoke: Invoke, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": TEXTS[0]}]
    source = write(
        tmp_path / "in.jsonl",
        [
            {"context": TEXTS[0], "question": ABOUT, "positions": "first 2"},
            {"messages": messages, "questions": [ABOUT, WHO], "positions": "role(user)", "end": "closed"},
            {"token_ids": [5, 6, 7, 8], "question": WHO, "positions": [0, 2], "layers": [1, 2]},
            {"context": TEXTS[1], "layers": "1-2"},
        ],
    )
    out = tmp_path / "out.jsonl"
    result = invoke("score", "--jsonl", source, "-o", out, "-q", "Is it?", *tiny.options, "--donors", "0")
    assert result.exit_code == 0 and result.stdout == "" and "5 results" in result.stderr
    rows = rows_of(out)
    assert [row["asked"] for row in rows] == [ABOUT, ABOUT, WHO, WHO, "Is it?"]
    assert rows[0]["positions"] == [0, 1] and rows[3]["positions"] == [0, 2] and rows[3]["layers"] == [1, 2]
    assert rows[4]["layers"] == [1, 2] and rows[1]["read_text"] == TEXTS[0]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("cut", [0, 1, 40, -1, -200])
def test_a_run_that_was_killed_goes_on_to_the_same_file(
    tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path, cut: int
) -> None:
    """Whatever byte it was killed at: controls included, whose donors are others of the batch."""
    out = tmp_path / "out.jsonl"
    arguments = ["score", "--jsonl", many, "-o", out, "-q", ABOUT, "-q", WHO, *tiny.options, "--controls"]
    arguments += ["--donors", "2", "--json"]
    invoke(*arguments)
    whole, text = undated(out), out.read_bytes()
    out.write_bytes(text[:cut] if cut >= 0 else text[: len(text) // 2 + cut])
    left = out.read_bytes().count(b"\n")
    told = one_object(invoke(*arguments))
    assert (told["kept"], told["new"]) == (left, 10 - left)
    assert undated(out) == whole


def test_a_finished_run_loads_nothing(
    tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["ask", "--jsonl", many, "-o", tmp_path / "out.jsonl", "-q", ABOUT, *tiny.options, "--json"]
    invoke(*arguments)
    monkeypatch.setattr("augury.lm.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    assert one_object(invoke(*arguments))["new"] == 0


def other_adapter(folder: Path, seed: int) -> Path:
    """A folder whose adapter is another one after each training."""
    lm = tiny_lm()
    add_adapter(lm, CONFIG, "made")
    randomise(lm, "made", seed)
    save_adapter(lm, "made", CONFIG, folder, torch.float32)
    return folder


def test_an_oracle_trained_anew_is_asked_anew(tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path) -> None:
    """Whatever its path: results of other weights or of another contract are not gone on with."""
    oracle = Path(shutil.copytree(tiny.oracle, tmp_path / "oracle"))
    arguments = ["ask", "--jsonl", many, "-o", tmp_path / "out.jsonl", "-q", ABOUT]
    arguments += ["--model", tiny.model, "--oracle", oracle, "--json"]
    assert one_object(invoke(*arguments))["new"] == 5
    (oracle / "README.md").write_text("another card")
    assert one_object(invoke(*arguments))["new"] == 0
    before = {name: (oracle / name).read_bytes() for name in ("oracle.json", "adapter_model.safetensors")}
    (oracle / "oracle.json").write_text(
        (oracle / "oracle.json").read_text().replace('"coefficient": 2.0', '"coefficient": 3.0')
    )
    assert (oracle / "oracle.json").read_bytes() != before["oracle.json"]
    assert one_object(invoke(*arguments))["error"]["what"].endswith("is not gone on with.")
    (oracle / "oracle.json").write_bytes(before["oracle.json"])
    assert one_object(invoke(*arguments))["new"] == 0
    other_adapter(oracle, seed=8)
    assert one_object(invoke(*arguments))["error"]["what"].endswith("is not gone on with.")


def test_a_target_adapter_trained_anew_is_read_anew(tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path) -> None:
    adapter = other_adapter(tmp_path / "adapter", seed=5)
    arguments = ["score", "--jsonl", many, "-o", tmp_path / "out.jsonl", "-q", ABOUT, *tiny.options]
    arguments += ["--adapter", adapter, "--donors", "0", "--json"]
    assert one_object(invoke(*arguments))["new"] == 5
    assert one_object(invoke(*arguments))["new"] == 0
    other_adapter(adapter, seed=6)
    assert one_object(invoke(*arguments))["error"]["what"].endswith("is not gone on with.")


def test_a_fingerprint_follows_what_files_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    first = folder_fingerprint(tmp_path)
    os.utime(weights, (1, 1))
    (tmp_path / "README.md").write_text("a card")
    assert folder_fingerprint(tmp_path) == first
    weights.write_bytes(b"two")
    assert folder_fingerprint(tmp_path) != first
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 2)
    by_time = folder_fingerprint(tmp_path)
    os.utime(weights, (2, 2))
    assert folder_fingerprint(tmp_path) != by_time


def test_bad_lines_are_told_and_counted(tiny: Tiny, invoke: Invoke, tmp_path: Path) -> None:
    good = {"context": TEXTS[0], "question": ABOUT}
    source = tmp_path / "in.jsonl"
    write(
        source,
        [
            good,
            "not json",
            "",
            [1],
            {**good, "positon": "all"},
            {"question": ABOUT},
            {"context": TEXTS[0]},
            {**good, "question": " "},
            {**good, "messages": []},
            {**good, "positions": "text(absent)"},
            {**good, "layers": 3},
            {**good, "layers": 99},
            {**good, "end": "open"},
            {"context": TEXTS[0] * 300, "question": ABOUT},
            {"token_ids": [100000], "question": ABOUT},
            {"token_ids": "5 6", "question": ABOUT},
            {"context": 5, "question": ABOUT},
            {**good, "layers": {"a": 1}},
            {**good, "context": "tea"},
        ],
    )
    source.write_bytes(source.read_bytes() + b'{"context": "\xff", "question": "x"}\n')
    out = tmp_path / "out.jsonl"
    result = invoke("ask", "--jsonl", source, "-o", out, *tiny.options, "--json")
    found = one_object(result)
    assert result.exit_code == 1 and found["rows"] == 2
    assert [row["line"] for row in rows_of(out)] == [1, 19]
    bad = {entry["line"]: entry["why"] for entry in found["bad"]}
    assert sorted(bad) == [2, *range(4, 19), 20]
    told = {2: "JSON", 5: "positon", 10: "matches no token", 11: "not trained", 13: "no turns", 20: "UTF-8"}
    for line, word in told.items():
        assert word in bad[line] and f"line {line}: " in result.stderr
    again = invoke("ask", "--jsonl", source, "-o", out, *tiny.options, "--json")
    assert again.exit_code == 1 and one_object(again) == {**found, "new": 0, "kept": 2}


def test_a_line_that_cannot_be_captured_stops_nobody_else(
    tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one whose activations overflow: nobody knows before the model has run."""
    capture = augury.activations.capture

    def broken(model: Any, source: list[Any], *rest: Any) -> Any:
        if any(item.messages or TEXTS[1] in model.tokenizer.decode(item.token_ids) for item in source):
            raise augury.ModelError("The activations are not finite.", "they overflow", "use float32")
        return capture(model, source, *rest)

    monkeypatch.setattr("augury.activations.capture", broken)
    out = tmp_path / "out.jsonl"
    arguments = ["ask", "--jsonl", many, "-o", out, "-q", ABOUT, *tiny.options, "--json"]
    result = invoke(*arguments)
    assert result.exit_code == 1 and [row["line"] for row in rows_of(out)] == [1, 3, 4, 5]
    (bad,) = one_object(result)["bad"]
    assert bad["line"] == 2 and "not finite" in bad["why"]
    assert one_object(invoke(*arguments))["kept"] == 4


def test_from_stdin(tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = invoke("ask", "--jsonl", "-", "-o", out, "-q", ABOUT, *tiny.options, stdin=many.read_bytes())
    assert result.exit_code == 0 and len(rows_of(out)) == 5


def test_a_file_of_something_else_is_not_touched(tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ["ask", "--jsonl", many, "-o", out, "-q", ABOUT, *tiny.options]
    for text in ("notes without an end", "notes\n", '{"key": "other"}\n'):
        out.write_text(text)
        refused(invoke(*arguments), 2, "not gone on with")
        assert out.read_text() == text
    out.unlink()
    assert invoke(*arguments).exit_code == 0
    refused(invoke(*arguments, "--samples", "2"), 2, "these settings")
    refused(invoke("ask", "--jsonl", tmp_path / "absent", "-o", out, "-q", ABOUT), 1, "no file")
    (tmp_path / "empty").write_text("\n")
    refused(invoke("ask", "--jsonl", tmp_path / "empty", "-o", out, "-q", ABOUT), 2, "no lines")


@pytest.mark.usefixtures("small_chunks")
def test_an_interruption_keeps_what_was_done(
    tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ["ask", "--jsonl", many, "-o", out, "-q", ABOUT, "-q", WHO, *tiny.options]
    real, calls = Oracle.ask_batch, []

    def once(*given: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(Oracle, "ask_batch", once)
    result = invoke(*arguments)
    assert result.exit_code == 130 and "goes on from there" in result.stderr and len(rows_of(out)) == 4
    assert invoke(*arguments).exit_code == 0 and len(rows_of(out)) == 10


def test_a_full_disk_is_told_with_how_to_go_on(
    tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first failure left in the buffer fails again when the file is closed; that must not hide it."""
    full = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115 (the command closes it)
    monkeypatch.setattr("augury.cli.jsonl._open", lambda out: full)
    result = invoke("score", "--jsonl", many, "-o", tmp_path / "o", "-q", ABOUT, *tiny.options, "--donors", "0")
    refused(result, 1, "o cannot be written", "No space left", "goes on from here")


def test_two_processes_do_not_write_one_file(
    tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would ask and write everything."""
    out = tmp_path / "results" / "out.jsonl"
    arguments = ["score", "--jsonl", many, "-o", out, "-q", ABOUT, *tiny.options, "--donors", "0"]
    out.parent.mkdir()
    with FileLock(out.with_name(f".{out.name}.lock")), monkeypatch.context() as patch:
        patch.setattr("augury.lm.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
        refused(invoke(*arguments), 2, "is being written already", "another process", "another OUT")
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert len(rows_of(out)) == 5


def test_a_pipe_is_read_once(tiny: Tiny, invoke: Invoke, many: Path, tmp_path: Path) -> None:
    """As `--jsonl <(...)` makes it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(many.read_bytes()), daemon=True)
    writer.start()
    out = tmp_path / "out.jsonl"
    result = invoke("score", "--jsonl", pipe, "-o", out, "-q", ABOUT, *tiny.options, "--donors", "0")
    assert result.exit_code == 0, result.output
    assert len(rows_of(out)) == 5


def test_plots_are_for_one_context(invoke: Invoke, many: Path, tmp_path: Path) -> None:
    refused(invoke("scan", "--jsonl", many, "-o", tmp_path / "o", "-q", ABOUT, "--plot", "x.png"), 2, "--plot")
