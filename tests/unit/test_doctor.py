"""The doctor finds nothing wrong with sound models, and the right thing with broken ones."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from augury.contract import Contract, PromptFormat, contract_from_dict, write_contract
from augury.data.sources.lens import WORDINGS
from augury.errors import InputError, NotFoundError
from augury.lm import LanguageModel, load_model
from augury.lm.adapters import (
    active_adapters,
    adapter_parameters,
    adapters_on,
    add_adapter,
    names_on,
    remove_adapter,
    save_adapter,
    tuner_layers,
)
from augury.lm.batch import columns_of, left_pad
from augury.lm.chat import needs_tokenizer
from augury.oracle import doctor_oracle
from augury.oracle.doctor import check_model
from augury.oracle.doctor_lens import (
    LENS_WORDINGS,
    WINDOW,
    K,
    LensLosses,
    Losses,
    lens_losses,
    lens_texts,
    text_vectors,
)
from augury.oracle.doctor_oracle import OracleReport, candidate_contracts, check_oracle
from augury.oracle.inject import inject, injecting
from augury.oracle.prompt import build_prompt
from tests.families import FAMILIES, LORA, build
from tests.tiny import tiny_contract, tiny_lm, tiny_tokenizer

CONFIG: dict[str, Any] = {
    **LORA, "r": 16, "lora_alpha": 32,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj"],
}  # fmt: skip
LAYERS = (2,)
STEPS = 50


def failing(lm: LanguageModel) -> set[str]:
    return {check.name for check in check_model(lm) if not check.ok}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_model_passes(family: str) -> None:
    checks = check_model(build(family))
    assert [check.name for check in checks if not check.ok] == []
    assert [check.name for check in checks[:6]] == ["blocks", "capture", "injection", "padding", "cache", "restored"]
    assert all(check.detail and check.seconds >= 0 for check in checks)


def test_a_model_with_a_tokenizer_is_checked_to_the_end() -> None:
    checks = check_model(tiny_lm())
    assert [check.name for check in checks[6:]] == ["chat template", "one BOS", "slot token"]
    assert all(check.ok for check in checks)


class Around(nn.Module):
    """A block that does something wrong around the real one."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)


class Shifts(Around):
    """What it hands on is not what the model records as its hidden state."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.block(hidden_states, *args, **kwargs) + 1.0


class Deaf(Around):
    """It forgets what stands in the residual stream."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.block(torch.ones_like(hidden_states), *args, **kwargs)


