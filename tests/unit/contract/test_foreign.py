"""Contracts that others wrote: `ao_config.json`, and presets for oracles without a file."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from augury.contract import Injection, PromptFormat, contract_from_ao_config, preset, read_contract, repository_of
from augury.contract.presets import _COT_ORACLES
from augury.errors import ContractError, FormatError
from tests.contracts import AO, ODD_BLOCKS, ODD_INLINE

# --- reading ao_config.json


def test_ao_config(tmp_path: Path) -> None:
    (tmp_path / "ao_config.json").write_text(json.dumps({**AO, "unknown_field": [1]}))
    read = read_contract(tmp_path)
    assert read.base_model == "Qwen/Qwen3-8B"
    assert read.injection == Injection(site="block", block=1, operation="add", scale="match", coefficient=1.0)
    assert read.layers == ((9,), (18,), (27,))
    assert read.prompt == PromptFormat(layout="blocks", slot_token=" ?")
    assert read.generation == {"do_sample": False, "max_new_tokens": 20}
    assert (read.created, read.git_commit) == ("2026-02-01T10:00:00+00:00", "abc")
    assert read.foreign == {"unknown_field": [1], "lora_r": 64, "layer_combinations": [[25], [50], [75]]}
    assert (read.d_model, read.tokenizer_hash, read.positions) == (None, None, None)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (ODD_BLOCKS, "Layer: 9\n ? \nLayer: 18\n ? \n"),
        (ODD_INLINE, "L9: ? L18: ?.\n"),
        (ODD_BLOCKS.replace(r"\n", "\n"), "Layer: 9\n ? \nLayer: 18\n ? \n"),
        (ODD_INLINE.replace(r"\n", "\n"), "L9: ? L18: ?.\n"),
    ],
)
def test_odd_templates(template: str, text: str) -> None:
    assert contract_from_ao_config({**AO, "prefix_template": template}).prefix((9, 18), 1) == text


@pytest.mark.parametrize("template", ["", "Layer {layer}: {special_token}", ODD_BLOCKS + " ", 3, ODD_BLOCKS[:-4]])
def test_an_unknown_template_is_refused(template: Any) -> None:
    with pytest.raises(FormatError, match="template"):
        contract_from_ao_config({**AO, "prefix_template": template})


@pytest.mark.parametrize("field", ["hook_onto_layer", "special_token", "prefix_template", "steering_coefficient"])
def test_what_decides_the_numerics_is_not_guessed(field: str) -> None:
    with pytest.raises(FormatError, match=field):
        contract_from_ao_config({name: value for name, value in AO.items() if name != field})


@pytest.mark.parametrize("version", [2, "x"])
def test_ao_version(version: Any) -> None:
    with pytest.raises(FormatError, match=repr(version)):
        contract_from_ao_config({**AO, "schema_version": version})


def test_percentages_alone() -> None:
    percents = {**AO, "act_layer_combinations": [], "layer_combinations": [[25, 50, 75]]}
    without = contract_from_ao_config(percents)
    assert without.layers is None and without.foreign["layer_combinations"] == [[25, 50, 75]]
    assert contract_from_ao_config(percents, n_layers=36).layers == ((9, 18, 27),)
    with pytest.raises(FormatError, match="100%"):
        contract_from_ao_config({**percents, "layer_combinations": [[100]]}, n_layers=36)


def test_older_ones_replace() -> None:
    with pytest.warns(UserWarning, match="replace"):
        assert contract_from_ao_config({**AO, "created_at_utc": "2025-10-25T23:59:59"}).injection.operation == "replace"
    assert contract_from_ao_config({**AO, "created_at_utc": "2025-10-26T00:00:00"}).injection.operation == "add"


def test_fields_that_sound_like_numerics_are_told() -> None:
    with pytest.warns(UserWarning, match="injection_mode"):
        read = contract_from_ao_config({**AO, "injection_mode": "rotate"})
    assert read.foreign["injection_mode"] == "rotate"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        contract_from_ao_config({**AO, "max_grad_norm": 1.0, "max_target_tokens": 0})


def test_a_rescaled_sum(tmp_path: Path) -> None:
    assert contract_from_ao_config({**AO, "norm_scale": 2.0}).injection.rescale_to == 2.0
    (tmp_path / "ao_config.json").write_text(json.dumps(AO))
    assert read_contract(tmp_path, repository="ceselder/qwen3-8b-ao-v3-best-steering2p0").injection.rescale_to == 2.0
    assert read_contract(tmp_path, repository="ceselder/qwen3-8b-ao-v3-best").injection.rescale_to is None


def test_the_base_may_stand_in_the_adapters_config(tmp_path: Path) -> None:
    (tmp_path / "ao_config.json").write_text(json.dumps({**AO, "model_name": None}))
    assert read_contract(tmp_path).base_model is None
    assert read_contract(tmp_path, {"base_model_name_or_path": "org/base"}).base_model == "org/base"


# --- presets


@pytest.mark.parametrize("name", _COT_ORACLES)
def test_cot_oracles(tmp_path: Path, name: str) -> None:
    folder = tmp_path / f"models--ceselder--{name}" / "snapshots" / "0f3a"
    folder.mkdir(parents=True)
    read = read_contract(folder, {"base_model_name_or_path": "Qwen/Qwen3-8B"})
    assert read.prompt.layout == "inline" and read.base_model == "Qwen/Qwen3-8B"
    assert read.injection == Injection(block=1, operation="add", coefficient=1.0)
    for count in ("1layer", "3layers"):
        if count in name:
            assert read.layers is not None and len(read.layers[0]) == int(count[0])


def test_there_are_six() -> None:
    assert len(_COT_ORACLES) == 6


def test_a_preset_of_another_base_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cot-oracle-grpo-step-500"
    folder.mkdir()
    with pytest.raises(ContractError, match=r"Qwen3-1\.7B"):
        read_contract(folder, {"base_model_name_or_path": "Qwen/Qwen3-1.7B"})
    assert read_contract(folder, {"base_model_name_or_path": "/models/q"}).layers is None


def test_ambiguous_checkpoints_are_not_guessed() -> None:
    with pytest.raises(ContractError, match="augury doctor MODEL --oracle"):
        preset("adamkarvonen/checkpoints_all_single_and_multi_pretrain_Qwen3-8B")


@pytest.mark.parametrize("name", ["org/some-lora", "somebody/cot-oracle-grpo-step-500", "cot-oracle-v9"])
def test_a_bare_adapter_needs_a_stated_contract(tmp_path: Path, name: str) -> None:
    assert preset(name) is None
    with pytest.raises(ContractError, match="state the contract"):
        read_contract(tmp_path, {}, repository=name)


def test_repository_of(tmp_path: Path) -> None:
    assert repository_of(tmp_path / "models--a--b-c" / "snapshots" / "1") == "a/b-c"
    assert repository_of(tmp_path / "mine") == "mine"
