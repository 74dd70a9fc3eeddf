"""The oracle, against forward passes written out by hand on a model whose adapter is merged into its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from augury.activations import Activations, capture
from augury.contract import Contract
from augury.errors import (
    AuguryError,
    ContractError,
    FormatError,
    InputError,
    ModelError,
    NetworkError,
    NotFoundError,
    StorageError,
)
from augury.lm import LanguageModel, Sampling
from augury.lm.adapters import active_adapters, adapter_parameters, adapters_on, add_adapter, remove_adapter
from augury.oracle import Answer, Oracle, Score, Unavailable, hub, load_oracle
from augury.oracle.choices import end_of_answer, prefixed, spell
from augury.oracle.controls import CONTROLS, derangement, plans
from augury.oracle.donors import DonorBank, cache_file, donor_bank, donor_texts
from augury.oracle.passes import Row, decode_rows
from augury.oracle.prompt import build_labelled, plain_prompt
from augury.oracle.save import save_oracle
from tests.tiny import tiny_contract, tiny_lm

RANK, ALPHA = 4, 8
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout": 0.0,
    "target_modules": ["q_proj", "v_proj", "down_proj"],
}
LAYER, BLOCK, COEFFICIENT = 2, 1, 2.0
CONTEXT = "The philosopher drank tea. Who is speaking here?"
OTHER = "Can you predict this cooking? Answer only."
COOKING = "Is this about cooking?"
WHO = "Who is speaking here?"


def randomise(lm: LanguageModel, name: str, seed: int = 1, size: float = 0.3) -> None:
    """Values that float16 holds exactly, so that saving changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter_parameters(lm.model, name).values():
        drawn = torch.randn(parameter.shape, generator=generator) * size
        parameter.data.copy_(drawn.half().float())


def contract_of(lm: LanguageModel) -> Contract:
    return tiny_contract(lm, ((LAYER,),), block=BLOCK, coefficient=COEFFICIENT)


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


def written_out(lm: LanguageModel, question: str, vectors: Tensor | None, more: tuple[int, ...] = ()) -> Tensor:
    """Log-probabilities `[tokens, vocab]` after the oracle's prompt, with the injection written out."""
    tokenizer: Any = lm.tokenizer
    count = 0 if vectors is None else len(vectors)
    slots = len(vectors) if vectors is not None else 3
    content = f"Layer: {LAYER}\n" + " ?" * slots + " \n" + question
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    slot = tokenizer.convert_tokens_to_ids("Ġ?")
    at = [i for i, token in enumerate(ids) if token == slot][:count]
    assert len(at) == count

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        hidden = output if isinstance(output, Tensor) else output[0]
        hidden = hidden.clone()
        for position, vector in zip(at, vectors if vectors is not None else (), strict=True):
            row = hidden[0, position]
            hidden[0, position] = row + COEFFICIENT * row.norm() * vector / vector.norm()
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    handle = lm.model.model.layers[BLOCK].register_forward_hook(hook)  # pyright: ignore
    try:
        with torch.no_grad():
            logits = lm.model(torch.tensor([[*ids, *more]])).logits[0]
    finally:
        handle.remove()
    return logits.log_softmax(-1)[len(ids) - 1 :]


def by_hand(lm: LanguageModel, log_probs: Tensor) -> Tensor:
    """Yes and No over the spellings that the tiny tokenizer has for both."""
    tokenizer: Any = lm.tokenizer
    found = []
    for words in (("Yes", " Yes", "yes", " yes", "YES", " YES"), ("No", " No", "no", " no", "NO", " NO")):
        found.append([tokenizer(word, add_special_tokens=False)["input_ids"] for word in words])
    both = [i for i in range(6) if all(len(spelled[i]) == 1 for spelled in found)]
    assert 1 <= len(both) < 6
    return torch.stack([log_probs[[spelled[i][0] for i in both]].logsumexp(0) for spelled in found])


# --- scores


