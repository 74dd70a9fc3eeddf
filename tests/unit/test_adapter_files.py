"""What peft saves is a whole adapter, of whatever sort; before training it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from augury.errors import ModelError
from augury.lm.adapter_files import check_adapter_files
from tests.tiny import tiny_lm

SORTS: list[dict[str, Any]] = [
    {},
    {"lora_bias": True},
    {"use_dora": True},
    {"rank_pattern": {"q_proj": 3}},
    {"target_modules": ["embed_tokens", "q_proj"]},
    {"modules_to_save": ["lm_head"]},
]


def saved(folder: Path, **config: Any) -> Path:
    from peft import LoraConfig, get_peft_model

    fields: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj"], **config}
    get_peft_model(tiny_lm().model, LoraConfig(**fields)).save_pretrained(folder)  # pyright: ignore[reportArgumentType]
    return folder


@pytest.mark.parametrize("sort", SORTS, ids=str)
def test_what_peft_saves_is_whole(sort: dict[str, Any], tmp_path: Path) -> None:
    found = check_adapter_files(saved(tmp_path, init_lora_weights=False, **sort))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert (found.tensors, found.parameters) == (len(tensors), sum(tensor.numel() for tensor in tensors.values()))


@pytest.mark.parametrize("sort", SORTS[:4], ids=str)
def test_an_untrained_adapter_changes_nothing(sort: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="changes nothing"):
        check_adapter_files(saved(tmp_path, **sort))
