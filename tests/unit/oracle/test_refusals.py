"""What an oracle refuses, in three parts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from augury.activations import Activations, capture
from augury.errors import AuguryError, ContractError, FormatError, InputError, ModelError, NetworkError, NotFoundError
from augury.lm import LanguageModel
from augury.lm.adapters import add_adapter
from augury.oracle import Oracle, Unavailable, hub, load_oracle
from augury.oracle.save import save_oracle
from tests.oracle_by_hand import CONFIG, CONTEXT, COOKING, LAYER, OTHER, WHO, contract_of
from tests.tiny import tiny_lm


def bad(lm: LanguageModel) -> dict[str, tuple[Any, str, type[AuguryError]]]:
    d = lm.d_model
    zero, broken = torch.randn(2, d), torch.randn(2, d)
    zero[1], broken[0, 3] = 0, float("nan")
    return {
        "wrong width": (torch.randn(2, d + 1), WHO, InputError),
        "zero": (zero, WHO, InputError),
        "nan": (broken, WHO, InputError),
        "empty question": (torch.randn(2, d), "  ", InputError),
        "untrained layer": (capture(lm, CONTEXT, 1, "last 2"), WHO, ContractError),
        "other depth": (capture(tiny_lm(n_layers=5), CONTEXT, LAYER, "last 2"), WHO, ContractError),
        "nothing to read": ("", WHO, InputError),
        "several contexts": ([CONTEXT, OTHER], WHO, InputError),
        "three dimensions": (torch.randn(1, 1, 1, d), WHO, InputError),
        "too many slots": (torch.randn(600, d), WHO, InputError),
    }


@pytest.mark.parametrize("case", list(bad(tiny_lm())))
@pytest.mark.parametrize("verb", ["ask", "score"])
def test_refusals_are_in_three_parts(oracle: Oracle, lm: LanguageModel, case: str, verb: str) -> None:
    acts, question, kind = bad(lm)[case]
    layers = LAYER if isinstance(acts, torch.Tensor) else None
    with pytest.raises(kind) as refused:
        {"ask": oracle.ask, "score": oracle.score}[verb](acts, question, layers=layers)
    assert refused.value.what and refused.value.why and refused.value.instead


def test_a_scan_whose_window_does_not_fit_is_refused(oracle: Oracle) -> None:
    with pytest.raises(InputError, match="too long"):
        oracle.scan(torch.randn(600, oracle.base.d_model), COOKING, layers=LAYER, window=600, donors=0)


def test_a_tensor_needs_its_layer(oracle: Oracle) -> None:
    with pytest.raises(InputError, match="layer"):
        oracle.ask(torch.randn(2, oracle.base.d_model), WHO)


@pytest.mark.parametrize("options", [{"samples": -1}, {"max_new_tokens": 0}, {"coefficient": 0.0}, {"samples": True}])
def test_settings_that_cannot_be_used(oracle: Oracle, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        oracle.ask(CONTEXT, WHO, **options)


def test_one_donor_is_no_comparison(oracle: Oracle) -> None:
    for ask in (
        lambda: oracle.ask(CONTEXT, WHO, controls=True, donors=1),
        lambda: oracle.score(CONTEXT, COOKING, donors=1),
        lambda: oracle.scan(CONTEXT, COOKING, donors=1),
    ):
        with pytest.raises(InputError, match="donors cannot be 1"):
            ask()


@pytest.mark.parametrize("choices", [("Yes",), ("Yes", " Yes"), ("Yes", ""), "Yes"])
def test_choices_that_cannot_be_scored(oracle: Oracle, choices: Any) -> None:
    with pytest.raises(InputError):
        oracle.score(CONTEXT, COOKING, choices=choices)


def test_off_contract_is_loud_and_goes_on(oracle: Oracle, lm: LanguageModel) -> None:
    loose = Oracle(lm, oracle.contract, oracle.adapter, "o", off_contract=True)
    with pytest.warns(UserWarning, match="off contract"):
        score = loose.score(capture(lm, CONTEXT, 1, "last 2"), COOKING, donors=0)
    assert any("off contract" in line for line in score.warnings)


def difference(lm: LanguageModel, floor: float) -> Activations:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    made = replace(acts, provenance=replace(acts.provenance, kind="difference"))
    norms = acts.vectors.norm(dim=-1)
    small = acts.vectors * torch.tensor([1e-6, 0.1, 0.1])[None, :, None]
    return replace(made, vectors=small, base_norms=norms, noise_floor=floor)


def test_a_difference_within_the_noise_is_refused(oracle: Oracle, lm: LanguageModel) -> None:
    with pytest.raises(InputError, match="noise"):
        oracle.ask(difference(lm, 1e-4), WHO)
    with pytest.raises(InputError, match=r"augury\.diff"):
        oracle.ask(replace(difference(lm, 1e-4), noise_floor=None), WHO)
    score = oracle.score(difference(lm, 1e-8), COOKING, controls=True, donors=2)
    assert isinstance(score.controls["text-all"], Unavailable)
    scan = oracle.scan(difference(lm, 1e-4), COOKING, donors=0)
    assert len(scan.margins) == 2 and any("left out" in line for line in scan.warnings)


def test_a_difference_of_exactly_nothing_is_left_out_of_a_scan(oracle: Oracle, lm: LanguageModel) -> None:
    made = difference(lm, 1e-4)
    equal = replace(made, vectors=made.vectors * torch.tensor([0.0, 1.0, 1.0])[None, :, None])
    scan = oracle.scan(equal, COOKING, donors=0)
    assert scan.margins == pytest.approx(oracle.scan(equal[1:], COOKING, donors=0).margins, abs=1e-5)
    assert scan.source.positions == equal.positions[1:]
    with pytest.raises(InputError, match="not above the noise"):
        oracle.ask(equal, WHO)
    broken = replace(made, vectors=made.vectors * torch.tensor([1.0, float("nan"), 1.0])[None, :, None])
    with pytest.raises(InputError, match="not finite"):
        oracle.scan(broken, COOKING, donors=0)


def test_another_base_is_refused_before_anything_is_loaded(folder: Path) -> None:
    other = tiny_lm(seed=5)
    before = list(other.model.state_dict())
    with pytest.raises(ContractError):
        load_oracle(folder, replace(other, name="another"))
    assert list(other.model.state_dict()) == before


def test_an_adapter_that_changes_nothing_is_refused(lm: LanguageModel, tmp_path: Path) -> None:
    fresh = tiny_lm()
    add_adapter(fresh, CONFIG, "zero")  # B is zero in a new LoRA
    where = save_oracle(fresh, "zero", CONFIG, contract_of(fresh), tmp_path / "zero")
    again = tiny_lm()
    before = list(again.model.state_dict())
    with pytest.raises(ModelError, match="changes nothing"):
        load_oracle(where, again)
    assert list(again.model.state_dict()) == before


def test_a_bare_adapter_needs_a_contract(folder: Path, tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    model = tiny_lm()
    with pytest.raises(ContractError, match="no contract"):
        load_oracle(tmp_path, model)
    with load_oracle(tmp_path, model, contract=contract_of(model)) as loaded:
        assert loaded.score(CONTEXT, COOKING, donors=0).margin


def test_pickles_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes((folder / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(FormatError, match="pickle"):
        load_oracle(tmp_path, tiny_lm())


@pytest.mark.parametrize("source", ["", "./nothing", "/no/such/folder", "nothing"])
def test_oracles_that_do_not_exist(lm: LanguageModel, source: str) -> None:
    with pytest.raises((InputError, NotFoundError)):
        load_oracle(source, lm)


def test_only_the_hub_has_revisions(lm: LanguageModel, folder: Path) -> None:
    for source in (folder, "smollm2"):
        with pytest.raises(InputError, match="no revision v2"):
            load_oracle(source, lm, revision="v2")


def test_a_shipped_oracle_that_is_missing(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.SHIPPED, "smollm2", tmp_path)
    with pytest.raises(NotFoundError, match="not in this installation"):
        load_oracle("smollm2", lm)


def test_an_unreachable_hub(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NetworkError, match="could not be reached") as refused:
        load_oracle("nobody/nothing", lm)
    assert "folder" in refused.value.instead


@pytest.mark.parametrize("verb", ["ask", "score", "samples", "whole"])
def test_logits_that_are_not_finite_are_no_answer(folder: Path, verb: str) -> None:
    """The reading is made before the model breaks, so that it is the answer that is refused."""
    lm = tiny_lm()
    with load_oracle(folder, lm) as oracle:
        acts = capture(lm, CONTEXT, LAYER, "last 2")
        lm.blocks[-1].mlp.down_proj.get_base_layer().weight.data[3, 3] = float("nan")  # pyright: ignore
        with pytest.raises(ModelError, match="not finite"):
            if verb == "score":
                oracle.score(acts, COOKING, donors=0)
            elif verb == "whole":
                oracle.score(acts, COOKING, choices=("about tea", "about the sea"), donors=0)
            else:
                oracle.ask(acts, WHO, samples=2 if verb == "samples" else None)


@pytest.mark.parametrize("value", [1e300, float("nan"), float("-inf"), "1", True])
def test_a_coefficient_beyond_sense_is_refused(oracle: Oracle, value: Any) -> None:
    with pytest.raises(InputError, match="coefficient"):
        oracle.ask(CONTEXT, WHO, coefficient=value)


def test_an_oracle_that_breaks_the_logits_is_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "loud")
    path = tmp_path / "loud" / "adapter_model.safetensors"
    save_file({key: torch.full_like(tensor.float(), 1e30) for key, tensor in load_file(path).items()}, path)
    with pytest.raises(ModelError, match="not finite"):
        load_oracle(tmp_path / "loud", tiny_lm())


def test_samples_that_cannot_differ_are_refused(oracle: Oracle) -> None:
    with pytest.raises(InputError, match="temperature 0"):
        oracle.ask(CONTEXT, WHO, samples=10, temperature=0)
    assert oracle.ask(CONTEXT, WHO, samples=1, max_new_tokens=2).agreement is None


@pytest.mark.parametrize(
    "options",
    [{"temperature": float("nan")}, {"temperature": 1e-320}, {"temperature": "1"}, {"seed": 2**64}, {"seed": 1.5}],
)
def test_sampling_that_cannot_be_done_is_refused(oracle: Oracle, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="sampling settings"):
        oracle.ask(CONTEXT, WHO, samples=2, **options)


@pytest.mark.parametrize("pairs", ["abc", 5, [(CONTEXT,)], ["ab"], None])
def test_what_is_no_list_of_pairs_is_refused(oracle: Oracle, pairs: Any) -> None:
    for ask in (oracle.ask_batch, oracle.score_batch):
        with pytest.raises(InputError, match="nothing to ask"):
            ask(pairs)


def test_choices_and_contracts_of_another_kind_are_refused(oracle: Oracle, folder: Path) -> None:
    with pytest.raises(InputError, match="no text"):
        oracle.score(CONTEXT, COOKING, choices=(1, 2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="no contract"):
        load_oracle(folder, oracle.lm, contract=5)  # pyright: ignore[reportArgumentType]


def test_numpys_numbers_are_numbers(oracle: Oracle) -> None:
    plain = oracle.ask(CONTEXT, WHO, coefficient=2.0, samples=2, temperature=0.5, seed=3, max_new_tokens=3)
    numpys = {"coefficient": np.int64(2), "samples": np.int64(2), "temperature": np.float32(0.5), "seed": np.int64(3)}
    found = oracle.ask(CONTEXT, WHO, max_new_tokens=np.int64(3), **numpys)  # pyright: ignore
    assert found.samples == plain.samples and found.settings == plain.settings
    json.dumps(found.to_dict())
