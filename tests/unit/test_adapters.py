"""Adapters from files: loaded whole, mapped by a known renaming, or refused with the model left as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from augury.errors import ContractError, FormatError, ModelError, NotFoundError
from augury.lm import LanguageModel, load_model
from augury.lm.adapters import adapters_on, add_adapter, load_adapter, remove_adapter, save_adapter, tuner_layers
from tests.families import FAMILIES, add_random_adapter, build, ids

PROMPT = ids(9, seed=2)
DENSE = ("llama", "gpt2", "gpt_neox", "gemma3_wrapper")
EXPERTS = ("qwen3_next",)  # whose adapter nests wrappers around fused experts


def logits(lm: LanguageModel) -> Tensor:
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([PROMPT]), use_cache=False).logits


def saved(family: str, folder: Path) -> tuple[LanguageModel, Tensor, Tensor]:
    """A clean model, its logits, and those with the adapter that now lies in `folder`."""
    lm = build(family)
    base = logits(lm)
    config = add_random_adapter(lm)
    with adapters_on(lm.model, ["oracle"]):
        adapted = logits(lm)
    save_adapter(lm, "oracle", config, folder, torch.float32)
    remove_adapter(lm, "oracle")
    return lm, base, adapted


def kinds(lm: LanguageModel) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in lm.model.named_modules()]


@pytest.mark.parametrize("family", [*DENSE, *EXPERTS])
def test_a_saved_adapter_answers_the_same(family: str, tmp_path: Path) -> None:
    before = kinds(build(family))
    lm, base, adapted = saved(family, tmp_path)
    assert kinds(lm) == before and torch.equal(logits(lm), base), "remove_adapter left something behind"
    report = load_adapter(lm, tmp_path, "again")
    assert report.tensors == len(load_file(tmp_path / "adapter_model.safetensors")) == 2 * report.modules
    assert report.renamed is None and torch.equal(logits(lm), base), "a loaded adapter is off until it is asked for"
    with adapters_on(lm.model, ["again"]):
        assert torch.equal(logits(lm), adapted)
    assert (adapted - base).abs().max() > 1e-2
    remove_adapter(lm, "again")
    assert kinds(lm) == before and torch.equal(logits(lm), base)


@pytest.mark.parametrize("family", DENSE)
def test_plain_peft_loads_it_with_equal_logits(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    _, _, adapted = saved(family, tmp_path)
    plain: Any = PeftModel.from_pretrained(build(family).model, str(tmp_path)).eval()
    with torch.no_grad():
        assert torch.equal(plain(input_ids=torch.tensor([PROMPT]), use_cache=False).logits, adapted)


def test_what_plain_peft_saves_is_loaded(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    peft_model: Any = get_peft_model(build("qwen3").model, LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
        expected = peft_model.eval()(input_ids=torch.tensor([PROMPT])).logits
    peft_model.save_pretrained(tmp_path)
    lm = build("qwen3")
    load_adapter(lm, tmp_path, "oracle")
    with adapters_on(lm.model, ["oracle"]):
        assert torch.allclose(logits(lm), expected, atol=1e-6)


Edit = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def rewrite(folder: Path, edit: Edit) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({key: value.contiguous() for key, value in edit(load_file(path)).items()}, path)


def renamed(pattern: str, by: str) -> Edit:
    return lambda tensors: {re.sub(pattern, by, key, count=1): value for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("family", "pattern", "by"),
    [
        ("llama", r"model\.model\.layers", "model.model.language_model.layers"),
        ("llama", r"model\.model\.layers", "model.language_model.model.layers"),
        ("gemma3_wrapper", r"model\.model\.language_model\.layers", "model.model.layers"),
        ("gemma3_wrapper", r"model\.model\.language_model\.layers", "model.language_model.layers"),
    ],
)
def test_a_known_foreign_prefix_is_mapped(family: str, pattern: str, by: str, tmp_path: Path) -> None:
    lm, _, adapted = saved(family, tmp_path)
    rewrite(tmp_path, renamed(pattern, by))
    keys = load_file(tmp_path / "adapter_model.safetensors").keys()
    assert all(key.startswith(f"base_model.{by}") for key in keys), "the file was not rewritten"
    assert load_adapter(lm, tmp_path, "oracle").renamed
    with adapters_on(lm.model, ["oracle"]):
        assert torch.equal(logits(lm), adapted)


def drop_one(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensors[key] for key in sorted(tensors)[1:]}


def add_one(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    key = sorted(tensors)[0]
    return {**tensors, key.replace("layers.0.", "layers.9."): tensors[key].clone()}


def widen(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    key = next(key for key in sorted(tensors) if "lora_A" in key)
    return {**tensors, key: torch.cat([tensors[key]] * 2, dim=1)}


@pytest.mark.parametrize(
    "edit",
    [renamed(r"model\.model\.layers", "model.transformer.h"), drop_one, add_one, widen, lambda _tensors: {}],
    ids=["unknown prefix", "missing", "extra", "wrong width", "empty"],
)
def test_tensors_that_do_not_fit_are_refused(edit: Edit, tmp_path: Path) -> None:
    lm, base, _ = saved("llama", tmp_path)
    before = kinds(lm), [p.requires_grad for p in lm.model.parameters()], lm.model.training
    rewrite(tmp_path, edit)
    with pytest.raises(ContractError, match="does not fit") as refusal:
        load_adapter(lm, tmp_path, "oracle")
    assert refusal.value.why and refusal.value.instead
    assert (kinds(lm), [p.requires_grad for p in lm.model.parameters()], lm.model.training) == before
    assert not tuner_layers(lm.model) and torch.equal(logits(lm), base)


def test_modules_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    lm, base, _ = saved("llama", tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["c_attn"]}))
    with pytest.raises(ContractError):
        load_adapter(lm, tmp_path, "oracle")
    assert not tuner_layers(lm.model) and torch.equal(logits(lm), base)


def test_a_refused_adapter_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    lm, _, adapted = saved("llama", tmp_path)
    load_adapter(lm, tmp_path, "first")
    rewrite(tmp_path, drop_one)
    with pytest.raises(ContractError):
        load_adapter(lm, tmp_path, "second")
    with pytest.raises(ContractError, match="already"):
        load_adapter(lm, tmp_path, "first")
    with adapters_on(lm.model, ["first"]):
        assert torch.equal(logits(lm), adapted)


def test_removing_one_adapter_leaves_the_other(tmp_path: Path) -> None:
    lm, base, adapted = saved("llama", tmp_path)
    load_adapter(lm, tmp_path, "first")
    add_random_adapter(lm, "second", seed=9)
    remove_adapter(lm, "second")
    assert torch.equal(logits(lm), base)
    with adapters_on(lm.model, ["first"]):
        assert torch.equal(logits(lm), adapted)


@pytest.mark.parametrize("name", ["mlp", "layers", "self_attn", "q_proj", "weight"])
def test_an_adapter_may_be_named_like_a_part_of_the_model(name: str, tmp_path: Path) -> None:
    lm, base, adapted = saved("llama", tmp_path)
    load_adapter(lm, tmp_path, name)
    with adapters_on(lm.model, [name]):
        assert torch.equal(logits(lm), adapted)
    assert torch.equal(logits(lm), base)


def test_pickles_and_broken_files_are_refused(tmp_path: Path) -> None:
    lm, _, _ = saved("llama", tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(FormatError):
        load_adapter(lm, tmp_path, "oracle")
    weights.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(FormatError, match="safetensors"):
        load_adapter(lm, tmp_path, "oracle")
    with pytest.raises(NotFoundError):
        load_adapter(lm, tmp_path / "nowhere", "oracle")
    assert not tuner_layers(lm.model)


def test_a_target_adapter_that_does_nothing_is_refused(tmp_path: Path) -> None:
    lm, base, _ = saved("llama", tmp_path)
    rewrite(tmp_path, lambda tensors: {k: v * 0 if "lora_B" in k else v for k, v in tensors.items()})
    with pytest.raises(ModelError, match="changes nothing"):
        load_model(lm.model, adapter=tmp_path)
    assert not tuner_layers(lm.model) and torch.equal(logits(lm), base)


def test_a_fresh_adapter_is_off_and_frozen() -> None:
    lm = build("qwen3")
    base = logits(lm)
    add_adapter(lm, {"peft_type": "LORA", "r": 2, "target_modules": "all-linear", "init_lora_weights": False}, "oracle")
    assert torch.equal(logits(lm), base)
    assert not any(p.requires_grad for name, p in lm.model.named_parameters() if "lora_" in name)
    with adapters_on(lm.model, ["oracle"]):
        assert not torch.equal(logits(lm), base)


def test_every_family_is_given_back_clean() -> None:
    for family in FAMILIES:
        lm = build(family)
        before = kinds(lm)
        for _ in range(2):
            add_random_adapter(lm)
            remove_adapter(lm, "oracle")
        assert kinds(lm) == before, family