def test_score_is_what_the_forward_pass_says(oracle: Oracle, lm: LanguageModel, merged: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    score = oracle.score(acts, COOKING, donors=0)
    asked = "Answer with 'Yes' or 'No' only. " + COOKING
    expected = by_hand(merged, written_out(merged, asked, acts.vectors[0])[0])
    assert score.question == asked and score.method == "first-token"
    assert torch.tensor(score.log_probs) == pytest.approx(expected, abs=1e-4)
    assert score.margin == pytest.approx(float(expected[0] - expected[1]), abs=1e-4)
    assert score.probability == pytest.approx(float(expected.softmax(0)[0]), abs=1e-4)
    assert score.mass == pytest.approx(float(expected.exp().sum()), abs=1e-4)
    assert (score.mass < 0.5) == any("probability" in line for line in score.warnings)


def test_choices_without_a_token_are_scored_whole(oracle: Oracle, lm: LanguageModel, merged: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    choices = ("zebra", "giraffe", "an ox")
    score = oracle.score(acts, WHO, choices=choices, donors=0)
    tokenizer: Any = lm.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    expected = []
    for choice in choices:
        ids = (*tokenizer(choice, add_special_tokens=False)["input_ids"], end)
        log_probs = written_out(merged, WHO, acts.vectors[0], ids)
        expected.append(float(sum(log_probs[i, token] for i, token in enumerate(ids))))
    assert score.method == "whole-choice" and score.question == WHO
    assert score.log_probs == pytest.approx(expected, abs=1e-3)
    assert score.margin == pytest.approx(expected[0] - float(torch.tensor(expected[1:]).logsumexp(0)), abs=1e-3)


def test_spellings_belong_to_one_choice_and_are_single_tokens(lm: LanguageModel) -> None:
    spelled = spell(lm, contract_of(lm), ("Yes", "No"))
    flat = [token for ids in spelled.ids for token in ids]
    assert len(set(flat)) == len(flat)
    assert len(spelled.ids[0]) == len(spelled.ids[1]) >= 1
    tokenizer: Any = lm.tokenizer
    for texts, ids in zip(spelled.texts, spelled.ids, strict=True):
        assert [tokenizer.decode([token]) for token in ids] == list(texts)


def test_a_token_of_two_choices_serves_neither(lm: LanguageModel) -> None:
    spelled = spell(lm, contract_of(lm), ("Yes", "yes"))
    assert not set(spelled.ids[0]) & set(spelled.ids[1])


def test_the_prefix_is_not_doubled(oracle: Oracle) -> None:
    asked = "Answer with 'Yes' or 'No' only. " + COOKING
    assert oracle.score(CONTEXT, asked, donors=0).margin == oracle.score(CONTEXT, COOKING, donors=0).margin


def test_the_order_of_yes_and_no_does_not_matter(oracle: Oracle) -> None:
    forth, back = (oracle.score(CONTEXT, COOKING, choices=c, donors=0) for c in (("Yes", "No"), ("no", "yes")))
    assert back.question == forth.question == "Answer with 'Yes' or 'No' only. " + COOKING
    assert back.margin == pytest.approx(-forth.margin, abs=1e-5)
    for others in (("Yes", "No", "Maybe"), ("French", "German")):
        assert prefixed(oracle.contract, COOKING, others) == COOKING


def test_percentile_is_the_place_among_donors(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 2")
    score = oracle.score(acts, COOKING, donors=5, controls=True)
    vectors = donor_bank(lm, (LAYER,)).take(5, 2)
    margins = sorted(oracle.score(v, COOKING, layers=LAYER, donors=0).margin for v in vectors)
    assert sorted(score.donor_margins) == pytest.approx(margins, abs=1e-4)
    assert score.donor_median == pytest.approx(margins[2], abs=1e-4)
    assert score.percentile == pytest.approx(20 * sum(m < score.margin for m in margins))
    shuffled = score.controls["shuffled"]
    assert isinstance(shuffled, Score) and shuffled.margin == pytest.approx(margins[2], abs=1e-4)
    assert score.value == pytest.approx(score.margin - margins[2], abs=1e-4)


# --- batches


PIECE = st.sampled_from([CONTEXT, OTHER, "Who?", CONTEXT + " " + OTHER])
QUESTION = st.sampled_from([COOKING, WHO, "Is it so?", "De quoi parle ce texte ?"])


@settings(max_examples=8)
@given(st.lists(st.tuples(PIECE, QUESTION, st.integers(1, 5)), min_size=1, max_size=5))
def test_a_batch_equals_its_items(drawn: list[tuple[str, str, int]]) -> None:
    oracle, lm = _shared()
    pairs = [(capture(lm, text, LAYER, f"last {n}"), question) for text, question, n in drawn]
    together = oracle.score_batch(pairs, batch_size=3)
    answers = oracle.ask_batch(pairs, max_new_tokens=4, batch_size=3)
    for pair, score, answer in zip(pairs, together, answers, strict=True):
        alone = oracle.score(*pair, donors=0)
        assert score.log_probs == pytest.approx(alone.log_probs, abs=1e-4)
        assert answer.token_ids == oracle.ask(*pair, max_new_tokens=4).token_ids


_kept: list[tuple[Oracle, LanguageModel]] = []


def _shared() -> tuple[Oracle, LanguageModel]:
    """For hypothesis, which does not take function-scoped fixtures."""
    if not _kept:
        lm = tiny_lm()
        add_adapter(lm, CONFIG, "shared")
        randomise(lm, "shared")
        _kept.append((Oracle(lm, contract_of(lm), "shared", "shared"), lm))
    return _kept[0]


def test_a_batch_under_controls_equals_itself_in_other_order(oracle: Oracle) -> None:
    pairs = [(CONTEXT, COOKING), (OTHER, COOKING)]
    forth = oracle.score_batch(pairs, controls=True)
    back = oracle.score_batch(pairs[::-1], controls=True)[::-1]
    for one, two in zip(forth, back, strict=True):
        for name in CONTROLS:
            a, b = one.controls[name], two.controls[name]
            assert isinstance(a, Score) and isinstance(b, Score)
            assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)


def test_in_a_batch_shuffled_is_the_other_problem(oracle: Oracle, lm: LanguageModel) -> None:
    pairs = [(CONTEXT, COOKING), (OTHER, WHO)]
    scores = oracle.score_batch(pairs, controls=True)
    swapped = oracle.score_batch([(OTHER, COOKING), (CONTEXT, WHO)])
    for score, other in zip(scores, swapped, strict=True):
        shuffled = score.controls["shuffled"]
        assert isinstance(shuffled, Score)
        assert shuffled.log_probs == pytest.approx(other.log_probs, abs=1e-4)
        assert abs(shuffled.margin - score.margin) > 1e-3


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=12))
def test_derangement(drawn: list[tuple[int, int]]) -> None:
    problems, shapes = [p for p, _ in drawn], [s for _, s in drawn]
    found = derangement(problems, shapes)
    assert found == derangement(problems, shapes)
    for i, other in enumerate(found):
        candidates = [j for j in range(len(drawn)) if shapes[j] == shapes[i] and problems[j] != problems[i]]
        assert (other is None) == (not candidates)
        assert other is None or other in candidates


