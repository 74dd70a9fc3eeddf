"""Loading: every option is applied or refused, and a model is named by what was really read."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from augury.activations import capture
from augury.errors import FormatError, InputError, NotFoundError
from augury.lm import LanguageModel, bundled, generate, load_model, render_chat
from augury.lm import pretrained as reading
from augury.lm.hub import HubAnswer
from augury.oracle import load_oracle
from tests.tiny import tiny_lm, tiny_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model saved as float32, with weights that float16 rounds otherwise than bfloat16 does, or loses."""
    lm = tiny_lm()
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.view(-1)[::3] *= 1e-6
            parameter.view(-1)[1::3] = 1 + 2.0**-8 + 2.0**-13  # just above the middle of two bfloat16 numbers
    lm.model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def read(folder: Path, **options: Any) -> LanguageModel:
    return load_model(str(folder), device_map="cpu", **options)


def by_hand(folder: Path) -> str:
    """The fingerprint as existing contracts have it, from the file itself."""
    from safetensors.torch import load_file

    tensors, digest = load_file(folder / "model.safetensors"), hashlib.sha256()
    for layer in range(4):
        prefix = f"model.layers.{layer}."
        for name in sorted(key.removeprefix(prefix) for key in tensors if key.startswith(prefix)):
            tensor: Tensor = tensors[prefix + name]
            values = tensor.reshape(-1)[:: max(1, tensor.numel() // 64)][:64].to(torch.bfloat16)
            digest.update(f"{layer}.{name}{tuple(tensor.shape)}".encode() + values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64", torch.float16])
def test_the_fingerprint_does_not_depend_on_the_dtype_of_reading(folder: Path, dtype: Any) -> None:
    lm = read(folder, dtype=dtype)
    assert str(lm.dtype).removeprefix("torch.") == str(dtype).removeprefix("torch.")
    assert lm.identity.weights_fingerprint == by_hand(folder)


def test_a_model_object_is_only_known_as_it_is(folder: Path) -> None:
    """What a cast object had before is lost; float16 from the files is not."""
    cast = load_model(read(folder, dtype="float32").model.half())
    assert cast.identity.weights_fingerprint != by_hand(folder)


@pytest.mark.bundled
def test_the_bundled_model_is_itself_in_float16(smollm2: LanguageModel) -> None:
    half = load_model("smollm2", dtype="float16", device_map="cpu")
    assert half.dtype == torch.float16
    assert half.identity == smollm2.identity


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bfloat16"},
        {"dtype": torch.float16},
        {"device_map": "cpu"},
        {"attn_implementation": "eager"},
        {"revision": "main"},
        {"tokenizer": "another"},
        {"blocks": "model.layers"},
    ],
    ids=str,
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_what_cannot_be_applied_to_a_loaded_model_is_refused(options: dict[str, Any], wrapped: bool) -> None:
    lm = tiny_lm()
    if not wrapped and options.keys() & {"revision", "tokenizer", "blocks"}:
        assert load_model(lm.model, **options).model is lm.model
        return
    with pytest.raises(InputError, match="already loaded") as refusal:
        load_model(lm if wrapped else lm.model, **options)
    assert next(iter(options)) in refusal.value.what and refusal.value.why and refusal.value.instead
    assert lm.dtype == torch.float32


def test_what_a_loaded_model_has_already_is_accepted() -> None:
    lm = tiny_lm()
    assert load_model(lm) is lm and load_model(lm, dtype="float32") is lm
    assert load_model(lm.model, dtype=torch.float32).model is lm.model
    with pytest.raises(InputError, match="no dtype"):
        load_model(lm, dtype="float33")


def test_a_tokenizer_of_ones_own_is_used(folder: Path) -> None:
    own = tiny_tokenizer()
    assert read(folder, tokenizer=own).tokenizer is own


@pytest.mark.parametrize("given", [None, "main"])
def test_a_hub_model_is_named_by_its_commit(folder: Path, monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    """A repository `owner/name` whose files lie in `folder`, as transformers would fetch them."""
    import transformers

    asked: list[Any] = []

    def redirected(kind: Any) -> Any:
        def load(_source: str, **options: Any) -> Any:
            asked.append(options["revision"])
            return kind.from_pretrained(folder, **{**options, "revision": None})

        return SimpleNamespace(from_pretrained=load)

    kinds = {name: getattr(transformers, name) for name in ("AutoConfig", "AutoTokenizer")}
    for name, kind in kinds.items():
        monkeypatch.setattr(transformers, name, redirected(kind))
    monkeypatch.setattr(reading, "_auto_class", lambda _: redirected(transformers.LlamaForCausalLM))
    monkeypatch.setattr(reading, "ask_hub", lambda *_: HubAnswer(COMMIT))
    lm = load_model("owner/name", revision=given, device_map="cpu")
    assert (lm.name, lm.identity.revision) == ("owner/name", COMMIT)
    assert asked and set(asked) == {given}, "a commit in its place would leave the cache without the branch's name"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_model_from_the_cache_is_named_by_its_commit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """The real cache's layout, read by transformers itself while the hub does not answer."""
    import huggingface_hub

    repository = tmp_path / "hub" / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    for module in (huggingface_hub.constants, huggingface_hub.file_download.constants):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(reading, "ask_hub", lambda *_: HubAnswer(unreachable="no route"))
    lm = load_model("owner/name", dtype=dtype, device_map="cpu")
    assert lm.identity.revision == COMMIT and lm.identity.weights_fingerprint == by_hand(folder)


def test_a_folder_keeps_the_revision_it_is_given(folder: Path) -> None:
    assert read(folder).revision is None and read(folder, revision="mine").revision == "mine"


def test_the_bundled_model_has_one_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "ensure_smollm2", lambda: pytest.fail("it was loaded"))
    with pytest.raises(InputError, match="no revision main") as refusal:
        load_model("smollm2", revision="main")
    assert bundled.REVISION in refusal.value.why and refusal.value.instead


def test_pickled_weights_alone_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(FormatError, match="no safetensors weights") as refusal:
        read(folder)
    assert "run code" in refusal.value.why and "save_pretrained" in refusal.value.instead


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(NotFoundError, match="has no weights") as refusal:
        read(folder)
    assert refusal.value.why and refusal.value.instead


def test_weights_that_the_file_lacks_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FormatError, match="lacks weights") as refusal:
        read(folder)
    assert "layers.1.mlp.up_proj" in refusal.value.why and refusal.value.instead


@pytest.mark.parametrize("use", [capture, generate, render_chat, lambda model, source: load_oracle("smollm2", model)])
def test_a_model_that_was_not_loaded_here_is_refused(use: Any) -> None:
    for model in (tiny_lm().model, "smollm2"):
        with pytest.raises(InputError, match="no loaded model") as refusal:
            use(model, [{"role": "user", "content": "tea"}])
        assert type(model).__name__ in refusal.value.why and "load_model" in refusal.value.instead


@pytest.mark.parametrize("source", [None, 5, "~nobody-of-this-name/model", ["smollm2"]])
def test_what_names_no_model_is_refused(source: Any) -> None:
    with pytest.raises(InputError):
        load_model(source)
