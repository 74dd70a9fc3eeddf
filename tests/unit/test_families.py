"""Reading, decoding, injecting and adapting, on tiny random models of every family.

Each result is compared with a path of its own: the model's `output_hidden_states`, a plain hook, an uncached loop, a
plain forward pass of one unpadded sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from augury.activations import capture, capture_vectors
from augury.contract import Injection
from augury.errors import InputError, ModelError
from augury.lm import LanguageModel, Sampling, Transcript, generate_batch, load_model
from augury.lm.adapters import (
    active_adapters,
    adapter_parameters,
    adapters_on,
    remove_adapter,
    save_adapter,
    tuner_layers,
)
from augury.lm.batch import columns_of, left_pad
from augury.lm.blocks import find_decoder
from augury.lm.generate import decode
from augury.lm.hooks import on_output
from augury.lm.load import weights_fingerprint
from augury.lm.logprobs import continuation_logprobs
from augury.lm.shared import forward_shared, share_prefix
from augury.oracle.inject import inject, injecting
from tests.families import FAMILIES, LEAKY, N_LAYERS, WIDTH, add_random_adapter, build, ids

ALL = [*FAMILIES, *LEAKY]
LINEAR = ("qwen3_next", "qwen3_5", "bamba")
ADD = Injection()
PROMPT, SLOTS = ids(12, seed=3), [4, 5, 6]

_models: dict[str, LanguageModel] = {}


def model(family: str) -> LanguageModel:
    """The family's model, frozen, made once; tests leave it as it was."""
    if family not in _models:
        _models[family] = build(family)
        _models[family].model.requires_grad_(False)
    return _models[family]


@pytest.fixture(params=ALL)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return model(request.param)


@pytest.fixture(params=list(FAMILIES))
def decoding(request: pytest.FixtureRequest) -> LanguageModel:
    return model(request.param)


@pytest.fixture(params=list(FAMILIES))
def adapted(request: pytest.FixtureRequest) -> Iterator[LanguageModel]:
    """A model with a random LoRA `oracle` on it, taken off afterwards."""
    found = model(request.param)
    add_random_adapter(found)
    try:
        yield found
    finally:
        remove_adapter(found, "oracle")


def vectors(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)) * 3


def plain_logits(lm: LanguageModel, sequence: list[int]) -> Tensor:
    """Logits `[seq, vocab]` of one unpadded sequence, without any of augury's code."""
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0]


def plain_blocks(lm: LanguageModel, sequence: list[int]) -> list[Tensor]:
    """Every block's output `[seq, d]` for one unpadded sequence, through hooks of our own."""
    seen: list[Tensor] = []
    handles = [
        block.register_forward_hook(
            lambda _m, _a, out: seen.append((out[0] if isinstance(out, tuple) else out)[0].clone())
        )
        for block in lm.blocks
    ]
    plain_logits(lm, sequence)
    for handle in handles:
        handle.remove()
    return seen


@contextmanager
def leaves_no_hooks(lm: LanguageModel) -> Iterator[None]:
    """transformers keeps hooks of its own on a model, so the hooks after are compared with the hooks before."""
    before = _hooks(lm)
    yield
    after = _hooks(lm)
    assert not {name: hooks for name, hooks in after.items() if hooks != before[name]}


def _hooks(lm: LanguageModel) -> dict[str, list[int]]:
    return {name: [*m._forward_hooks, *m._forward_pre_hooks] for name, m in lm.model.named_modules()}


def close(a: Tensor, b: Tensor, bound: float = 1e-4) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= bound)


# ---------------------------------------------------------------- blocks and capture


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


# ---------------------------------------------------------------- decoding and injection


def naive_injection(lm: LanguageModel, slots: list[int], given: Tensor, c: float = 1.0) -> Any:
    """The published operation as a plain hook at block 1: `h + c * ||h|| * v / ||v||` (no code of augury)."""

    def hook(_m: nn.Module, _a: Any, out: Any) -> Any:
        hidden = (out[0] if isinstance(out, tuple) else out).clone()
        for slot, v in zip(slots, given, strict=True):
            hidden[0, slot] = hidden[0, slot] + c * hidden[0, slot].norm() * v / v.norm()
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    return lm.blocks[1].register_forward_hook(hook)


def naive_greedy(lm: LanguageModel, prompt: list[int], steps: int) -> tuple[list[int], float]:
    """Greedy tokens without a cache, every token from one full forward pass; and the least margin met on the way."""
    sequence, margin = list(prompt), float("inf")
    for _ in range(steps):
        top = plain_logits(lm, sequence)[-1].topk(2)
        margin = min(margin, float(top.values[0] - top.values[1]))
        sequence.append(int(top.indices[0]))
        if sequence[-1] in lm.end_ids:
            break
    return sequence[len(prompt) :], margin


