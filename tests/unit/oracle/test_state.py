"""What an oracle leaves behind: the model restored, what was rendered not shared, saved oracles whole."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from augury.activations import capture
from augury.contract import Contract
from augury.errors import InputError, NotFoundError, StorageError
from augury.lm import LanguageModel
from augury.lm.adapters import active_adapters, adapter_parameters, adapters_on, add_adapter, remove_adapter
from augury.oracle import Oracle, Score, load_oracle
from augury.oracle.controls import CONTROLS
from augury.oracle.prompt import build_labelled
from tests.oracle_by_hand import CONFIG, CONTEXT, COOKING, LAYER, WHO, contract_of, randomise
from tests.tiny import tiny_lm

# --- what must not happen


def test_what_loading_found_out_is_in_every_result(folder: Path) -> None:
    model = tiny_lm()
    other = contract_of(model).model_copy(update={"weights_fingerprint": "another"})
    with load_oracle(folder, model, contract=other) as loaded:
        results = [loaded.ask(CONTEXT, WHO, max_new_tokens=1), loaded.score(CONTEXT, COOKING, donors=0)]
        results.append(loaded.scan(capture(model, CONTEXT, LAYER, "last 2"), COOKING, donors=0))
        assert loaded.notes
    for result in results:
        assert [line for line in result.warnings if line.startswith("other weights than in training")]
        assert len(set(result.warnings)) == len(result.warnings)
    wide = contract_of(model).model_copy(update={"d_model": 99})
    with pytest.warns(UserWarning), load_oracle(folder, model, contract=wide, off_contract=True) as loaded:
        answer = loaded.ask(torch.randn(2, model.d_model), WHO, layers=LAYER, max_new_tokens=1)
    assert any(line.startswith("off contract: its width") for line in answer.warnings)


def test_contracts_on_one_model_do_not_share_what_was_rendered() -> None:
    """Each contract's own template and its arguments, whichever was rendered first."""
    model = tiny_lm()
    tokenizer: Any = model.tokenizer
    own = "{{ date|default('') }}" + str(tokenizer.chat_template).replace(
        "<|end|>\n", "<|end|>{{ tail|default('') }}\n"
    )
    tokenizer.chat_template = own
    plain = contract_of(model)
    dated = plain.model_copy(update={"chat_template_kwargs": {"date": "Who is tea? ", "tail": " user"}})

    def labelled(lm: LanguageModel, contract: Contract) -> Any:
        return build_labelled(lm, contract, (LAYER,), 3, WHO, [5, 6])

    def alone(contract: Contract) -> Any:
        return labelled(replace(model, memo={}), contract)

    assert [labelled(model, c) for c in (plain, dated, plain)] == [alone(c) for c in (plain, dated, plain)]
    assert labelled(model, plain) != labelled(model, dated)
    tokenizer.chat_template = "tea " + own
    assert labelled(model, plain) == alone(plain)


