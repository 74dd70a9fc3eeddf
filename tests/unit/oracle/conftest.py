"""One tiny oracle for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from augury.lm import LanguageModel
from augury.lm.adapters import add_adapter
from augury.oracle import Oracle, load_oracle
from augury.oracle.save import save_oracle
from tests.oracle_by_hand import ALPHA, CONFIG, RANK, contract_of, randomise
from tests.tiny import tiny_lm


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUGURY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved oracle."""
    lm = tiny_lm()
    add_adapter(lm, CONFIG, "made")
    randomise(lm, "made")
    return save_oracle(lm, "made", CONFIG, contract_of(lm), tmp_path_factory.mktemp("oracles") / "o.1")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm()


@pytest.fixture(scope="module")
def oracle(lm: LanguageModel, folder: Path) -> Iterator[Oracle]:
    with load_oracle(folder, lm) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def merged(folder: Path) -> LanguageModel:
    """The same model with the adapter added to its weights by hand: no peft."""
    from safetensors.torch import load_file

    plain = tiny_lm()
    tensors = load_file(folder / "adapter_model.safetensors")
    for key in [key for key in tensors if key.endswith("lora_A.weight")]:
        module = plain.model.get_submodule(key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
        b = tensors[key.replace("lora_A", "lora_B")].float()
        module.weight.data += ALPHA / RANK * b @ tensors[key].float()  # pyright: ignore
    return plain