@pytest.mark.parametrize("injected", [False, True])
def test_cached_decoding_equals_an_uncached_loop(decoding: LanguageModel, injected: bool) -> None:
    lm = decoding
    prompts = [ids(12, seed=3), ids(8, seed=4), ids(10, seed=5)]
    slots = [[4, 5, 6], [1], [2, 7]]
    given = [vectors(len(row), seed=i) for i, row in enumerate(slots)]
    expected = []
    for prompt, row, v in zip(prompts, slots, given, strict=True):
        handle = naive_injection(lm, row, v) if injected else None
        tokens, margin = naive_greedy(lm, prompt, 8)
        expected.append(tokens)
        assert margin > 1e-4, "a tie: choose other token ids"
        if handle is not None:
            handle.remove()
    batch = left_pad(prompts, lm.pad_id)
    columns = [columns_of(offset, row) for offset, row in zip(batch.offsets, slots, strict=True)]
    prefill = {"prefill": lambda: injecting(lm, ADD, columns, given)} if injected else {}
    found = decode(lm, batch, Sampling(max_new_tokens=8), samples=2, **prefill)
    assert found == [[tokens, tokens] for tokens in expected]


def test_finished_rows_leave_and_the_others_go_on(decoding: LanguageModel) -> None:
    """One row ends early: the cache loses its line, and the rest must still equal the uncached loop."""
    lm = decoding
    prompts = [ids(9, seed=11), ids(6, seed=12), ids(7, seed=13)]
    free = [naive_greedy(lm, prompt, 7)[0] for prompt in prompts]
    stop = free[1][2]
    with end_tokens(lm, [stop]):
        expected = [naive_greedy(lm, prompt, 7)[0] for prompt in prompts]
        running: list[int] = []
        found = decode(lm, left_pad(prompts, lm.pad_id), Sampling(max_new_tokens=7), step=running.append)
    assert [row[0] for row in found] == expected
    assert running[0] >= running[-1] and len(expected[1]) <= 3


@contextmanager
def end_tokens(lm: LanguageModel, tokens: list[int]) -> Iterator[None]:
    before = lm.model.generation_config.eos_token_id
    lm.model.generation_config.eos_token_id = tokens
    try:
        yield
    finally:
        lm.model.generation_config.eos_token_id = before


def test_samples_share_one_prefill(decoding: LanguageModel) -> None:
    lm, widths = decoding, []
    handle = lm.blocks[0].register_forward_hook(
        lambda _m, _a, out: widths.append(tuple((out[0] if isinstance(out, tuple) else out).shape[:2]))
    )
    batch = left_pad([ids(10, seed=1), ids(7, seed=2)], lm.pad_id)
    with end_tokens(lm, []):
        found = decode(lm, batch, Sampling(max_new_tokens=4, temperature=1.0, seed=1), samples=3)
    handle.remove()
    assert widths == [(2, 10), (6, 1), (6, 1), (6, 1)]
    assert len({tuple(text) for row in found for text in row}) > 2
    with end_tokens(lm, []):
        again = decode(lm, batch, Sampling(max_new_tokens=4, temperature=1.0, seed=1), samples=3)
    assert again == found


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=4), common=st.integers(1, 6))
def test_a_shared_prefix_changes_nothing(lm: LanguageModel, lengths: list[int], common: int) -> None:
    """Rows behind one prefix equal rows run whole: also where a window or a state would not bear padding inside."""
    rows = [ids(common, seed=70) + ids(n, seed=i) for i, n in enumerate(lengths)]
    batch = share_prefix(lm, rows, common) if lm.pads_cleanly else None
    if batch is None:
        assert not share_prefix(lm, rows, common).prefix
        return
    with torch.no_grad():
        found = forward_shared(lm, batch, 1).logits[:, -1]
    for row, logits in zip(rows, found, strict=True):
        assert close(logits, plain_logits(lm, row)[-1])


def test_prefixes_are_shared_where_that_is_sound() -> None:
    rows = [ids(6, seed=70) + ids(n, seed=n) for n in (3, 5)]
    shared = {family: len(share_prefix(model(family), rows, 6).prefix) for family in ALL}
    assert shared["llama"] == shared["qwen3"] == shared["gpt2"] == shared["gpt_neox"] == 6
    assert not any(
        shared[family] for family in ("mistral", "gemma2", "gemma3_text", "gemma3_wrapper", *LINEAR, "leaky")
    )


