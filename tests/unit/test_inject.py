"""The injection function against the table of the design, written out by hand, and its refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from augury.contract import Injection
from augury.errors import InputError, ModelError
from augury.lm.generate import Sampling, choose
from augury.oracle.choices import weigh
from augury.oracle.inject import check_vectors, inject, injecting
from tests.tiny import tiny_lm

ANY = torch.Generator()
TABLE = {
    "add": (Injection(coefficient=2.0), lambda h, v: h + 2 * h.norm() * v / v.norm()),
    "replace": (Injection(operation="replace", coefficient=1.5), lambda h, v: 1.5 * h.norm() * v / v.norm()),
    "fixed": (
        Injection(site="embedding", block=None, operation="replace", scale="fixed", coefficient=150.0),
        lambda h, v: 150.0 * v / v.norm(),
    ),
    "rescaled": (
        Injection(coefficient=1.0, rescale_to=2.0),
        lambda h, v: (h + h.norm() * v / v.norm()) / (h + h.norm() * v / v.norm()).norm() * 2 * h.norm(),
    ),
}


@pytest.mark.parametrize("name", TABLE)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 5))
def test_each_row_of_the_table(name, seed, n):
    injection, by_hand = TABLE[name]
    torch.manual_seed(seed)
    hidden, vectors = torch.randn(n, 8), torch.randn(n, 8) * 10
    want = torch.stack([by_hand(h, v) for h, v in zip(hidden, vectors, strict=True)])
    assert torch.allclose(inject(hidden, vectors, injection), want, rtol=1e-5, atol=1e-5)


@given(scale=st.floats(1e-3, 1e3))
def test_the_length_of_the_activation_does_not_matter(scale):
    torch.manual_seed(0)
    hidden, vectors = torch.randn(3, 8), torch.randn(3, 8)
    found = inject(hidden, vectors * scale, Injection())
    assert torch.allclose(found, inject(hidden, vectors, Injection()), rtol=1e-4, atol=1e-5)


def test_the_coefficient_of_a_call_replaces_the_contracts():
    hidden, vectors = torch.randn(3, 8), torch.randn(3, 8)
    assert torch.equal(inject(hidden, vectors, Injection(), 2.0), inject(hidden, vectors, Injection(coefficient=2.0)))


def test_norms_are_float32_whatever_the_dtype():
    torch.manual_seed(0)
    hidden, vectors = torch.randn(4, 64).bfloat16(), (torch.randn(4, 64) * 1e4).bfloat16()
    found = inject(hidden, vectors, Injection())
    pairs = zip(hidden.float(), vectors.float(), strict=True)
    exact = torch.stack([h + h.norm() * v / v.norm() for h, v in pairs])
    assert found.dtype == torch.bfloat16 and torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_a_vector_without_a_direction_is_refused(bad):
    vectors = torch.randn(3, 8)
    vectors[1] = bad
    with pytest.raises(InputError, match="rows \\[1\\]"):
        inject(torch.randn(3, 8), vectors, Injection())


def test_another_width_or_count_is_refused():
    with pytest.raises(InputError, match="width 8"):
        check_vectors(torch.randn(3, 6), 8, 3)
    with pytest.raises(ModelError, match="3 slots and 2"):
        check_vectors(torch.randn(2, 8), 8, 3)
    with pytest.raises(TypeCheckError):  # under the tests the shapes in the signature are checked too
        inject(torch.randn(3, 8), torch.randn(3, 6), Injection())


@pytest.mark.parametrize("wrong", [lambda: weigh(torch.zeros(2, 2)), lambda: choose(torch.zeros(5), Sampling(), ANY)])
def test_shapes_are_checked_in_the_tests(wrong):
    with pytest.raises(TypeCheckError):
        wrong()


@pytest.mark.parametrize("name", ["add", "fixed"])
def test_only_slot_rows_change_and_later_blocks_see_it(name):
    lm, (injection, _) = tiny_lm(), TABLE[name]
    ids = torch.arange(3, 13)[None]
    seen = {}

    def watch(key):
        return lambda _m, _a, out: seen.__setitem__(key, (out[0] if isinstance(out, tuple) else out).detach())

    site = lm.blocks[injection.block] if injection.site == "block" else lm.blocks[0]
    for key in ("plain", "filled"):
        slots = [[2, 5]] if key == "filled" else [[]]
        with injecting(lm, injection, slots, [torch.randn(2, lm.d_model)]):
            handle = site.register_forward_hook(watch(key))  # after the injection's own hook
            lm.model(ids)
            handle.remove()
    changed = (seen["plain"] - seen["filled"]).abs().amax(-1)[0] > 0
    if injection.site == "block":
        assert changed.nonzero().flatten().tolist() == [2, 5]
    else:  # attention in block 0 carries it to the right, never to the left
        assert changed.nonzero().flatten().tolist() == list(range(2, 10))


def test_a_pass_that_never_reaches_the_site_is_refused():
    lm = tiny_lm()
    with (
        pytest.raises(ModelError, match="Nothing was injected"),
        injecting(lm, Injection(), [[1]], [torch.randn(1, lm.d_model)]),
    ):
        pass


def test_the_vectors_are_looked_at_once_a_pass(monkeypatch):
    """Each look waits for the device."""
    lm, looks = tiny_lm(), []
    real = torch.nonzero
    monkeypatch.setattr(torch, "nonzero", lambda *given: looks.append(1) or real(*given))
    slots, vectors = [[1, 2], [3]], [torch.randn(2, lm.d_model), torch.randn(1, lm.d_model)]
    with injecting(lm, Injection(), slots, vectors):
        lm.model(torch.arange(3, 13).repeat(2, 1))
    assert len(looks) == 1
    vectors[1][0] = 0
    with pytest.raises(InputError, match="rows \\[2\\]"), injecting(lm, Injection(), slots, vectors):
        lm.model(torch.arange(3, 13).repeat(2, 1))
    assert not lm.blocks[1]._forward_hooks