def test_slot_tokens_in_a_question_are_text(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    read = oracle.read([acts], None, "all")[0]
    slots = {oracle.item(read, q).prompt.slots for q in (WHO, "De quoi parle ce texte ?", "Is ? ? ? ? it ?")}
    assert len(slots) == 1


def test_a_targets_adapter_is_off_while_the_oracle_answers(oracle: Oracle, lm: LanguageModel) -> None:
    before = oracle.score(CONTEXT, COOKING, controls=True, donors=2)
    add_adapter(lm, CONFIG, "target")
    try:
        randomise(lm, "target", seed=9)
        target = replace(lm, target_adapters=("target",))
        other = Oracle(target, oracle.contract, oracle.adapter, "o")
        with adapters_on(lm.model, ("target",)):
            after = other.score(CONTEXT, COOKING, controls=True, donors=2)
            assert active_adapters(lm.model) == ("target",)
        assert after.log_probs == pytest.approx(before.log_probs, abs=1e-6)
        for name in CONTROLS:
            one, two = before.controls[name], after.controls[name]
            assert isinstance(one, Score) and isinstance(two, Score)
            assert one.log_probs == pytest.approx(two.log_probs, abs=1e-6)
        assert any("target" in line for line in after.warnings)
        read = other.score(capture(target, CONTEXT, LAYER, "last 8"), COOKING, donors=0)
        assert abs(read.margin - after.margin) > 1e-3 and read.provenance.adapters == ("target",)
    finally:
        remove_adapter(lm, "target")


def test_everything_is_restored_after_success_and_failure(oracle: Oracle, lm: LanguageModel) -> None:
    before = capture(lm, CONTEXT, LAYER, "all").vectors
    state = {id(p): p.requires_grad for p in lm.model.parameters()}
    oracle.ask(CONTEXT, WHO, max_new_tokens=2, controls=True, donors=2)
    broken = lm.model.model.layers[3].register_forward_hook(_fail)  # pyright: ignore
    try:
        with pytest.raises(RuntimeError, match="broken"):
            oracle.score(capture(lm, CONTEXT, LAYER, "last 3"), COOKING, donors=0)
    finally:
        broken.remove()
    assert torch.equal(capture(lm, CONTEXT, LAYER, "all").vectors, before)
    assert active_adapters(lm.model) == () and not lm.model.training
    assert {id(p): p.requires_grad for p in lm.model.parameters()} == state
    assert not any(module._forward_hooks for module in lm.model.modules())


def _fail(*_: Any) -> None:
    raise RuntimeError("broken")


def test_unloading_leaves_the_plain_model(folder: Path) -> None:
    lm = tiny_lm()
    before = list(lm.model.state_dict())
    with load_oracle(folder, lm) as loaded:
        assert list(lm.model.state_dict()) != before
    assert list(lm.model.state_dict()) == before
    loaded.unload()
    with pytest.raises(NotFoundError):
        loaded.ask(CONTEXT, WHO)


# --- saved and loaded


def test_a_saved_oracle_answers_the_same(oracle: Oracle, lm: LanguageModel, tmp_path: Path) -> None:
    where = oracle.save_pretrained(tmp_path / "copy")
    with load_oracle(where, tiny_lm()) as again:
        assert again.score(CONTEXT, COOKING).log_probs == oracle.score(CONTEXT, COOKING).log_probs
        assert again.ask(CONTEXT, WHO).text == oracle.ask(CONTEXT, WHO).text
        assert again.contract == oracle.contract
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "ao_config.json", "oracle.json"}
    assert {path.name for path in where.iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert "None were measured" in (where / "README.md").read_text()


def test_saving_rounds_nothing_unless_told(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    with load_oracle(folder, tiny_lm()) as loaded:
        with torch.no_grad():
            for parameter in adapter_parameters(loaded.lm.model, loaded.adapter).values():
                parameter.mul_(1 / 3)  # no longer a float16
        want = loaded.score(CONTEXT, COOKING, donors=0)
        exact = loaded.save_pretrained(tmp_path / "exact")
        half = loaded.save_pretrained(tmp_path / "half", dtype=torch.float16)
        with load_oracle(exact, tiny_lm()) as again:
            assert again.score(CONTEXT, COOKING, donors=0).log_probs == want.log_probs
    found = {name: load_file(name / "adapter_model.safetensors") for name in (exact, half)}
    assert {t.dtype for t in found[half].values()} == {torch.float16}
    assert all(torch.equal(found[half][key], tensor.half()) for key, tensor in found[exact].items())


def test_a_saved_oracle_loads_in_plain_peft(oracle: Oracle, folder: Path) -> None:
    from peft import PeftModel

    plain = tiny_lm()
    ids = torch.tensor([[5, 6, 7, 8]])
    wrapped = PeftModel.from_pretrained(copy.deepcopy(plain.model), str(folder))
    with torch.no_grad(), adapters_on(oracle.lm.model, (oracle.adapter,)):
        assert torch.allclose(wrapped(ids).logits, oracle.lm.model(ids).logits, atol=1e-5)
        assert not torch.allclose(plain.model(ids).logits, oracle.lm.model(ids).logits, atol=1e-2)


def test_saving_replaces_an_oracle_and_nothing_else(oracle: Oracle, tmp_path: Path) -> None:
    oracle.save_pretrained(tmp_path / "o")
    oracle.save_pretrained(tmp_path / "o")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not replaced"):
        oracle.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_saving_over_an_oracle_keeps_what_else_lies_there(oracle: Oracle, tmp_path: Path) -> None:
    where = oracle.save_pretrained(tmp_path / "o")
    (where / ".git").mkdir()
    (where / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (where / "notes.txt").write_text("mine")
    (where / "oracle.json").write_text("{}")
    (where / "ao_config.json").write_text("{}")
    fixed = oracle.contract.injection.model_copy(update={"operation": "replace"})  # which ao_config.json cannot say
    other = oracle.contract.model_copy(update={"injection": fixed})
    Oracle(oracle.lm, other, oracle.adapter, "o", oracle.config).save_pretrained(where)
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "oracle.json", ".git", "notes.txt"}
    assert {path.name for path in where.iterdir()} == names
    assert (where / ".git" / "HEAD").read_text() == "ref: refs/heads/main"
    assert (where / "notes.txt").read_text() == "mine"
    with load_oracle(where, tiny_lm()) as again:
        assert again.contract == other
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_a_failed_save_leaves_the_old_oracle(oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = oracle.save_pretrained(tmp_path / "o")
    before = {path.name: path.read_bytes() for path in where.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("augury.oracle.save.write_contract", full)
    with pytest.raises(StorageError, match="No space left"):
        oracle.save_pretrained(where)
    assert {path.name: path.read_bytes() for path in where.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