def test_a_tensor_is_not_its_own_donor(oracle: Oracle, lm: LanguageModel) -> None:
    """Choosing among layers or positions copies it; what it holds stays the same problem."""
    values = torch.randn(2, 4, lm.d_model)
    both = Activations.from_tensor(values, (1, LAYER))
    alike = [
        both.at_layers(LAYER)[:3],
        Activations.from_tensor(values[1, :3].clone(), LAYER),
        both.at_layers(LAYER)[:3],
    ]
    other = Activations.from_tensor(values[0, :3], LAYER)

    def donors(given: list[Activations]) -> list[Any]:
        items = [oracle.item(read, COOKING) for read in oracle.read(given, None, None)]
        return [plan["shuffled"] for plan in plans(lm, oracle.contract, items)]

    assert donors(alike) == [None] * 3
    for found in donors([*alike, other])[:3]:
        assert isinstance(found, Row) and found.vectors is not None and torch.equal(found.vectors, values[0, :3])


# --- answers


def test_greedy_answer_is_the_forward_passes_argmax(oracle: Oracle, lm: LanguageModel, merged: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    answer = oracle.ask(acts, WHO, max_new_tokens=5)
    ids: tuple[int, ...] = ()
    while len(ids) < 5 and not (ids and ids[-1] in lm.end_ids):
        ids = (*ids, int(written_out(merged, WHO, acts.vectors[0], ids)[-1].argmax()))
    assert answer.token_ids == ids
    assert answer.samples == () and answer.agreement is None


def test_samples_share_a_prefill_and_lose_nothing(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    answer = oracle.ask(acts, WHO, samples=6, max_new_tokens=5, seed=3)
    row = oracle.item(oracle.read([acts], None, "all")[0], WHO).row  # the same prompt, prefilled six times
    texts = decode_rows(oracle.runner(), [row] * 6, Sampling(5, 1.0, 1.0, 3))
    tokenizer: Any = lm.tokenizer
    expected = [tokenizer.decode(text[0], skip_special_tokens=True).strip() for text in texts]
    assert list(answer.samples) == expected
    assert len(set(answer.samples)) > 1 and sum(group.count for group in answer.groups) == 6
    assert answer.text == answer.groups[0].text
    assert answer.samples == oracle.ask(acts, WHO, samples=6, max_new_tokens=5, seed=3).samples
    assert answer.samples != oracle.ask(acts, WHO, samples=6, max_new_tokens=5, seed=4).samples


def test_an_override_of_the_coefficient_is_recorded_and_felt(oracle: Oracle) -> None:
    plain, stronger = (oracle.score(CONTEXT, COOKING, donors=0, coefficient=c) for c in (None, 5.0))
    assert (plain.coefficient, stronger.coefficient) == (COEFFICIENT, 5.0)
    assert stronger.to_dict()["trained_coefficient"] == COEFFICIENT
    assert abs(plain.margin - stronger.margin) > 1e-3


def test_contexts_of_all_kinds_read_the_same(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 8")
    ids = list(acts.transcript.token_ids)
    kinds = [oracle.score(kind, COOKING, donors=0).margin for kind in (CONTEXT, acts, ids, acts.transcript)]
    tensor = oracle.score(acts.vectors[0], COOKING, layers=LAYER, donors=0).margin
    assert {*kinds, tensor} == {kinds[0]}
    chat = oracle.score([{"role": "user", "content": CONTEXT}], COOKING, donors=0)
    assert chat.margin != kinds[0]


def test_positions_select_among_activations_by_token(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 5")
    for selector, places in (("last 2", [3, 4]), ([-1, -3], [4, 2]), ("all", range(5)), (None, range(5))):
        want = oracle.score(acts[list(places)], COOKING, donors=0)
        found = oracle.score(acts, COOKING, positions=selector, donors=0)
        assert found.positions == want.positions and found.margin == want.margin
    assert len(oracle.scan(acts, COOKING, positions="last 2", donors=0).margins) == 2
    assert len(oracle.scan(CONTEXT, COOKING, donors=0).margins) == len(acts.transcript)
    assert len(oracle.score(CONTEXT, COOKING, donors=0).positions) == 8


@pytest.mark.parametrize("selector", ["last 6", "first 1", [0]])
def test_positions_that_were_not_captured_are_refused(oracle: Oracle, lm: LanguageModel, selector: Any) -> None:
    with pytest.raises(InputError, match="not all captured"):
        oracle.ask(capture(lm, CONTEXT, LAYER, "last 5"), WHO, positions=selector)


def test_a_tensor_has_no_tokens_to_select(oracle: Oracle) -> None:
    with pytest.raises(InputError, match="bare tensor"):
        oracle.ask(torch.randn(3, oracle.base.d_model), WHO, layers=LAYER, positions="last 1")


@pytest.mark.parametrize(("stated", "length"), [({"max_new_tokens": 3}, 3), ({}, 24), ({"max_new_tokens": None}, 24)])
def test_an_answer_is_as_long_as_the_contract_says(
    oracle: Oracle, lm: LanguageModel, stated: dict[str, Any], length: int
) -> None:
    known = oracle.contract.model_copy(update={"generation": stated})
    other = Oracle(lm, known, oracle.adapter, "o")
    assert other.ask(CONTEXT, WHO).token_ids == oracle.ask(CONTEXT, WHO, max_new_tokens=length).token_ids
    assert other.ask(CONTEXT, WHO).settings.max_new_tokens == length
    assert len(other.ask(CONTEXT, WHO, max_new_tokens=2).token_ids) <= 2


def test_a_contract_that_states_no_length_is_refused(oracle: Oracle, lm: LanguageModel) -> None:
    for stated in ("many", 0, True, 2.5):
        known = oracle.contract.model_copy(update={"generation": {"max_new_tokens": stated}})
        with pytest.raises(ContractError, match="max_new_tokens"):
            Oracle(lm, known, oracle.adapter, "o").ask(CONTEXT, WHO)


# --- controls


def test_none_injects_nothing(oracle: Oracle, lm: LanguageModel, merged: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    score = oracle.score(acts, COOKING, controls=True, donors=2)
    none, real = score.controls["none"], score
    expected = by_hand(merged, written_out(merged, score.question, None)[0])
    assert isinstance(none, Score) and torch.tensor(none.log_probs) == pytest.approx(expected, abs=1e-4)
    assert abs(none.margin - real.margin) > 1e-3


def test_untrained_is_the_plain_base_with_the_same_injection(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "last 3")
    score = oracle.score(acts, COOKING, controls=True, donors=2)
    plain = tiny_lm()
    untrained = score.controls["untrained"]
    expected = by_hand(plain, written_out(plain, score.question, acts.vectors[0])[0])
    assert isinstance(untrained, Score) and torch.tensor(untrained.log_probs) == pytest.approx(expected, abs=1e-4)
    assert untrained.source.adapters == ()


def test_text_controls_show_only_what_may_be_seen(oracle: Oracle, lm: LanguageModel) -> None:
    transcript = capture(lm, "one two three four five six", LAYER, "all").transcript
    tokenizer: Any = lm.tokenizer
    pieces = [tokenizer.decode([token]) for token in transcript.token_ids]
    middle = capture(lm, transcript, LAYER, [4, 5])
    item = oracle.item(oracle.read([middle], None, "all")[0], COOKING)
    plan = plans(lm, oracle.contract, [item])[0]
    window, whole = plan["text-window"], plan["text-all"]
    assert isinstance(window, Row) and isinstance(whole, Row)
    for row, shown in ((window, "".join(pieces[4:6])), (whole, "".join(pieces[:6]))):
        assert row.vectors is None and row.prompt.slots == ()
        expected = plain_prompt(lm, oracle.contract, f'Text: "{shown.strip()}"\n\n{COOKING}')
        assert row.prompt.token_ids == expected.token_ids
        assert "".join(pieces[6:]).strip() not in tokenizer.decode(row.prompt.token_ids)


def test_nothing_right_of_the_read_tokens_matters(oracle: Oracle, lm: LanguageModel) -> None:
    ids = capture(lm, CONTEXT, LAYER, "all").transcript.token_ids
    scores = [
        oracle.score(capture(lm, list(more), LAYER, [2, 3]), COOKING, controls=True, donors=2)
        for more in (ids, (*ids[:4], *ids[9:]))
    ]
    for name in CONTROLS:
        one, two = (score.controls[name] for score in scores)
        assert isinstance(one, Score) and isinstance(two, Score)
        assert one.log_probs == pytest.approx(two.log_probs, abs=1e-4)


def test_ask_under_controls(oracle: Oracle) -> None:
    answer = oracle.ask(CONTEXT, WHO, controls=True, donors=6, max_new_tokens=3)
    assert tuple(answer.controls) == CONTROLS
    shuffled = answer.controls["shuffled"]
    assert isinstance(shuffled, Answer) and len(shuffled.samples) == 6
    assert shuffled.text == shuffled.groups[0].text
    for control in answer.controls.values():
        assert isinstance(control, Answer) and control.same_as_real is not None
        assert 0 <= control.same_as_real <= 1


def test_controls_that_cannot_be_made_say_so(oracle: Oracle) -> None:
    score = oracle.score(torch.randn(2, oracle.base.d_model), COOKING, layers=LAYER, controls=True, donors=2)
    for name in ("text-window", "text-all"):
        control = score.controls[name]
        assert isinstance(control, Unavailable) and "tensor" in control.reason
    assert isinstance(score.controls["none"], Score)


def test_more_positions_than_any_donor_has(oracle: Oracle) -> None:
    vectors = torch.randn(300, oracle.base.d_model)
    score = oracle.score(vectors, COOKING, layers=LAYER, controls=True)
    assert isinstance(score.controls["shuffled"], Unavailable)
    assert score.percentile is None and any("donors" in note for note in score.notes)


# --- scan


def test_scan_scores_every_position(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "all")
    scan = oracle.scan(CONTEXT, COOKING, donors=4, batch_size=5)
    alone = oracle.score_batch([(acts[i], COOKING) for i in range(len(acts))])
    assert scan.margins == pytest.approx([score.margin for score in alone], abs=1e-4)
    median = oracle.score(acts[0], COOKING, donors=4).donor_median
    assert scan.donor_median == pytest.approx(median, abs=1e-4)
    assert scan.values == pytest.approx([margin - median for margin in scan.margins], abs=1e-4)
    assert "".join(scan.token_texts) == CONTEXT


def test_a_scans_window_reaches_left_only(oracle: Oracle, lm: LanguageModel) -> None:
    acts = capture(lm, CONTEXT, LAYER, "first 5")
    scan = oracle.scan(acts, COOKING, window=3, donors=0)
    pairs = [(acts[max(0, i - 2) : i + 1], COOKING) for i in range(5)]
    assert scan.margins == pytest.approx([score.margin for score in oracle.score_batch(pairs)], abs=1e-4)
    assert scan.donor_median is None and scan.values == scan.margins


def test_one_scan_has_one_scale(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of one length have no donors: then no value is set off by a median."""
    real = DonorBank.take
    monkeypatch.setattr(DonorBank, "take", lambda self, count, n: [] if n == 1 else real(self, count, n))
    scan = oracle.scan(CONTEXT, COOKING, window=2, donors=3)
    assert scan.values == scan.margins and scan.donor_median is None
    assert any("raw margins" in note for note in scan.notes)
    whole = oracle.scan(CONTEXT, COOKING, window=1, donors=0)
    assert whole.values == whole.margins


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


# --- donors


def test_donors_are_kept_and_rebuilt_when_damaged(lm: LanguageModel) -> None:
    first = donor_bank(lm, (1,))
    path = cache_file(lm, (1,))
    kept = path.read_bytes()
    assert len(first.contexts) == len(donor_texts()) == 48
    from safetensors.torch import save

    other_shape = save({"vectors": torch.ones(1, 5, lm.d_model)})
    not_finite = save({"vectors": torch.cat(first.contexts, 1) * float("nan")})
    for damaged in (b"", kept[:100], kept[:-7], other_shape, not_finite):
        path.write_bytes(damaged)
        again = donor_bank(lm, (1,))
        assert all(torch.equal(a, b) for a, b in zip(first.contexts, again.contexts, strict=True))
        assert path.read_bytes() == kept
    assert list(path.parent.glob(".partial*")) == []
    assert cache_file(lm, (1,)) != cache_file(lm, (2,)) != cache_file(tiny_lm(seed=5), (2,))


def test_a_cache_that_cannot_be_written_costs_only_time(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGURY_CACHE", "/dev/null/nowhere")
    assert len(donor_bank(lm, (0,)).contexts) == 48


def test_donors_are_what_a_capture_gives(lm: LanguageModel) -> None:
    taken = donor_bank(lm, (LAYER,)).take(48, 2)
    acts = capture(lm, donor_texts()[7], LAYER, "all")
    windows = [acts.vectors[0, i : i + 2] for i in range(len(acts) - 1)]
    assert sum(torch.allclose(window, taken[7], atol=1e-4) for window in windows) == 1


def test_donor_texts_are_neutral_and_short() -> None:
    for text in donor_texts():
        assert 2 <= text.count(". ") + 1 <= 4 and len(text) < 400
    assert len(set(donor_texts())) == 48


# --- refusals


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


# --- the bundled model


@pytest.mark.bundled
def test_smollm2_spells_yes_and_no(smollm2: LanguageModel) -> None:
    contract = tiny_contract(smollm2, ((18,),))
    spelled = spell(smollm2, contract, ("Yes", "No"))
    assert spelled.texts == (("Yes", " Yes", "yes", " yes"), ("No", " No", "no", " no"))  # YES is two tokens
    tokenizer: Any = smollm2.tokenizer
    assert end_of_answer(smollm2, contract) == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


@pytest.mark.bundled
def test_smollm2_answers_under_controls(smollm2: LanguageModel) -> None:
    add_adapter(smollm2, {**CONFIG, "target_modules": ["q_proj"]}, "bundled")
    randomise(smollm2, "bundled", size=0.02)
    oracle = Oracle(smollm2, tiny_contract(smollm2, ((18,),), coefficient=2.0), "bundled", "throwaway")
    try:
        transcript = "The philosopher who drank hemlock taught Plato."
        score = oracle.score(transcript, COOKING, controls=True, donors=2)
        answer = oracle.ask(transcript, WHO, max_new_tokens=4)
    finally:
        oracle.unload()
    assert score.method == "first-token" and all(isinstance(c, Score) for c in score.controls.values())
    assert (answer.token_ids and answer.source.text == "emlock taught Plato.") or answer.source.text
    assert active_adapters(smollm2.model) == ()
