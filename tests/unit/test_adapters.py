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
from augury.lm.adapter_kinds import KINDS, peft_config
from augury.lm.adapters import (
    adapter_config,
    adapter_dropouts,
    adapters_on,
    add_adapter,
    load_adapter,
    lora_config,
    remove_adapter,
    save_adapter,
    tuner_layers,
)
from augury.lm.load import weights_fingerprint
from augury.lm.tuners import adapter_names
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


def twice(other: str) -> Edit:
    """One tensor a second time, under a name that a known renaming or the prefix takes to the same place."""

    def edit(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        key = sorted(tensors)[0]
        return {**tensors, key.replace("base_model.model.model.", other, 1): tensors[key] + 1}

    return edit


def widen(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    key = next(key for key in sorted(tensors) if "lora_A" in key)
    return {**tensors, key: torch.cat([tensors[key]] * 2, dim=1)}


@pytest.mark.parametrize(
    "edit",
    [
        renamed(r"model\.model\.layers", "model.transformer.h"),
        drop_one,
        add_one,
        twice("base_model.model.base_model.model.model."),
        twice("base_model.model.language_model.model."),
        widen,
        lambda _tensors: {},
    ],
    ids=["unknown prefix", "missing", "extra", "twice", "twice by renaming", "wrong width", "empty"],
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


# --- what peft itself saves, of every kind that is loaded

QV = {"target_modules": ["q_proj", "v_proj"]}
SAVED: dict[str, Callable[[Any], Any]] = {
    "LORA": lambda peft: peft.LoraConfig(r=4, **QV),
    "LORA bias": lambda peft: peft.LoraConfig(r=4, lora_bias=True, **QV),
    "LORA gaussian": lambda peft: peft.LoraConfig(r=4, init_lora_weights="gaussian", **QV),
    "LORA orthogonal": lambda peft: peft.LoraConfig(r=4, init_lora_weights="orthogonal", **QV),
    "LORA mica": lambda peft: peft.LoraConfig(r=4, init_lora_weights="mica", **QV),
    "LORA dora": lambda peft: peft.LoraConfig(r=4, use_dora=True, **QV),
    "LORA head": lambda peft: peft.LoraConfig(r=4, modules_to_save=["lm_head", "embed_tokens"], **QV),
    "LORA norm": lambda peft: peft.LoraConfig(r=4, modules_to_save=["input_layernorm"], **QV),
    "ADALORA": lambda peft: peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, **QV),
    "C3A": lambda peft: peft.C3AConfig(block_size=4, **QV),
    "FOURIERFT": lambda peft: peft.FourierFTConfig(n_frequency=16, **QV),
    "HRA": lambda peft: peft.HRAConfig(r=4, **QV),
    "IA3": lambda peft: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "LN_TUNING": lambda peft: peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "LOHA": lambda peft: peft.LoHaConfig(r=4, **QV),
    "LOKR": lambda peft: peft.LoKrConfig(r=4, **QV),
    "MISS": lambda peft: peft.MissConfig(r=4, **QV),
    "OFT": lambda peft: peft.OFTConfig(r=0, oft_block_size=4, **QV),
    "ROAD": lambda peft: peft.RoadConfig(group_size=4, **QV),
    "WAVEFT": lambda peft: peft.WaveFTConfig(n_frequency=16, **QV),
}


def test_every_kind_is_tried() -> None:
    assert {name.split()[0] for name in SAVED} == set(KINDS)


def saved_by_peft(kind: str, folder: Path) -> Tensor:
    """The logits of a model with an adapter that peft trained, as it were, and saved."""
    import peft

    peft_model: Any = peft.get_peft_model(build("llama").model, SAVED[kind](peft)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        expected = peft_model(input_ids=torch.tensor([PROMPT]), use_cache=False).logits
    peft_model.save_pretrained(folder)
    return expected


def weights(lm: LanguageModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}


def same(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", SAVED)
def test_what_peft_saves_is_loaded_and_leaves_no_trace(kind: str, tmp_path: Path) -> None:
    expected = saved_by_peft(kind, tmp_path)
    lm = build("llama")
    modules, before, base, fingerprint = kinds(lm), weights(lm), logits(lm), weights_fingerprint(lm.decoder)
    target = load_model(lm, adapter=tmp_path)
    add_random_adapter(lm, "oracle")
    with adapters_on(lm.model, target.target_adapters):
        assert torch.equal(logits(lm), expected)
    with adapters_on(lm.model, ["oracle"]):
        assert not torch.equal(logits(lm), base)
    assert torch.equal(logits(lm), base) and weights_fingerprint(lm.decoder) == fingerprint
    remove_adapter(lm, "oracle")
    remove_adapter(lm, target.target_adapters[0])
    assert kinds(lm) == modules and same(before, weights(lm)) and torch.equal(logits(lm), base)
    assert not hasattr(lm.model, "peft_config")


def test_an_adapter_inside_a_replaced_module_is_refused(tmp_path: Path) -> None:
    """It would be passed by, on or off, or be trained inside the other adapter."""
    import peft

    peft_model: Any = peft.get_peft_model(build("llama").model, peft.LoraConfig(r=4, modules_to_save=["mlp"], **QV))
    peft_model.save_pretrained(tmp_path)
    lm = build("llama")
    load_adapter(lm, tmp_path, "target")
    before = kinds(lm), weights(lm)
    with pytest.raises(ContractError, match="does not fit") as refusal:
        add_random_adapter(lm, "oracle")
    assert "mlp is replaced whole" in refusal.value.why
    assert kinds(lm) == before[0] and same(before[1], weights(lm))


def test_two_modules_in_one_place_cannot_be_on_together(tmp_path: Path) -> None:
    saved_by_peft("LORA head", tmp_path)
    lm = build("llama")
    for name in ("one", "two"):
        load_adapter(lm, tmp_path, name)
    both = adapters_on(lm.model, ["one", "two"])
    with pytest.raises(ContractError, match="together"), both:
        pass
    remove_adapter(lm, "one")
    remove_adapter(lm, "two")
    assert not tuner_layers(lm.model)


def test_a_target_that_cannot_be_tried_is_taken_off_again(tmp_path: Path) -> None:
    saved_by_peft("LORA head", tmp_path)
    target = load_model(build("llama"), adapter=tmp_path)
    before = kinds(target)
    with pytest.raises(ContractError, match="together"):
        load_model(target, adapter=tmp_path)
    assert kinds(target) == before
    assert {name for _, layer in tuner_layers(target.model) for name in adapter_names(layer)} == {"target"}


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


REWRITING = ["pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "lora_ga", "loftq"]


@pytest.mark.parametrize("start", REWRITING)
def test_an_adapter_of_a_rewritten_base_is_refused(start: str, tmp_path: Path) -> None:
    lm, base, _ = saved("llama", tmp_path)
    before = weights(lm)
    edit_config(tmp_path, init_lora_weights=start)
    for put in (
        lambda: load_adapter(lm, tmp_path, "oracle"),
        lambda: add_adapter(lm, json.loads((tmp_path / "adapter_config.json").read_text()), "oracle"),
    ):
        with pytest.raises(ContractError, match="rewrote") as refusal:
            put()
        assert "path_initial_model_for_weight_conversion" in refusal.value.instead
        assert same(before, weights(lm)) and torch.equal(logits(lm), base)


@pytest.mark.parametrize("start", ["eva", "gaussian", "orthogonal", "mica", True, False])
def test_how_an_adapter_was_started_does_not_matter(start: Any, tmp_path: Path) -> None:
    lm, _, adapted = saved("llama", tmp_path)
    before = weights(lm)
    edit_config(tmp_path, init_lora_weights=start, eva_config={"rho": 2.0} if start == "eva" else None)
    load_adapter(lm, tmp_path, "oracle")
    with adapters_on(lm.model, ["oracle"]):
        assert torch.equal(logits(lm), adapted)
    remove_adapter(lm, "oracle")
    assert same(before, weights(lm))


def test_a_converted_pissa_adapter_is_loaded(tmp_path: Path) -> None:
    """peft's own conversion: what it writes, on the base as it is, answers as the trained one on the rewritten base."""
    import peft

    config = peft.LoraConfig(r=4, init_lora_weights="pissa", target_modules=["q_proj", "v_proj"])
    peft_model: Any = peft.get_peft_model(build("llama").model, config).eval()
    peft_model.peft_config["default"].init_lora_weights = True
    peft_model.save_pretrained(tmp_path / "initial")
    peft_model.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                parameter.mul_(1.3)
        expected = peft_model(input_ids=torch.tensor([PROMPT]), use_cache=False).logits
    initial = str(tmp_path / "initial")
    peft_model.save_pretrained(tmp_path / "tuned", path_initial_model_for_weight_conversion=initial)
    lm = build("llama")
    load_adapter(lm, tmp_path / "tuned", "oracle")
    with adapters_on(lm.model, ["oracle"]):
        assert (logits(lm) - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": ["q_proj", "model.norm"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["layers"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["model"]},
        {"modules_to_save": ["layers.0"], "target_modules": ["q_proj"]},
        {"peft_type": "NO_SUCH"},
        {"peft_type": "VERA"},
        {"r": "four"},
        {"r": -1},
        {"rank_pattern": {"layers.1.self_attn.v_proj": -1}},
        {"bias": "all"},
        {"layer_replication": [[0, 2], [1, 3]]},
        {"trainable_token_indices": [1, 2]},
        {"alora_invocation_tokens": [1, 2]},
        {"kasa_config": {}, "use_dora": True, "layer_replication": [[0, 1]]},
    ],
    ids=str,
)
@pytest.mark.parametrize("first", [False, True], ids=["alone", "beside another"])
def test_what_cannot_be_put_on_is_taken_off_whole(changes: dict[str, Any], first: bool, tmp_path: Path) -> None:
    lm, base, adapted = saved("llama", tmp_path)
    if first:
        load_adapter(lm, tmp_path, "first")
    lm.model.train()
    lm.blocks[1].eval()
    before = kinds(lm), weights(lm), state(lm)
    edit_config(tmp_path, **changes)
    with pytest.raises((ContractError, FormatError)) as refusal:
        load_adapter(lm, tmp_path, "oracle")
    assert refusal.value.what and refusal.value.why and refusal.value.instead
    assert kinds(lm) == before[0] and same(before[1], weights(lm)) and state(lm) == before[2]
    lm.model.eval()
    assert torch.equal(logits(lm), base)
    if first:
        with adapters_on(lm.model, ["first"]):
            assert torch.equal(logits(lm), adapted)
        remove_adapter(lm, "first")
    assert not tuner_layers(lm.model) and torch.equal(logits(lm), base)


def state(lm: LanguageModel) -> tuple[Any, ...]:
    return (
        [(name, p.requires_grad) for name, p in lm.model.named_parameters()],
        [(name, m.training) for name, m in lm.model.named_modules()],
        [(layer._active_adapter, layer._disable_adapters, dict(layer.r)) for _, layer in tuner_layers(lm.model)],
        set(getattr(lm.model, "peft_config", {})),
    )


# --- targets


def test_a_wrapped_model_takes_an_adapter(tmp_path: Path) -> None:
    lm, base, adapted = saved("llama", tmp_path)
    target = load_model(lm, adapter=tmp_path)
    assert target.target_adapters and not lm.target_adapters
    with adapters_on(lm.model, target.target_adapters):
        assert torch.equal(logits(lm), adapted)
    assert torch.equal(logits(lm), base)


def test_two_targets_share_a_base(tmp_path: Path) -> None:
    lm, _, adapted = saved("llama", tmp_path / "one")
    add_random_adapter(lm, "maker", seed=5)
    with adapters_on(lm.model, ["maker"]):
        other = logits(lm)
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    save_adapter(lm, "maker", config, tmp_path / "two", torch.float32)
    remove_adapter(lm, "maker")
    one, two = (load_model(lm, adapter=tmp_path / name) for name in ("one", "two"))
    for target, expected in ((one, adapted), (two, other)):
        with adapters_on(lm.model, target.target_adapters):
            assert torch.equal(logits(lm), expected)


def test_a_target_still_knows_its_base(tmp_path: Path) -> None:
    lm, _, _ = saved("llama", tmp_path / "tuned")
    target = load_model(lm, adapter=tmp_path / "tuned")
    again = load_model(target, adapter=tmp_path / "tuned")
    assert target.name == f"{lm.name}+tuned" and again.name == f"{lm.name}+tuned+tuned"
    assert again.base_name == target.base_name == lm.base_name == lm.name


def test_the_dropouts_of_one_adapter_are_found() -> None:
    lm = build("llama")
    for name, share in (("first", 0.25), ("second", 0.5)):
        add_adapter(lm, lora_config(4, 8, share, True, ["q_proj", "down_proj"]), name)
    found = adapter_dropouts(lm.model, "second")
    assert [getattr(dropout, "p", None) for dropout in found] == [0.5] * 2 * lm.n_layers
    assert adapter_dropouts(lm.model, "third") == []
    assert lora_config(4, 8, 0.0, False, "all-linear")["target_modules"] == "all-linear"


def test_tensors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    lm, base, _ = saved("llama", tmp_path)

    def spoil(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        key = sorted(tensors)[3]
        tensors[key][0, 0] = float("nan")
        return tensors

    rewrite(tmp_path, spoil)
    with pytest.raises(FormatError, match="cannot be used") as refusal:
        load_adapter(lm, tmp_path, "oracle")
    assert "not finite" in refusal.value.why
    assert torch.equal(logits(lm), base)


@pytest.mark.parametrize("text", ["[]", "null", "3", "[" * 100_000], ids=["list", "null", "number", "deep"])
def test_a_configuration_that_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    saved("llama", tmp_path)
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(FormatError, match="cannot be read"):
        adapter_config(tmp_path)


@pytest.mark.parametrize(
    "change", [{"lora_alpha": float("nan")}, {"lora_alpha": 1e300}, {"alpha_pattern": {"q": 1e400}}]
)
def test_numbers_beyond_sense_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    lm, base, _ = saved("llama", tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FormatError, match="not valid"):
        load_adapter(lm, tmp_path, "oracle")
    assert torch.equal(logits(lm), base)


def test_large_numbers_that_are_no_scale_are_taken(tmp_path: Path) -> None:
    """Such as seeds, and what other tools write beside peft's own fields."""
    lm, base, _ = saved("llama", tmp_path)
    path = tmp_path / "adapter_config.json"
    others = {"saved_at_ns": 10**19, "eval_loss": float("nan")}
    path.write_text(json.dumps({**json.loads(path.read_text()), **others}))
    load_adapter(lm, tmp_path, "oracle")
    assert torch.equal(logits(lm), base)
    found = peft_config({"peft_type": "FOURIERFT", "random_loc_seed": 67280421310721, "target_modules": ["q_proj"]})
    assert getattr(found, "random_loc_seed", None) == 67280421310721
