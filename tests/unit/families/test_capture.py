"""Blocks and captured activations on tiny models of every family, against `output_hidden_states` and plain hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from augury.activations import capture, capture_vectors
from augury.errors import ModelError
from augury.lm import LanguageModel
from augury.lm.blocks import find_decoder
from augury.lm.logprobs import continuation_logprobs
from tests.conftest import require
from tests.families import FAMILIES, N_LAYERS, NEW, WIDTH, build, ids
from tests.plain_paths import close, model, plain_blocks, plain_logits


def test_no_family_is_left_out() -> None:
    require(set(NEW) <= set(FAMILIES), f"this transformers is too old for {' or '.join(NEW)}")


def test_blocks_are_the_text_decoders(lm: LanguageModel) -> None:
    assert lm.n_layers == N_LAYERS and lm.d_model == WIDTH
    assert not any(word in lm.decoder.path for word in ("vision", "expert"))
    assert len(plain_blocks(lm, ids(5))) == N_LAYERS  # every one runs, once


def test_two_candidate_lists_are_refused_and_named() -> None:
    lm = build("llama")
    lm.model.model.also = nn.ModuleList(nn.Identity() for _ in range(N_LAYERS))
    with pytest.raises(ModelError, match=r"model\.also"):
        find_decoder(lm.model)
    assert find_decoder(lm.model, "model.layers").blocks == lm.blocks
    with pytest.raises(ModelError, match=r"model\.layers"):
        find_decoder(lm.model, "model.wrong")


def test_layer_k_is_hidden_states_k_plus_1(lm: LanguageModel) -> None:
    sequence = ids(11)
    with torch.no_grad():
        out = lm.model(input_ids=torch.tensor([sequence]), output_hidden_states=True, use_cache=False)
    found = capture(lm, sequence, layers=range(N_LAYERS), positions="all")
    for layer in range(N_LAYERS - 1):
        assert close(found.vectors[layer], out.hidden_states[layer + 1][0], 1e-5), layer
        assert not close(found.vectors[layer], out.hidden_states[layer][0], 1e-2), "off by one"
    assert close(found.vectors[-1], plain_blocks(lm, sequence)[-1], 1e-5)
    assert not close(found.vectors[-1], out.hidden_states[-1][0], 1e-2), "the last block is read before the final norm"


def test_layers_keep_the_order_asked_for(lm: LanguageModel) -> None:
    sequence = ids(9)
    blocks = plain_blocks(lm, sequence)
    (found,) = capture_vectors(lm, [sequence], [2, 0], [[7, 1]])
    assert close(found, torch.stack([blocks[2][[7, 1]], blocks[0][[7, 1]]]), 1e-5)


def test_no_block_above_the_deepest_runs(lm: LanguageModel) -> None:
    calls: list[int] = []
    handles = [b.register_forward_pre_hook(lambda _m, _a, i=i: calls.append(i)) for i, b in enumerate(lm.blocks)]
    head = lm.model.get_output_embeddings().register_forward_pre_hook(lambda _m, _a: calls.append(99))
    try:
        capture(lm, ids(8), layers=[1], positions="last 2")
        assert calls == [0, 1]
        calls.clear()
        capture(lm, ids(8), layers=[N_LAYERS - 1, 0], positions="last 2")
        assert calls == list(range(N_LAYERS))
    finally:
        for handle in (*handles, head):
            handle.remove()


def test_hidden_padding_is_seen() -> None:
    assert not build("leaky").pads_cleanly
    assert all(model(family).pads_cleanly for family in ("llama", "mistral", "gpt2", "gemma3_wrapper"))


lengths = st.lists(st.integers(1, 14), min_size=1, max_size=5)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=lengths, batch_size=st.integers(1, 4), data=st.data())
def test_a_captured_batch_equals_its_items(lm: LanguageModel, lengths: list[int], batch_size: int, data: Any) -> None:
    sequences = [ids(n, seed=i) for i, n in enumerate(lengths)]
    rows = [data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=3, unique=True)) for n in lengths]
    found = capture_vectors(lm, sequences, [1, N_LAYERS - 1], rows, batch_size)
    for sequence, row, vector in zip(sequences, rows, found, strict=True):
        blocks = plain_blocks(lm, sequence)
        assert close(vector, torch.stack([blocks[1][row], blocks[-1][row]]))


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=5), size=st.integers(1, 4))
def test_batched_logprobs_equal_single_ones(lm: LanguageModel, pairs: list[tuple[int, int]], size: int) -> None:
    prompts = [ids(a, seed=i) for i, (a, _) in enumerate(pairs)]
    answers = [ids(b, seed=50 + i) for i, (_, b) in enumerate(pairs)]
    found = continuation_logprobs(lm, prompts, answers, batch_size=size)
    for prompt, answer, logprobs in zip(prompts, answers, found, strict=True):
        scores = plain_logits(lm, prompt + answer).log_softmax(-1)
        expected = torch.stack([scores[len(prompt) + i - 1, token] for i, token in enumerate(answer)])
        assert close(logprobs, expected)


def test_batches_mix_lengths_only_where_padding_stays_out() -> None:
    lengths = [5, 3, 5, 3]
    assert build("llama").groups(lengths, 4) == [[0, 2, 1, 3]]
    leaky = build("leaky")
    assert leaky.groups([5, 5], 4) == [[0, 1]] and leaky.groups(lengths, 1) == [[0], [2], [1], [3]]
    assert "pads_cleanly" not in vars(leaky), "it was tried where nothing is padded"
    assert leaky.groups(lengths, 4) == [[0, 2], [1, 3]]
