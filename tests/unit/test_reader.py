"""A trained reader: it gets text and nothing else, answers the text controls, and is never taken for an oracle."""

from __future__ import annotations

import json

import pytest
import torch

import augury
from augury.errors import AuguryError, ContractError, InputError, NotFoundError
from augury.lm.adapters import adapter_parameters, adapters_on, remove_adapter
from augury.lm.learning import add_learner
from augury.oracle.load import load_oracle
from augury.oracle.prompt import plain_prompt
from augury.oracle.reader import load_reader, save_reader
from augury.oracle.reading import text_at, text_until
from augury.oracle.save import save_oracle
from augury.train.batching import collate, prepare
from augury.train.loop import ADAPTER, lora_config
from augury.train.reads import TextReads, cache_reads
from augury.train.step import example_losses
from tests.tiny import tiny_contract, tiny_lm
from tests.training import examples_of, recipe, rollouts, train


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def contexts(lm):
    return rollouts(lm)


@pytest.fixture(scope="module")
def folders(lm, contexts, tmp_path_factory):
    """An oracle, and a reader that was trained on the same examples."""
    folder = tmp_path_factory.mktemp("both")
    config = lora_config(recipe())
    train(lm, (contexts, cache_reads(lm, contexts, [2], folder / "reads", "train")), folder / "o", examples=80)
    train(lm, (contexts, TextReads(lm, contexts)), folder / "r", examples=80)
    for name, save in (("o", save_oracle), ("r", save_reader)):
        parameters = add_learner(lm, lora_config(recipe()), ADAPTER, recipe().optimizer.seed)
        from safetensors.torch import load_file

        saved = load_file(folder / name / "checkpoints" / "step-000020" / "adapter_model.safetensors")
        with torch.no_grad():
            for key, parameter in parameters.items():
                parameter.copy_(saved[f"base_model.model.{key}"])
        save(lm, ADAPTER, config, tiny_contract(lm), folder / f"{name}-saved")
        remove_adapter(lm, ADAPTER)
    return folder / "o-saved", folder / "r-saved"


def test_half_of_the_examples_get_the_window_and_half_all_before_it_and_nothing_right_of_it(lm, contexts):
    reads, seen = TextReads(lm, contexts), {"window": 0, "all": 0}
    for example in [e for rows in examples_of(lm, contexts, 60).values() for e in rows]:
        ids, text = contexts[example.context].token_ids, reads.text(example)
        window, whole = text_at(lm, ids, example.positions), text_until(lm, ids, example.positions)
        assert text in (window, whole) and reads.text(example) == text
        if window != whole:
            seen["window" if text == window else "all"] += 1
    assert min(seen.values()) > 0.35 * sum(seen.values())


def test_its_loss_is_that_of_a_plain_pass_over_the_text(lm, contexts):
    contract, reads = tiny_contract(lm), TextReads(lm, contexts)
    examples = [rows[0] for rows in examples_of(lm, contexts, 3).values()]
    items = [prepare(lm, contract, reads, example) for example in examples]
    found = example_losses(lm, contract.injection, collate(lm, items, True))
    for item, example, loss in zip(items, examples, found, strict=True):
        question = example.question
        if example.task == "yes_no":
            question = contract.prompt.yes_no_prefix + question
        prompt = plain_prompt(lm, contract, f'Text: "{reads.text(example)}"\n\n{question}').token_ids
        assert item.labelled.token_ids[: len(prompt)] == prompt and not item.labelled.slots
        logits = lm.model(torch.tensor([item.labelled.token_ids])).logits[0]
        labels = torch.tensor(item.labelled.token_ids[len(prompt) :])
        total = torch.nn.functional.cross_entropy(logits[len(prompt) - 1 : -1], labels, reduction="sum")
        assert float(loss) == pytest.approx(float(total) / (len(labels) - 2), abs=1e-4)


def test_a_loaded_reader_answers_the_text_controls_and_only_these(lm, folders):
    oracle_folder, reader_folder = folders
    acts = augury.capture(lm, "tea and coffee and tea", layers=2)
    with load_oracle(oracle_folder, lm) as plain:
        before = plain.score(acts, "Is this about tea?", controls=True, donors=0)
        assert plain.reader is None
    with load_oracle(oracle_folder, lm, reader=reader_folder) as oracle:
        after = oracle.score(acts, "Is this about tea?", controls=True, donors=0)
        assert oracle.reader is not None and after.margin == pytest.approx(before.margin, abs=1e-5)
        for name in ("none", "untrained"):
            assert after.controls[name].margin == pytest.approx(before.controls[name].margin, abs=1e-5)
        for name in ("text-window", "text-all"):
            assert abs(after.controls[name].margin - before.controls[name].margin) > 1e-3
            assert after.controls[name].source.adapters == (oracle.reader,)
        answer = oracle.ask(acts, "What is this about?", controls=True, max_new_tokens=3)
        assert answer.controls["text-all"].source.adapters == (oracle.reader,)
        assert adapter_parameters(lm.model, oracle.reader)
    assert not adapter_parameters(lm.model, oracle.reader), "the reader stayed on the model"


def test_a_reader_in_the_oracles_folder_is_found(lm, folders, tmp_path):
    import shutil

    shutil.copytree(folders[0], tmp_path / "oracle")
    shutil.copytree(folders[1], tmp_path / "oracle" / "reader")
    with load_oracle(tmp_path / "oracle", lm) as oracle:
        assert oracle.reader is not None


def test_what_is_no_reader_is_refused(lm, folders, tmp_path):
    oracle_folder, reader_folder = folders
    with pytest.raises(AuguryError):
        load_oracle(reader_folder, lm)
    with pytest.raises(NotFoundError, match=r"reader\.json"):
        load_reader(oracle_folder, lm)
    with pytest.raises(InputError, match="not replaced"):
        save_reader(lm, "none", {}, tiny_contract(lm), oracle_folder)
    other = tiny_lm(n_layers=3)
    with pytest.raises(ContractError):
        load_reader(reader_folder, other)
    assert not (reader_folder / "oracle.json").exists()
    assert json.loads((reader_folder / "reader.json").read_text())["base_model"]


def test_the_base_is_as_it_was(lm, folders):
    ids = torch.tensor([[5, 9, 30, 7]])
    with torch.no_grad():
        want = tiny_lm().model(ids).logits
        with adapters_on(lm.model, ()):
            assert torch.equal(lm.model(ids).logits, want)