def test_padding_inside_a_sliding_window_is_avoided() -> None:
    lm = build("mistral")
    lm.model.config.sliding_window = 20
    short = [ids(6, seed=70) + ids(n, seed=n) for n in (3, 8)]
    assert len(share_prefix(lm, short, 6).prefix) == 6, "14 tokens fit the window"
    assert not share_prefix(lm, short, 6, new_tokens=8).prefix, "with 8 more they do not"
    equal = [ids(12, seed=70) + ids(12, seed=n) for n in (3, 8)]
    assert len(share_prefix(lm, equal, 12).prefix) == 12, "rows of one length have no padding inside"
    long = [ids(12, seed=70) + ids(n, seed=n) for n in (3, 12)]
    for rows in (short, equal, long):
        with torch.no_grad():
            found = forward_shared(lm, share_prefix(lm, rows, 12), 1).logits[:, -1]
        assert all(close(logits, plain_logits(lm, row)[-1]) for row, logits in zip(rows, found, strict=True))


@pytest.mark.parametrize("together", [True, False])
def test_a_generated_batch_equals_an_uncached_loop(decoding: LanguageModel, together: bool) -> None:
    lm = decoding
    starts = [ids(6, seed=70) + ids(n, seed=n) if together else ids(n, seed=n) for n in (3, 7, 1)]
    transcripts = [Transcript(tuple(start), model=lm.name) for start in starts]
    found = generate_batch(lm, transcripts, Sampling(max_new_tokens=6))
    for start, transcript in zip(starts, found, strict=True):
        assert list(transcript.token_ids) == start + naive_greedy(lm, start, 6)[0]


@pytest.mark.parametrize("injection", [ADD, Injection(block=0, operation="replace"), Injection(site="embedding", operation="replace", scale="fixed", coefficient=4.0)])  # fmt: skip  # noqa: E501
def test_only_slot_rows_change(lm: LanguageModel, injection: Injection) -> None:
    batch = left_pad([PROMPT, PROMPT[:8]], lm.pad_id)
    slots = [columns_of(0, SLOTS), columns_of(4, [2])]
    given = [vectors(3), vectors(1, seed=1)]
    site = lm.blocks[injection.block or 0]

    def run(inside: bool) -> Tensor:
        seen: list[Tensor] = []
        grab = (lambda _m, args, kw: seen.append((args[0] if args else kw["hidden_states"]).clone()), True)
        with torch.no_grad():
            if not inside:
                handle = _grab(site, injection, seen, grab)
                lm.model(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids
                )
            else:
                with injecting(lm, injection, slots, given):
                    handle = _grab(site, injection, seen, grab)
                    lm.model(
                        input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids
                    )
        handle.remove()
        return seen[0]

    before, after = run(False), run(True)
    touched = torch.zeros(before.shape[:2], dtype=torch.bool)
    for row, columns in enumerate(slots):
        touched[row, columns] = True
    assert torch.equal(before[~touched], after[~touched])
    expected = inject(before[touched], torch.cat(given), injection)
    assert close(after[touched], expected, 1e-5) and not close(after[touched], before[touched], 1e-2)


def _grab(site: nn.Module, injection: Injection, seen: list[Tensor], grab: Any) -> Any:
    if injection.site == "embedding":
        return site.register_forward_pre_hook(grab[0], with_kwargs=True)
    return site.register_forward_hook(
        lambda _m, _a, out: seen.append((out[0] if isinstance(out, tuple) else out).clone())
    )


def test_the_injected_value_by_hand() -> None:
    h = torch.tensor([[3.0, 4.0]])
    v = torch.tensor([[0.0, 2.0]])
    cases = [
        (Injection(), [[3.0, 9.0]]),
        (Injection(coefficient=2.0), [[3.0, 14.0]]),
        (Injection(operation="replace"), [[0.0, 5.0]]),
        (Injection(operation="replace", scale="fixed", coefficient=7.0), [[0.0, 7.0]]),
        (Injection(rescale_to=2.0), [[30 / 90**0.5, 90 / 90**0.5]]),
    ]
    for injection, expected in cases:
        assert close(inject(h, v, injection), torch.tensor(expected), 1e-5), injection
    assert close(inject(h, v, Injection(), coefficient=-1.0), torch.tensor([[3.0, -1.0]]), 1e-6)
    half = inject(h.bfloat16() * 1e4, v.bfloat16() * 1e-4, Injection())
    assert half.dtype == torch.bfloat16 and close(half.float(), torch.tensor([[3e4, 9e4]]), 300)


