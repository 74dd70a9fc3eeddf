"""The public implementation's own results, run through ours; and proof that a wrong injection would be seen."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from augury.contract import Contract, Injection
from augury.errors import FormatError, InputError, NotFoundError
from augury.lm import load_model
from augury.lm.adapters import load_adapter
from augury.oracle.golden import ADAPTER, CAPTURE_BOUND, LOGITS_BOUND, Case, _answers, equal_tokens, run_case
from augury.oracle.prompt import build_labelled, build_prompt

CASES = ("llama", "mistral", "qwen3")


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_reproduced(golden, name):
    result = run_case(golden / name)
    assert result.capture_max_abs <= CAPTURE_BOUND and result.logits_max_abs <= LOGITS_BOUND and result.greedy_equal
    assert result.passed and len(result.details) == 6 + 2 + 3 + 2


@pytest.mark.parametrize(
    "wrong",
    [Injection(block=0), Injection(block=2), Injection(block=1, operation="replace"), Injection(rescale_to=1.0)],
    ids=["block-0", "block-2", "replace", "rescaled"],
)
def test_a_wrong_injection_is_seen(golden, wrong):
    folder = golden / "llama"
    lm = load_model(folder / "model", dtype=torch.float32, attn_implementation="eager")
    load_adapter(lm, folder / "adapter", ADAPTER)
    case = Case.model_validate_json((folder / "case.json").read_text())
    expected = load_file(folder / "expected.safetensors")
    logits, _ = _answers(lm, case, expected, wrong)
    assert logits["logits_no_injection"] <= LOGITS_BOUND < min(logits["logits_coef1.0"], logits["logits_coef2.0"])


def test_an_answer_that_stops_too_early_is_not_equal():
    pad, end = 0, 2
    assert equal_tokens([[5, 6, 7], [5, end]], [[5, 6, 7], [5, end, pad]], {pad, end})
    for found in ([5], [5, 6], [5, 7, end], [5, 6, end, pad, pad]):
        assert not equal_tokens([found], [[5, 6, 7, end]], {pad, end})


def test_the_files_are_the_ones_that_were_checked(golden):
    for line in (golden / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        path = golden / name.lstrip("*./")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, name


def test_an_incomplete_case_is_refused(tmp_path):
    with pytest.raises(NotFoundError, match="no golden case"):
        run_case(tmp_path)


def prompt_cases(golden):
    return json.loads((golden / "prompt_cases.json").read_text())["cases"]


def contract_for(layer: int) -> Contract:
    return Contract(layers=((layer,),), injection=Injection())


@pytest.mark.bundled
def test_prompts_are_the_references_token_by_token(golden, smollm2):
    for case in prompt_cases(golden):
        labelled = build_labelled(
            smollm2,
            contract_for(case["layer"]),
            (case["layer"],),
            case["num_vectors"],
            case["question"],
            case["answer"],
        )
        assert list(labelled.token_ids) == case["input_ids"]
        assert labelled.labels == case["labels"]
        assert list(labelled.slots) == case["positions"]


@pytest.mark.bundled
def test_answer_ids_give_the_same_example_as_their_text(golden, smollm2):
    case = prompt_cases(golden)[1]
    start = next(i for i, label in enumerate(case["labels"]) if label != -100)
    ids = smollm2.tokenizer(case["answer"], add_special_tokens=False)["input_ids"]
    labelled = build_labelled(
        smollm2, contract_for(case["layer"]), (case["layer"],), case["num_vectors"], case["question"], ids
    )
    assert labelled.answer_start == start and list(labelled.token_ids) == case["input_ids"]


@pytest.mark.bundled
@pytest.mark.parametrize("question", ["De quoi parle ce texte ?", "? ? ?", "Really ?? Is it ? ?", " ? first"])
def test_slot_tokens_in_a_question_are_ordinary_text(smollm2, question):
    plain = build_prompt(smollm2, contract_for(18), (18,), 4, "What is this about")
    asked = build_prompt(smollm2, contract_for(18), (18,), 4, question)
    assert asked.slots == plain.slots and asked.token_ids[: asked.slots[-1]] == plain.token_ids[: plain.slots[-1]]
    assert question.strip() in smollm2.tokenizer.decode(list(asked.token_ids))


@pytest.mark.bundled
@pytest.mark.parametrize("layers", [(18,), (14, 18, 22)])
@pytest.mark.parametrize("layout", ["blocks", "inline"])
def test_slots_of_both_layouts_are_layer_major(smollm2, layers, layout):
    contract = Contract(layers=(layers,), injection=Injection(), prompt={"layout": layout})
    prompt = build_prompt(smollm2, contract, layers, 3, "What is this about?")
    assert len(prompt.slots) == 3 * len(layers) and list(prompt.slots) == sorted(prompt.slots)
    slot = smollm2.tokenizer(" ?", add_special_tokens=False)["input_ids"]
    assert {prompt.token_ids[i] for i in prompt.slots} == set(slot)
    for i, layer in enumerate(layers):  # each layer's number stands right before its own slots
        before = smollm2.tokenizer.decode(list(prompt.token_ids[: prompt.slots[3 * i]]))
        assert before.rstrip("\n:").endswith(str(layer))


@pytest.mark.bundled
@pytest.mark.parametrize("question", ["", "   ", "\n"])
def test_an_empty_question_is_refused(smollm2, question):
    with pytest.raises(InputError, match="empty"):
        build_prompt(smollm2, contract_for(18), (18,), 2, question)


@pytest.mark.parametrize("text", ["{", "[]", "null", None], ids=["cut off", "list", "null", "contexts of another kind"])
def test_a_broken_case_is_refused(golden, tmp_path, text):
    folder = tmp_path / "case"
    shutil.copytree(golden / "llama", folder)
    case = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps({**case, "contexts": [5]}) if text is None else text)
    with pytest.raises(FormatError):
        run_case(folder)


def test_a_case_without_all_its_tensors_is_refused(golden, tmp_path):
    folder = tmp_path / "case"
    shutil.copytree(golden / "llama", folder)
    tensors = load_file(folder / "expected.safetensors")
    del tensors["vectors_1"]
    save_file(tensors, folder / "expected.safetensors")
    with pytest.raises(FormatError, match="incomplete") as refusal:
        run_case(folder)
    assert "vectors_1" in refusal.value.why
