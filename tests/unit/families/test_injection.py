"""Decoding and injection, on tiny random models of every family: against uncached loops and a plain hook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from augury.activations import capture
from augury.contract import Injection
from augury.errors import InputError, ModelError
from augury.lm import LanguageModel, Sampling, Transcript, generate_many
from augury.lm.batch import columns_of, left_pad
from augury.lm.generate import decode
from augury.lm.hooks import on_output
from augury.lm.shared import forward_shared, share_prefix
from augury.oracle.inject import inject, injecting
from tests.families import WIDTH, build, ids
from tests.plain_paths import (
    ADD,
    ALL,
    LINEAR,
    PROMPT,
    SLOTS,
    close,
    fail,
    leaves_no_hooks,
    model,
    plain_logits,
    vectors,
)


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
        seen: list[list[list[int]]] = []
        batch, sampling = left_pad(prompts, lm.pad_id), Sampling(max_new_tokens=7)
        found = decode(lm, batch, sampling, told=lambda texts: seen.append([list(text) for text in texts]))
    assert [row[0] for row in found] == expected
    assert seen == [[text[: i + 1] for text in expected] for i in range(max(map(len, expected)))]
    assert len(expected[1]) <= 3


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
def test_a_running_batch_equals_an_uncached_loop(decoding: LanguageModel, together: bool) -> None:
    """Three places for five rows, of which two end early: others join behind padding where the model allows that."""
    lm = decoding
    starts = [ids(6, seed=70) + ids(n, seed=n) if together else ids(n, seed=n) for n in (3, 7, 1, 5, 3)]
    transcripts = [Transcript(tuple(start), model=lm.name) for start in starts]
    stops = [naive_greedy(lm, start, 6)[0][place] for start, place in zip(starts[:2], (1, 3), strict=True)]
    with end_tokens(lm, stops):
        found = generate_many(lm, transcripts, Sampling(max_new_tokens=6), width=3)
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
    kind = InputError if len(bad) == 3 else ModelError  # another count than slots is no caller's fault
    with leaves_no_hooks(lm), pytest.raises(kind), injecting(lm, ADD, [SLOTS], [bad]):
        plain_logits(lm, PROMPT)


def test_an_injection_that_never_runs_is_refused() -> None:
    lm = model("llama")
    for injection, kind, said in (
        (ADD, ModelError, "Nothing was injected"),
        (Injection(block=9), InputError, "block 9"),
    ):
        fill = injecting(lm, injection, [SLOTS], [vectors(3)])
        with leaves_no_hooks(lm), pytest.raises(kind, match=said), fill:
            pass


def test_hooks_are_gone_after_an_exception(lm: LanguageModel) -> None:
    with leaves_no_hooks(lm):
        fill, failing = injecting(lm, ADD, [SLOTS], [vectors(3)]), on_output(lm.blocks[2], fail)
        with pytest.raises(RuntimeError, match="inside a hook"), fill, failing:
            plain_logits(lm, PROMPT)
        capture(lm, PROMPT, layers=[1])
