"""Activations for training: cached and live ones are what a plain capture gives, each context is run once."""

from __future__ import annotations

import random

import pytest
import torch

from augury.activations import capture
from augury.activations.store import save
from augury.data.example import Context, Example, Part
from augury.errors import FormatError, InputError
from augury.train import reads as room
from augury.train.reads import LiveReads, cache_reads
from tests.tiny import tiny_lm

LAYERS = (1, 3)


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def contexts(lm):
    rng = random.Random(0)
    lengths = [rng.randint(3, 40) for _ in range(11)]
    found = [[rng.randrange(3, lm.vocab_size) for _ in range(n)] for n in lengths]
    return [Context(i, "train", tuple(ids), (Part("text", "x", 0, len(ids)),)) for i, ids in enumerate(found)]


def ask(context: Context, rng: random.Random) -> Example:
    n = len(context.token_ids)
    positions = tuple(sorted(rng.sample(range(n), rng.randint(1, min(n, 5)))))
    layers = rng.choice([(1,), (3,), (1, 3), (3, 1)])
    return Example("custom", "x", "train", context.number, positions, "?", "!", None, "?", layers=layers)


def plain(lm, contexts, example):
    ids = list(contexts[example.context].token_ids)
    found = capture(lm, ids, layers=list(example.layers), positions=list(example.positions))
    return found.vectors.flatten(0, 1).float()


@pytest.mark.parametrize("kind", ["cached", "live"])
def test_they_are_what_a_plain_capture_gives(lm, contexts, tmp_path, kind):
    rng = random.Random(1)
    cached = cache_reads(lm, contexts, LAYERS, tmp_path, "x", shard=4)
    reads = cached if kind == "cached" else LiveReads(lm, contexts)
    for _ in range(5):
        examples = [ask(rng.choice(contexts), rng) for _ in range(8)]
        reads.prefetch(examples)
        for example in examples:
            found = reads.vectors(example.context, example.layers, example.positions)
            wanted = plain(lm, contexts, example)
            close = 2e-3 if kind == "cached" else 1e-5  # float16 on disk
            assert found.shape == wanted.shape and torch.allclose(found, wanted, rtol=close, atol=close)


def test_each_context_is_run_once_and_no_further_than_it_is_read(lm, contexts, monkeypatch):
    run = []

    def captured(lm, ids, layers, rows, n, tokens):
        run.append((ids, layers, rows))
        return [torch.zeros(len(layers), len(row), 1) for row in rows]

    monkeypatch.setattr(room, "capture_vectors", captured)
    asked = [
        Example("x", "x", "train", 2, (0, 1), "?", "!", None, "?", layers=(1,)),
        Example("x", "x", "train", 2, (1, 2), "?", "!", None, "?", layers=(3,)),
        Example("x", "x", "train", 5, (0,), "?", "!", None, "?", layers=(1,)),
    ]
    LiveReads(lm, contexts).prefetch(asked)
    assert run == [([contexts[2].token_ids, contexts[5].token_ids], [1, 3], [[0, 1, 2], [0]])]


def test_a_cut_off_capture_goes_on(lm, contexts, tmp_path, monkeypatch):
    cache_reads(lm, contexts[:4], LAYERS, tmp_path, "x", shard=4)
    captured = []
    plainly = room.capture_vectors
    monkeypatch.setattr(room, "capture_vectors", lambda *a, **k: captured.append(len(a[1])) or plainly(*a, **k))
    cache_reads(lm, contexts, LAYERS, tmp_path, "x", shard=4)
    assert captured == [4, 3]


def test_other_text_or_layers_are_refused(lm, contexts, tmp_path):
    cache_reads(lm, contexts, LAYERS, tmp_path, "x", shard=4)
    with pytest.raises(InputError, match="layers"):
        cache_reads(lm, contexts, (1,), tmp_path, "x", shard=4)
    with pytest.raises(InputError, match="tokens"):
        cache_reads(lm, contexts[::-1], LAYERS, tmp_path, "x", shard=4)
    next(tmp_path.glob("*.safetensors")).write_bytes(b"broken")
    with pytest.raises(FormatError, match="cannot be read"):
        cache_reads(lm, contexts, LAYERS, tmp_path, "x", shard=4)


def test_nothing_to_get_ready_is_no_fault_and_what_was_not_announced_is_captured(lm, contexts):
    reads, rng = LiveReads(lm, contexts), random.Random(3)
    reads.prefetch([])
    example = ask(contexts[5], rng)
    found = reads.vectors(example.context, example.layers, example.positions)
    assert torch.allclose(found, plain(lm, contexts, example), atol=1e-5)


@pytest.mark.parametrize("several", [False, True])
def test_saved_activations_are_read_from_their_file(lm, tmp_path, several):
    acts = [capture(lm, [5, 9, 30, 7 + i], layers=[1, 3], positions="all") for i in range(2)]
    path = tmp_path / "acts.safetensors"
    save(acts, path) if several else acts[1].save(path)
    labels = {"vectors": str(path), "item": "1" if several else "0"}
    reads = LiveReads(lm, [Context(0, "train", (), (), labels)])
    example = Example("custom", "x", "train", 0, (1, 3), "?", "!", None, "?", layers=(3, 1))
    reads.prefetch([example])
    want = acts[1].vectors[[1, 0]][:, [1, 3]].flatten(0, 1)
    assert torch.equal(reads.vectors(0, (3, 1), (1, 3)), want)
    with pytest.raises(InputError, match="lack a layer"):
        reads.vectors(0, (2,), (1,))


def test_a_value_too_large_for_float16_is_kept(lm, contexts, tmp_path, monkeypatch):
    whole = room.capture_vectors

    def large(*args, **kwargs):
        return [vectors * 1e6 for vectors in whole(*args, **kwargs)]

    monkeypatch.setattr(room, "capture_vectors", large)
    reads = cache_reads(lm, contexts[:2], [1], tmp_path, "x")
    found = reads.vectors(0, (1,), (1,))
    assert bool(torch.isfinite(found).all()) and float(found.abs().max()) > 65504
