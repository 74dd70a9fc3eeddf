"""Checkpoints: an oracle's folder that others load, whole or absent, and refused where it is broken."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import augury
from augury.errors import FormatError, StorageError
from augury.lm.adapters import adapter_parameters, adapters_on, remove_adapter
from augury.oracle.load import load_oracle
from augury.train.checkpoint import State, latest, load_checkpoint, save_checkpoint
from augury.train.loop import ADAPTER as ORACLE
from augury.train.loop import train_adapter
from augury.train.reads import CachedReads, cache_reads
from tests.tiny import tiny_contract, tiny_lm
from tests.training import examples_of, recipe, rollouts, train, training_data


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def trained(lm, tmp_path_factory):
    """The newest checkpoint of a short run, and the adapter as it was at the end."""
    folder, found = tmp_path_factory.mktemp("run"), rollouts(lm)
    _, parameters = train(lm, (found, cache_reads(lm, found, [2], folder / "reads", "train")), folder)
    return latest(folder / "checkpoints"), parameters


def test_a_checkpoint_is_an_oracle_that_answers(lm, trained):
    folder, parameters = trained
    oracle = load_oracle(folder, lm)
    try:
        answer = oracle.ask(augury.capture(lm, "tea tea tea", layers=2), "What is this about?", max_new_tokens=3)
        assert isinstance(answer.text, str)
        assert oracle.contract.trained_on.steps == 6 and oracle.contract.trained_on.examples == 24
    finally:
        remove_adapter(lm, oracle.adapter)
    saved = load_file(folder / "adapter_model.safetensors")
    assert saved.keys() == {f"base_model.model.{name}" for name in parameters}
    assert all(torch.equal(saved[f"base_model.model.{name}"], value) for name, value in parameters.items())


def test_plain_peft_loads_a_checkpoint_to_the_same_logits(lm, trained):
    from peft import PeftModel

    folder, _ = trained
    oracle, ids = load_oracle(folder, lm), torch.tensor([[5, 9, 30, 7]])
    try:
        with torch.no_grad(), adapters_on(lm.model, [oracle.adapter]):
            ours = lm.model(ids).logits
    finally:
        remove_adapter(lm, oracle.adapter)
    theirs = PeftModel.from_pretrained(tiny_lm().model, folder).eval()
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, ours, atol=1e-5)


def test_a_run_whose_checkpoint_is_broken_leaves_the_model_as_it_was(lm, trained, tmp_path):
    shutil.copytree(trained[0].parent, tmp_path / "checkpoints")
    (latest(tmp_path / "checkpoints") / "state.json").write_text("{}")
    with pytest.raises(FormatError, match="step-000004 before it is whole"):
        found, reads = rollouts(lm), CachedReads([2], [], 1)
        data = training_data(recipe(), examples_of(lm, found), reads)
        train_adapter(lm, tiny_contract(lm), recipe(), data, tmp_path)
    assert not adapter_parameters(lm.model, ORACLE)


def made(folder, step, value=1.0):
    """A checkpoint of one parameter that was stepped once."""
    parameters = {"w": torch.nn.Parameter(torch.full((2,), value))}
    optimizer = torch.optim.AdamW(parameters.values())
    parameters["w"].sum().backward()
    optimizer.step()

    def write(partial):
        save_file({"base_model.model.w": parameters["w"].detach()}, partial / "adapter_model.safetensors")

    return save_checkpoint(folder, State(step, 0, 0, 0, 1, 1), write, parameters, optimizer)


def rewrite(name, change):
    def apply(folder):
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return apply


ADAPTER, OPTIMIZER = "adapter_model.safetensors", "optimizer.safetensors"
BREAKS = {
    "no adapter": lambda folder: (folder / ADAPTER).unlink(),
    "cut adapter": lambda folder: (folder / ADAPTER).write_bytes((folder / ADAPTER).read_bytes()[:30]),
    "not finite": rewrite(ADAPTER, lambda tensors: tensors["base_model.model.w"].fill_(float("nan"))),
    "missing tensor": rewrite(ADAPTER, lambda tensors: tensors.clear()),
    "extra tensor": rewrite(ADAPTER, lambda tensors: tensors.update(v=torch.ones(1))),
    "misshaped tensor": rewrite(ADAPTER, lambda tensors: tensors.update({"base_model.model.w": torch.ones(3)})),
    "no moments": rewrite(OPTIMIZER, lambda tensors: tensors.clear()),
    "missing moment": rewrite(OPTIMIZER, lambda tensors: tensors.pop("w/exp_avg")),
    "misshaped moment": rewrite(OPTIMIZER, lambda tensors: tensors.update({"w/exp_avg": torch.ones(3)})),
    "another's moment": rewrite(OPTIMIZER, lambda tensors: tensors.update({"v/exp_avg": tensors.pop("w/exp_avg")})),
    "torn state": lambda folder: (folder / "state.json").write_text('{"step": 2'),
    "empty state": lambda folder: (folder / "state.json").write_text("{}"),
}


@pytest.mark.parametrize("broken", list(BREAKS))
def test_a_broken_checkpoint_is_refused_and_the_one_before_is_named(tmp_path, broken):
    made(tmp_path, 1)
    BREAKS[broken](made(tmp_path, 2))
    parameters = {"w": torch.nn.Parameter(torch.zeros(2))}
    optimizer = torch.optim.AdamW(parameters.values())
    with pytest.raises(FormatError, match=r"(?s)step-000002 cannot be used.*step-000001 before it is whole"):
        load_checkpoint(latest(tmp_path), parameters, optimizer)
    assert not parameters["w"].any() and not optimizer.state
    assert load_checkpoint(tmp_path / "step-000001", parameters, optimizer).step == 1
    assert parameters["w"].all() and float(optimizer.state[parameters["w"]]["step"]) == 1


def test_checkpoints_are_in_the_order_of_their_numbers(tmp_path):
    for step in (999_999, 1_000_000):
        made(tmp_path, step)
    assert latest(tmp_path).name == "step-1000000"
    made(tmp_path, 1_000_001)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1000000", "step-1000001"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: no space")])
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch, error):
    made(tmp_path, 1)

    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr("augury.train.checkpoint.save_file", full)
    with pytest.raises(StorageError, match="step-000001 is whole"):
        made(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert json.loads((tmp_path / "step-000001" / "state.json").read_text())["moments"] == 3


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    told = []

    def fsync(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        told.append((path.name, sorted(p.name for p in tmp_path.iterdir())))

    monkeypatch.setattr(os, "fsync", fsync)
    made(tmp_path, 1)
    *before, after = told
    assert {name for name, _ in before} == {ADAPTER, OPTIMIZER, "state.json", ".partial-000001"}
    assert all(there == [".partial-000001"] for _, there in before)
    assert after == (tmp_path.name, ["step-000001"])