@pytest.mark.parametrize("bad", [torch.zeros(3, WIDTH), torch.full((3, WIDTH), torch.nan), torch.full((3, WIDTH), torch.inf), torch.ones(3, WIDTH + 1), torch.ones(2, WIDTH), torch.ones(4, WIDTH)])  # fmt: skip  # noqa: E501
def test_vectors_that_cannot_be_injected_are_refused(bad: Tensor) -> None:
    lm = model("llama")
    with leaves_no_hooks(lm), pytest.raises(InputError), injecting(lm, ADD, [SLOTS], [bad]):
        plain_logits(lm, PROMPT)


def test_an_injection_that_never_runs_is_refused() -> None:
    lm = model("llama")
    for injection, said in ((ADD, "Nothing was injected"), (Injection(block=9), "block 9")):
        fill = injecting(lm, injection, [SLOTS], [vectors(3)])
        with leaves_no_hooks(lm), pytest.raises(InputError, match=said), fill:
            pass


def test_hooks_are_gone_after_an_exception(lm: LanguageModel) -> None:
    with leaves_no_hooks(lm):
        fill, failing = injecting(lm, ADD, [SLOTS], [vectors(3)]), on_output(lm.blocks[2], _fail)
        with pytest.raises(RuntimeError, match="inside a hook"), fill, failing:
            plain_logits(lm, PROMPT)
        capture(lm, PROMPT, layers=[1])


# ---------------------------------------------------------------- adapters


def test_target_activations_never_see_an_oracle(adapted: LanguageModel) -> None:
    lm = adapted
    before = capture_with("oracle", lm)
    remove_adapter(lm, "oracle")
    clean = capture(lm, PROMPT, layers=range(N_LAYERS), positions="all").vectors
    add_random_adapter(lm)
    assert torch.equal(before, clean)
    on, failing = adapters_on(lm.model, ["oracle"]), on_output(lm.blocks[1], _fail)
    with pytest.raises(RuntimeError, match="inside a hook"), on, failing:
        plain_logits(lm, PROMPT)
    assert torch.equal(capture(lm, PROMPT, layers=range(N_LAYERS), positions="all").vectors, clean)
    with adapters_on(lm.model, ["oracle"]):
        assert not close(plain_logits(lm, PROMPT), _off(lm), 1e-2), (
            "the adapter does nothing: the test would prove nothing"
        )


def capture_with(name: str, lm: LanguageModel) -> Tensor:
    """Captured while an oracle is switched on around it."""
    with adapters_on(lm.model, [name]):
        return capture(lm, PROMPT, layers=range(N_LAYERS), positions="all").vectors


def _fail(_hidden: Tensor) -> None:
    raise RuntimeError("inside a hook")


def _off(lm: LanguageModel) -> Tensor:
    with adapters_on(lm.model, []):
        return plain_logits(lm, PROMPT)


def state_of(lm: LanguageModel) -> tuple[Any, ...]:
    return (
        [(layer._active_adapter, layer._disable_adapters) for _, layer in tuner_layers(lm.model)],
        [(name, p.requires_grad) for name, p in lm.model.named_parameters()],
        [(name, m.training) for name, m in lm.model.named_modules()],
    )


def test_adapters_on_restores_everything() -> None:
    lm = build("qwen3")
    add_random_adapter(lm, "oracle")
    add_random_adapter(lm, "second", seed=8)
    for parameter in adapter_parameters(lm.model, "oracle").values():
        parameter.requires_grad_(True)
    lm.model.train()
    lm.blocks[1].eval()  # a mixture of modes, which a plain train() would flatten
    before = state_of(lm)
    with adapters_on(lm.model, ["oracle"]):
        assert active_adapters(lm.model) == ("oracle",) and not lm.model.training
        with adapters_on(lm.model, ["oracle", "second"]):
            assert active_adapters(lm.model) == ("oracle", "second")
            with adapters_on(lm.model, []):
                assert active_adapters(lm.model) == ()
        assert active_adapters(lm.model) == ("oracle",)
    assert bool(state_of(lm) == before)
    on, failing = adapters_on(lm.model, ["second"]), on_output(lm.blocks[0], _fail)
    with pytest.raises(RuntimeError, match="inside a hook"), on, failing:
        plain_logits(lm, PROMPT)
    assert bool(state_of(lm) == before)


