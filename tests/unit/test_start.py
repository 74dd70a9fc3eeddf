"""Training that begins with an oracle: its weights, and only where they mean the same."""

from __future__ import annotations

import pytest
import torch

from augury.errors import ContractError, InputError
from augury.lm.adapters import adapter_parameters, add_adapter, remove_adapter
from augury.lm.learning import add_learner
from augury.oracle.save import save_oracle
from augury.train.loop import ADAPTER, lora_config, train_adapter
from augury.train.reads import cache_reads
from augury.train.recipe import LoraSettings
from augury.train.start import begin_with
from tests.tiny import tiny_contract, tiny_lm
from tests.training import examples_of, recipe, rollouts, train, training_data


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def old(lm, tmp_path_factory):
    """A trained oracle of the recipe's shape, as a folder, and its weights."""
    folder, found = tmp_path_factory.mktemp("old"), rollouts(lm)
    reads = cache_reads(lm, found, [2], folder / "reads", "train")
    _, weights = train(lm, (found, reads), folder / "run")
    return folder / "run" / "checkpoints" / "step-000006", weights


@pytest.fixture
def fresh(lm):
    parameters = add_learner(lm, lora_config(recipe()), ADAPTER, recipe().optimizer.seed)
    yield parameters
    remove_adapter(lm, ADAPTER)


def test_a_run_begins_with_the_oracles_weights(lm, old, fresh):
    folder, weights = old
    assert any(not torch.equal(fresh[name], value) for name, value in weights.items())
    before = set(adapter_parameters(lm.model, ADAPTER))
    begin_with(str(folder), lm, recipe().lora, tiny_contract(lm), ADAPTER)
    assert all(torch.equal(fresh[name], value) for name, value in weights.items())
    assert set(adapter_parameters(lm.model, ADAPTER)) == before and len(lm.model.peft_config) == 1


def test_a_resumed_run_does_not_begin_again(lm, old, tmp_path):
    found = rollouts(lm)
    made, reads = recipe(), cache_reads(lm, found, [2], tmp_path / "reads", "train")
    data, begun = training_data(made, examples_of(lm, found), reads), []

    def run(stop_after):
        seen = []
        train_adapter(
            lm, tiny_contract(lm), made, data, tmp_path,
            start=lambda: begun.append(begin_with(str(old[0]), lm, made.lora, tiny_contract(lm), ADAPTER)),
            on_step=lambda report: seen.append(report), stop=lambda: len(seen) >= stop_after,
        )  # fmt: skip
        remove_adapter(lm, ADAPTER)
        return seen

    first = run(2)
    assert len(begun) == 1 and len(run(9)) == 4 and len(begun) == 1
    fresh, _ = train(lm, (found, reads), tmp_path / "fresh")
    assert first[0].loss != fresh[0].loss, "it began with weights of its own"


@pytest.mark.parametrize(
    ("change", "told"), [({"rank": 8}, "rank 4"), ({"alpha": 4.0}, "alpha 8"), ({"rslora": True}, "rslora False")]
)
def test_another_scale_of_the_adapter_is_refused(lm, old, fresh, change, told):
    lora = LoraSettings(**{**recipe().lora.model_dump(), **change})
    with pytest.raises(InputError, match=told):
        begin_with(str(old[0]), lm, lora, tiny_contract(lm), ADAPTER)


def test_other_modules_are_refused(lm, fresh, tmp_path):
    config = {**lora_config(recipe()), "target_modules": ["q_proj"]}
    add_adapter(lm, config, "small")
    for parameter in adapter_parameters(lm.model, "small").values():
        torch.nn.init.normal_(parameter, std=0.1)
    folder = save_oracle(lm, "small", config, tiny_contract(lm), tmp_path / "small")
    remove_adapter(lm, "small")
    with pytest.raises(InputError, match=r"lora\.target_modules"):
        begin_with(str(folder), lm, recipe().lora, tiny_contract(lm), ADAPTER)


def test_another_base_is_refused_and_another_injection_told(lm, old, fresh, caplog):
    with caplog.at_level("WARNING"):
        begin_with(str(old[0]), lm, recipe().lora, tiny_contract(lm, coefficient=2.0), ADAPTER)
    assert "another injection" in caplog.text
    other = tiny_lm(n_layers=3)
    add_learner(other, lora_config(recipe()), ADAPTER, recipe().optimizer.seed)
    with pytest.raises(ContractError):
        begin_with(str(old[0]), other, recipe().lora, tiny_contract(other), ADAPTER)
