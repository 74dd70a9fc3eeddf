"""Adapters on and off, and gradients through them, on tiny random models of every family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from augury.activations import capture
from augury.errors import ModelError
from augury.lm import LanguageModel, load_model
from augury.lm.adapters import (
    active_adapters,
    adapter_parameters,
    adapters_on,
    remove_adapter,
    save_adapter,
    tuner_layers,
)
from augury.lm.hooks import on_output
from augury.lm.load import weights_fingerprint
from augury.lm.recompute import recomputing
from augury.oracle.inject import inject, injecting
from tests.families import N_LAYERS, add_random_adapter, build
from tests.plain_paths import ADD, PROMPT, SLOTS, close, fail, models, plain_blocks, plain_logits, vectors


def test_target_activations_never_see_an_oracle(adapted: LanguageModel) -> None:
    lm = adapted
    before = capture_with("oracle", lm)
    remove_adapter(lm, "oracle")
    clean = capture(lm, PROMPT, layers=range(N_LAYERS), positions="all").vectors
    add_random_adapter(lm)
    assert torch.equal(before, clean)
    on, failing = adapters_on(lm.model, ["oracle"]), on_output(lm.blocks[1], fail)
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
    on, failing = adapters_on(lm.model, ["second"]), on_output(lm.blocks[0], fail)
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


@contextmanager
def runs_inside(block: nn.Module) -> Iterator[Counter[str]]:
    """How often each module below the block runs, in the order of their first runs."""
    counts: Counter[str] = Counter()
    inside = [(name, module) for name, module in block.named_modules() if name]
    handles = [m.register_forward_pre_hook(lambda *_, name=name: counts.update([name])) for name, m in inside]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def transformers_own(lm: LanguageModel) -> Iterator[None]:
    """What a user may have switched on."""
    lm.model.gradient_checkpointing_enable({"use_reentrant": False})
    lm.model.train()
    try:
        yield
    finally:
        lm.model.gradient_checkpointing_disable()
        lm.model.eval()


@pytest.mark.parametrize("kind", ["ours", "transformers'"])
def test_gradient_checkpointing_changes_nothing(adapted: LanguageModel, kind: str) -> None:
    lm, given = adapted, vectors(3)
    if kind != "ours" and "__call__" in vars(GradientCheckpointingLayer):
        pytest.skip("this transformers runs a block's hooks again in the backward pass")
    forwards = [vars(block).get("forward") for block in lm.blocks]  # some transformers leave their own there
    with runs_inside(lm.blocks[-1]) as once:
        loss, plain = gradients(lm, given)
    with recomputing(lm.blocks) if kind == "ours" else transformers_own(lm), runs_inside(lm.blocks[-1]) as twice:
        again, checkpointed = gradients(lm, given)
    first = next(iter(once))  # of the others the recomputation may stop short, when it has what it needs
    assert (once[first], twice[first]) == (1, 2), "nothing was computed again"
    assert close(loss, again, 1e-6) and plain.keys() == checkpointed.keys()
    for key, gradient in plain.items():
        assert close(gradient, checkpointed[key], 1e-5), key
    assert [vars(block).get("forward") for block in lm.blocks] == forwards


def test_checkpointing_refuses_a_cache() -> None:
    lm = build("llama")
    found = torch.tensor([PROMPT])
    cache = lm.model(input_ids=found, use_cache=True).past_key_values
    with recomputing(lm.blocks), pytest.raises(ModelError, match="goes on from a cache"):
        lm.model(input_ids=found, past_key_values=cache)
    assert lm.model(input_ids=found, past_key_values=cache).logits.isfinite().all()


def test_the_fingerprint_names_the_base(decoding: LanguageModel) -> None:
    lm = decoding
    before = weights_fingerprint(lm.decoder)
    add_random_adapter(lm)
    try:
        assert weights_fingerprint(lm.decoder) == before
    finally:
        remove_adapter(lm, "oracle")
    assert weights_fingerprint(lm.decoder) == before
    other = build(next(name for name, found in models.items() if found is lm))
    other.model.bfloat16()
    assert weights_fingerprint(other.decoder) == before
    with torch.no_grad():
        next(other.blocks[-1].parameters()).mul_(1.5)
    assert weights_fingerprint(other.decoder) != before