def test_a_target_adapter_stays_on_and_an_oracle_off(tmp_path: Any) -> None:
    lm = build("llama")
    config = add_random_adapter(lm, "maker", seed=21)
    save_adapter(lm, "maker", config, tmp_path / "target", torch.float32)
    with adapters_on(lm.model, ["maker"]):
        expected = torch.stack(plain_blocks(lm, PROMPT))
    remove_adapter(lm, "maker")
    base = capture(lm, PROMPT, layers=range(N_LAYERS), positions="all").vectors
    target = load_model(lm.model, adapter=tmp_path / "target")
    add_random_adapter(target, "oracle")
    found = capture(target, PROMPT, layers=range(N_LAYERS), positions="all").vectors
    assert close(found, expected, 1e-5) and not close(found, base, 1e-2)


def loss_of(lm: LanguageModel, given: Tensor) -> Tensor:
    with injecting(lm, ADD, [SLOTS], [given]):
        logits = lm.model(input_ids=torch.tensor([PROMPT]), use_cache=False, **_types(lm)).logits
    return torch.nn.functional.cross_entropy(logits[0, -4:-1], torch.tensor(PROMPT[-3:]))


def _types(lm: LanguageModel) -> dict[str, Any]:
    """A multimodal wrapper wants to be told in training that there are no images."""
    return {"token_type_ids": torch.zeros(1, len(PROMPT), dtype=torch.long)} if "language" in lm.decoder.path else {}


def gradients(lm: LanguageModel, given: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    parameters = adapter_parameters(lm.model, "oracle")
    for layer in tuner_layers(lm.model):
        layer[1]._active_adapter, layer[1]._disable_adapters = ["oracle"], False
    for parameter in parameters.values():
        parameter.requires_grad_(True)
        parameter.grad = None
    try:
        loss = loss_of(lm, given)
        loss.backward()
    finally:
        for layer in tuner_layers(lm.model):
            layer[1]._active_adapter, layer[1]._disable_adapters = [], True
    return loss.detach(), {key: p.grad for key, p in parameters.items() if p.grad is not None}


def test_gradients_reach_the_adapter_and_not_the_vectors(adapted: LanguageModel) -> None:
    lm = adapted
    given = vectors(3).requires_grad_(True)
    _, found = gradients(lm, given)
    assert given.grad is None
    assert sum(float(g.abs().sum()) > 0 for g in found.values()) > 0.9 * len(adapter_parameters(lm.model, "oracle"))
    assert all(p.grad is None for name, p in lm.model.named_parameters() if "oracle" not in name)
    first = [key for key in found if key.startswith(f"{lm.decoder.path}.0.")]
    assert first and all(float(found[key].abs().sum()) > 0 for key in first), "nothing flows through the slot rows"


def test_the_injected_term_and_its_scale_are_detached() -> None:
    """d(sum of the result)/dh is one: neither the norm of `h` nor `v` carries a gradient."""
    h, v = vectors(3).requires_grad_(True), vectors(3, seed=5).requires_grad_(True)
    inject(h, v, ADD).sum().backward()
    assert v.grad is None and h.grad is not None and torch.equal(h.grad, torch.ones_like(h))


def test_gradient_checkpointing_changes_nothing(adapted: LanguageModel) -> None:
    lm, given = adapted, vectors(3)
    lm.model.train()
    try:
        loss, plain = gradients(lm, given)
        lm.model.gradient_checkpointing_enable({"use_reentrant": False})
        runs: list[int] = []
        handle = lm.blocks[-1].register_forward_pre_hook(lambda _m, _a: runs.append(1))
        again, checkpointed = gradients(lm, given)
        handle.remove()
    finally:
        lm.model.gradient_checkpointing_disable()
        lm.model.eval()
    assert close(loss, again, 1e-6) and plain.keys() == checkpointed.keys()
    for key, gradient in plain.items():
        assert close(gradient, checkpointed[key], 1e-5), key


def test_the_fingerprint_names_the_base(decoding: LanguageModel) -> None:
    lm = decoding
    before = weights_fingerprint(lm.decoder)
    add_random_adapter(lm)
    try:
        assert weights_fingerprint(lm.decoder) == before
    finally:
        remove_adapter(lm, "oracle")
    assert weights_fingerprint(lm.decoder) == before
    other = build(next(name for name, found in _models.items() if found is lm))
    other.model.bfloat16()
    assert weights_fingerprint(other.decoder) == before
    with torch.no_grad():
        next(other.blocks[-1].parameters()).mul_(1.5)
    assert weights_fingerprint(other.decoder) != before
