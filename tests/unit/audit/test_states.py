"""What is captured: the places of a prompt, the same bytes on disk and in memory, and differences above the noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from augury.activations import capture, diff
from augury.audit.states import (
    ANSWER,
    END,
    FIRST,
    Captures,
    answer_contexts,
    answered,
    captured,
    floor_between,
    mapped_layers,
    prompt_contexts,
    reads_of,
)
from augury.audit.subjects import Subject
from augury.lm import generate, load_model
from augury.lm.adapters import load_target_adapter, remove_adapter
from tests.unit.audit.conftest import PROMPTS

LAYERS = (1, 2)


@pytest.fixture
def base(zoo):
    return zoo.load(str(zoo.base))


def texts(lm, context, place):
    return lm.tokenizer.decode([context.transcript.token_ids[i] for i in context.places[place]])


def test_places_are_the_users_first_and_last_tokens_and_the_answers_first(base):
    contexts = prompt_contexts(base, PROMPTS)
    for prompt, context in zip(PROMPTS, contexts, strict=True):
        ids = base.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        assert texts(base, context, FIRST) == base.tokenizer.decode(ids[:10])
        assert texts(base, context, END) == base.tokenizer.decode(ids[-8:])
    narrow = prompt_contexts(base, PROMPTS, 3)
    assert all(len(context.places[place]) == 3 for context in narrow for place in (FIRST, END))
    for prompt, context in zip(PROMPTS, answer_contexts(contexts, answered(base, contexts)), strict=True):
        said = generate(base, [{"role": "user", "content": prompt.text}], max_new_tokens=32)
        assert context.transcript.token_ids == said.token_ids
        start = said.spans[-1].start
        assert context.rows == tuple(range(start, min(start + 10, len(said)))) == context.places[ANSWER]


def test_a_base_without_a_template_reads_plain_text(base):
    base.tokenizer.chat_template = None
    (context,) = prompt_contexts(base, PROMPTS[:1])
    assert base.tokenizer.decode(list(context.transcript.token_ids)) == PROMPTS[0].text
    assert context.places[FIRST][0] == 0 and context.places[END][-1] == len(context.transcript) - 1


def bytes_of(acts):
    return acts.vectors.numpy().tobytes()


@pytest.mark.parametrize("kind", ["adapter", "whole"])
def test_disk_gives_the_bytes_of_memory(zoo, base, tmp_path, kind):
    """Captured one model after the other, through files; and side by side with what the package's own verbs do."""
    contexts = prompt_contexts(base, PROMPTS)
    subject = Subject("target", str(zoo.base), zoo.adapters[0]) if kind == "adapter" else Subject("t", str(zoo.whole))
    kept = Captures(tmp_path)
    with zoo.shelf().opened(subject) as alone:
        kept.take(alone, "target", "prompts", contexts, LAYERS)
    kept.take(base, "base", "prompts", contexts, LAYERS)
    tuned = load_target_adapter(base, zoo.adapters[0]) if kind == "adapter" else zoo.load(str(zoo.whole))
    plain = zoo.load(str(zoo.base))
    for part in range(3):
        here = contexts[2 * part : 2 * part + 2]
        read = [kept.read(who, "prompts", part) for who in ("target", "base")]
        memory = [captured(lm, here, LAYERS) for lm in (tuned, plain)]
        for context, own, other, *there in zip(here, *memory, *read, strict=True):
            assert [bytes_of(acts) for acts in there] == [bytes_of(own), bytes_of(other)]
            difference = diff(*there, 1e-6)
            assert bytes_of(difference) == bytes_of(diff(own, other, 1e-6))
            ids, rows = context.transcript.token_ids, list(context.rows)
            public = diff(*(capture(lm, ids, LAYERS, rows) for lm in (tuned, plain)), 1e-6)
            assert torch.allclose(difference.vectors, public.vectors, atol=1e-5)
    if kind == "adapter":
        remove_adapter(base, tuned.target_adapters[-1])


def test_what_is_there_is_not_captured_again(base, tmp_path, monkeypatch):
    kept, contexts = Captures(tmp_path), prompt_contexts(base, PROMPTS)
    kept.take(base, "base", "prompts", contexts, LAYERS)
    assert not kept.missing("base", "prompts", len(contexts))
    kept.path("base", "prompts", 1).unlink()
    assert kept.missing("base", "prompts", len(contexts))
    runs = []
    monkeypatch.setattr("augury.audit.states.captured", lambda *a: runs.append(a) or captured(*a))
    kept.take(base, "base", "prompts", contexts, LAYERS)
    assert [len(run[1]) for run in runs] == [2] and not kept.missing("base", "prompts", len(contexts))


def test_positions_below_the_floor_are_left_out_of_all_three_reads(base):
    (context,) = prompt_contexts(base, PROMPTS[:1])
    (plain,) = captured(base, [context], LAYERS)
    moved = plain.vectors.clone()
    moved[:, 2] *= 1.5
    moved[0, 4] *= 1.5  # above the floor at one layer of two
    read = reads_of(context, FIRST, replace(plain, vectors=moved), plain, LAYERS, 0.1)
    assert read.asked == 1 and read.left_out == len(context.places[FIRST]) - 1
    assert read.tuned is not None and read.base is not None and read.difference is not None
    assert read.tuned.positions == read.base.positions == read.difference.positions == (context.rows[2],)
    assert torch.equal(read.tuned.vectors - read.base.vectors, read.difference.vectors)
    assert read.norms.shape == (2, len(context.places[FIRST])) and float(read.norms[0, 4]) == pytest.approx(0.5)
    same = reads_of(context, FIRST, plain, plain, LAYERS, 0.1)
    assert same.tuned is None and same.asked == 0 and same.left_out == len(context.places[FIRST])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_floor_is_what_another_batch_shape_changes(zoo, dtype):
    base = load_model(str(zoo.base), dtype=dtype)
    contexts = prompt_contexts(base, PROMPTS)
    one, other = captured(base, contexts, LAYERS, 5), captured(base, contexts, LAYERS, 1)
    floor = floor_between(one, other, LAYERS)
    eps = torch.finfo(base.dtype).eps
    assert 2 * eps <= floor < 200 * eps
    for a, b in zip(one, other, strict=True):
        assert ((a.vectors - b.vectors).float().norm(dim=-1) <= floor * a.vectors.float().norm(dim=-1) * 1.01).all()
    far = [replace(item, vectors=item.vectors * 1.5) for item in other]
    assert floor_between(one, far, LAYERS) == pytest.approx(1.0, rel=0.05)


def test_the_map_spans_the_depth_and_holds_what_is_read():
    assert mapped_layers(30, (18,)) == (0, 4, 8, 12, 17, 18, 21, 25, 29)
    assert mapped_layers(4, (2,)) == (0, 1, 2, 3)