class Litters(Around):
    """It leaves a hook behind on every call."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.block.register_forward_hook(lambda *_: None)
        return self.block(hidden_states, *args, **kwargs)


class Raises(Around):
    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("past_key_values") is not None:
            raise RuntimeError("no cache here")
        return self.block(hidden_states, *args, **kwargs)


def broken(kind: type[Around], block: int) -> LanguageModel:
    model: Any = build("llama").model
    model.model.layers[block] = kind(model.model.layers[block])
    return load_model(model)


@pytest.mark.parametrize(
    ("kind", "block", "check"),
    [(Shifts, 1, "capture"), (Deaf, 2, "injection"), (Litters, 2, "restored"), (Raises, 2, "cache")],
)
def test_a_broken_block_fails_the_right_check(kind: type[Around], block: int, check: str) -> None:
    assert failing(broken(kind, block)) == {check}


def test_a_leak_is_told_and_lived_with_but_the_cache_is_not() -> None:
    lm = build("leaky")
    checks = {check.name: check for check in check_model(lm)}
    assert {name for name, check in checks.items() if not check.ok} == {"cache"}
    assert "equal lengths" in checks["padding"].detail


def test_a_leak_that_is_not_lived_with_fails() -> None:
    lm = build("leaky")
    lm.__dict__["pads_cleanly"] = True  # batches now mix lengths
    assert "padding" in failing(lm)


def test_blocks_that_are_not_the_decoder_fail() -> None:
    model = build("gemma3_wrapper").model
    vision = next(
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and "vision" in name and len(module) == 4
    )
    assert "blocks" in failing(load_model(model, blocks=vision))


def tokenizer_checks(tokenizer: Any) -> dict[str, bool]:
    lm = dataclasses.replace(build("llama"), tokenizer=tokenizer, memo={})
    return {check.name: check.ok for check in check_model(lm)[6:]}


def test_tokenizers_with_faults() -> None:
    sound = tiny_tokenizer()
    assert all(tokenizer_checks(sound).values())
    silent = tiny_tokenizer()
    silent.chat_template = None
    assert not tokenizer_checks(silent)["chat template"]
    twice = tiny_tokenizer()
    twice.bos_token = "<|start|>"
    twice.chat_template = "<|start|>" + str(twice.chat_template)
    assert not tokenizer_checks(twice)["one BOS"]
    once = tiny_tokenizer()
    once.bos_token = "<|start|>"
    assert tokenizer_checks(once)["one BOS"]


# --- oracles ---


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm()


@pytest.fixture(scope="module")
def contract(lm: LanguageModel) -> Contract:
    known = tiny_contract(lm, (LAYERS,), block=0, operation="replace")
    return known.model_copy(update={"prompt": PromptFormat(layout="inline")})


@pytest.fixture(scope="module")
def trained(lm: LanguageModel, contract: Contract, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An oracle that knows the built-in texts by heart, if it gets their activations in its contract's way."""
    torch.manual_seed(1)
    add_adapter(lm, CONFIG, "pupil")
    parameters = [p.requires_grad_(True) for p in adapter_parameters(lm.model, "pupil").values()]
    optimizer = torch.optim.Adam(parameters, 4e-3)
    texts = lens_texts(lm)
    vectors = [vector.flatten(0, 1) for vector in text_vectors(lm, texts, LAYERS)] * 2
    prompts = [build_prompt(lm, contract, LAYERS, WINDOW, question.format(k=K)) for question in LENS_WORDINGS.values()]
    answers = [[text.answers[direction] for text in texts] for direction in LENS_WORDINGS]
    rows = [(*prompt.token_ids, *answer) for prompt, part in zip(prompts, answers, strict=True) for answer in part]
    batch = left_pad(rows, lm.pad_id)
    slots = [columns_of(offset, prompts[i // len(texts)].slots) for i, offset in enumerate(batch.offsets)]
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "position_ids": batch.position_ids}
    for _ in range(STEPS):
        with adapters_on(lm.model, ["pupil"]), injecting(lm, contract.injection, slots, vectors):
            logits = lm.logits(keep=K + 1, **inputs)[:, :-1]
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits.flatten(0, 1), batch.input_ids[:, -K:].flatten()).backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("oracles") / "pupil"
    save_adapter(lm, "pupil", CONFIG, folder, torch.float32)
    remove_adapter(lm, "pupil")
    return folder


def with_contract(trained: Path, contract: Contract, tmp_path: Path) -> Path:
    folder = tmp_path / "oracle"
    folder.mkdir()
    for file in trained.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write_contract(contract, folder, CONFIG)
    return folder


def test_an_oracle_that_reads_passes(lm: LanguageModel, trained: Path, contract: Contract, tmp_path: Path) -> None:
    report = check_oracle(lm, with_contract(trained, contract, tmp_path))
    assert [check.name for check in report.checks] == ["tensors", "contract", "past lens", "future lens"]
    assert report.ok and not report.candidates and report.offered is None
    assert "56 tensors in place" in report.checks[0].detail


@pytest.fixture(scope="module")
def tried(lm: LanguageModel, trained: Path) -> OracleReport:
    """What is found about the oracle when its contract is lost."""
    names = [name for name, _ in lm.model.named_modules()]
    report = check_oracle(lm, trained)
    assert [name for name, _ in lm.model.named_modules()] == names and active_adapters(lm.model) == ()
    return report


def test_under_a_wrong_contract_less_is_read(tried: OracleReport) -> None:
    report = tried
    right = next(c for c in report.candidates if c.contract == report.offered)
    wrong = next(c for c in report.candidates if c.layers == LAYERS and c.contract.injection.operation == "add")
    assert right.losses.real < wrong.losses.real - 0.5


def test_an_adapter_without_a_contract_is_offered_its_own(
    lm: LanguageModel, trained: Path, tried: OracleReport, contract: Contract, tmp_path: Path
) -> None:
    report = tried
    assert not report.ok and [check.name for check in report.checks if not check.ok] == ["contract"]
    offered = report.offered
    assert offered is not None
    assert offered.injection == contract.injection and offered.prompt == contract.prompt
    assert offered.layers == contract.layers
    assert len(report.candidates) == len(candidate_contracts(lm))
    assert [c.losses.real for c in report.candidates[:4]] == sorted(c.losses.real for c in report.candidates[:4])
    folder = with_contract(trained, offered, tmp_path)
    assert check_oracle(lm, folder).ok


def test_the_offered_contract_is_a_whole_file(tried: OracleReport) -> None:
    said = json.loads(json.dumps(tried.to_dict()["offered"]))
    assert contract_from_dict(said) == tried.offered


def test_a_base_without_a_chat_template_fails_a_check(trained: Path, contract: Contract) -> None:
    base = tiny_lm()
    needs_tokenizer(base).chat_template = None
    report = check_oracle(base, trained)
    assert [(check.name, check.ok) for check in report.checks] == [("tensors", True), ("contract", False)]
    assert ". Candidates cannot be tried: " in report.checks[1].detail and ". a base" not in report.checks[1].detail
    assert "no chat template: " in report.checks[1].detail and report.offered is None
    assert active_adapters(base.model) == () and not tuner_layers(base.model)


def test_an_adapter_of_the_users_stays(lm: LanguageModel, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called, and whether or not the oracle's own could be loaded."""
    monkeypatch.setattr("augury.oracle.load._numbers", itertools.count(1))
    for shape, ok in (({}, True), ({"n_layers": 2}, False)):
        base = tiny_lm(**shape)
        for name in ("doctor", "oracle_1"):
            add_adapter(base, CONFIG, name)
        report = check_oracle(base, trained)
        assert report.checks[0].ok == ok and names_on(base.model) == {"doctor", "oracle_1"}


def old_oracle(trained: Path, contract: Contract, folder: Path, **changes: Any) -> Path:
    """The oracle as it was published before activations were added: with an `ao_config.json` of that day."""
    folder.mkdir()
    for file in trained.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = {
        "schema_version": 1,
        "hook_onto_layer": contract.injection.block,
        "special_token": contract.prompt.slot_token,
        "prefix_template": contract.prompt.template,
        "steering_coefficient": contract.injection.coefficient,
        "act_layer_combinations": [list(layers) for layers in contract.layers or ()],
        "created_at_utc": "2025-10-01T00:00:00",
        **changes,
    }
    (folder / "ao_config.json").write_text(json.dumps(config))
    return folder


def test_a_guessed_operation_is_compared_with_the_other(
    lm: LanguageModel, trained: Path, contract: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(UserWarning, match="compares both"):
        report = check_oracle(lm, old_oracle(trained, contract, tmp_path / "right"))
    check = report.checks[-1]
    assert (check.name, check.ok) == ("operation", True) and report.offered is None and report.ok
    losses = {c.contract.injection.operation: c.losses.real for c in report.candidates}
    assert losses["replace"] < losses["add"] - 0.5
    # The same with the guess wrong: what `replace` would do, `add` does, and the other way round.
    real = doctor_oracle.lens_losses

    def swapped(lm: LanguageModel, given: Contract, *rest: Any) -> Any:
        other = {"add": "replace", "replace": "add"}[given.injection.operation]
        changed = given.injection.model_copy(update={"operation": other})
        return real(lm, given.model_copy(update={"injection": changed}), *rest)

    monkeypatch.setattr(doctor_oracle, "lens_losses", swapped)
    with pytest.warns(UserWarning, match="compares both"):
        wrong = check_oracle(lm, old_oracle(trained, contract, tmp_path / "wrong"))
    assert not wrong.checks[-1].ok and wrong.offered is not None
    assert wrong.offered.injection.operation == "add" and wrong.offered.layers == contract.layers
    assert contract_from_dict(wrong.to_dict()["offered"]) == wrong.offered


def test_both_operations_are_tried_where_the_layers_are_unknown_too(
    lm: LanguageModel, trained: Path, contract: Contract, tmp_path: Path
) -> None:
    folder = old_oracle(trained, contract, tmp_path / "o", act_layer_combinations=[])
    with pytest.warns(UserWarning, match="compares both"):
        report = check_oracle(lm, folder)
    assert {c.contract.injection.operation for c in report.candidates} == {"add", "replace"}
    assert report.offered is not None and report.offered.injection.operation == "replace"


def test_a_contract_without_layers_gets_only_them_tried(
    lm: LanguageModel, contract: Contract, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unstated = contract.model_copy(update={"layers": None})
    monkeypatch.setattr(doctor_oracle, "read_contract", lambda *_, **__: unstated)
    report = check_oracle(lm, trained)
    assert {c.contract.injection for c in report.candidates} == {contract.injection}
    assert report.offered is not None and report.offered.layers == (LAYERS,)


def test_an_adapter_that_changes_nothing_fails(lm: LanguageModel, contract: Contract, tmp_path: Path) -> None:
    add_adapter(lm, CONFIG, "empty")  # a fresh LoRA has B = 0
    save_adapter(lm, "empty", CONFIG, tmp_path / "plain", torch.float32)
    remove_adapter(lm, "empty")
    report = check_oracle(lm, with_contract(tmp_path / "plain", contract, tmp_path))
    assert not report.ok and [check.name for check in report.checks] == ["tensors"]


def test_tensors_without_a_place_fail(lm: LanguageModel, trained: Path) -> None:
    report = check_oracle(tiny_lm(n_layers=2), trained)
    assert [(check.name, check.ok) for check in report.checks] == [("tensors", False)]


def test_another_base_fails(trained: Path, contract: Contract, tmp_path: Path) -> None:
    named = contract.model_copy(update={"base_model": "somebody/else"})
    report = check_oracle(tiny_lm(seed=5), with_contract(trained, named, tmp_path))
    assert "contract" in {check.name for check in report.checks if not check.ok}


def test_what_cannot_be_checked_is_refused(lm: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        check_oracle(lm, tmp_path / "nothing")
    with pytest.raises(InputError):
        check_oracle(build("llama"), tmp_path)


def test_losses_equal_a_plain_computation(lm: LanguageModel, contract: Contract, trained: Path) -> None:
    """Each text by itself, no batch and no padding, injected by a hook written out here."""
    from augury.lm.adapters import load_adapter

    texts = lens_texts(lm)[:3]
    vectors = text_vectors(lm, texts, LAYERS)
    load_adapter(lm, trained, "plain")
    found, _ = lens_losses(lm, contract, "plain", LAYERS, texts, vectors)
    prompt = build_prompt(lm, contract, LAYERS, WINDOW, LENS_WORDINGS["past"].format(k=K))
    losses: list[torch.Tensor] = []

    def fill(_module: Any, _args: Any, output: Any, row: torch.Tensor) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        slots = list(prompt.slots)
        hidden[0, slots] = inject(hidden[0, slots], row, contract.injection)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    for text, other in zip(texts, [texts[1], texts[2], texts[0]], strict=True):
        row = text_vectors(lm, [other], LAYERS)[0].flatten(0, 1)
        handle = lm.blocks[0].register_forward_hook(lambda m, a, o, row=row: fill(m, a, o, row))
        ids = torch.tensor([[*prompt.token_ids, *text.answers["past"]]])
        with torch.no_grad(), adapters_on(lm.model, ["plain"]):
            logits = lm.model(input_ids=ids).logits[0, -K - 1 : -1]
        handle.remove()
        losses.append(nn.functional.cross_entropy(logits, ids[0, -K:], reduction="none"))
    remove_adapter(lm, "plain")
    assert found.past.shuffled == pytest.approx(float(torch.cat(losses).mean()), abs=1e-4)
    assert found.texts == 3


def test_the_texts_are_twenty_and_read_in_the_middle(lm: LanguageModel) -> None:
    texts = lens_texts(lm)
    assert len(texts) == 20 and len({text.token_ids for text in texts}) == 20
    for text in texts:
        first, last = text.positions[0], text.positions[-1]
        assert len(text.positions) == WINDOW
        assert text.token_ids[first - K : first] == text.answers["past"] and len(text.answers["past"]) == K
        assert text.token_ids[last + 1 : last + 1 + K] == text.answers["future"] and len(text.answers["future"]) == K


def test_the_wordings_are_those_of_training() -> None:
    assert {f"{name}_lens": wording for name, wording in LENS_WORDINGS.items()} == WORDINGS


def test_reading_means_better_than_both_controls() -> None:
    assert Losses(1.0, 2.0, 3.0).reads
    assert not Losses(1.0, 2.0, 3.0, error=0.6).reads  # it may be luck
    assert not Losses(2.5, 2.0, 3.0).reads and not Losses(2.5, 3.0, 2.0).reads
    both = LensLosses(Losses(1.0, 2.0, 3.0), Losses(3.0, 2.0, 3.0), 20)
    assert not both.reads and both.gap == 0.0
