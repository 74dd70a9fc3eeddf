"""Selectors, storage and subtraction of activations."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import augury
from augury.activations import Activations, capture, load, noise_floor, resolve, resolve_layers, save
from augury.activations.capture import capture_bytes
from augury.errors import FormatError, InputError, ModelError, NotFoundError, StorageError
from augury.lm import Transcript
from augury.lm.batch import columns_of, left_pad, length_groups
from tests.families import build
from tests.tiny import tiny_lm

CHAT = [
    {"role": "user", "content": "What is the text about?"},
    {"role": "assistant", "content": "The philosopher drank tea."},
]


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def ids_of(n: int) -> Transcript:
    return Transcript(tuple(range(3, 3 + n)))


@given(n=st.integers(1, 40), parts=st.tuples(*[st.none() | st.integers(-45, 45)] * 2), step=st.integers(1, 3))
def test_slices_mean_what_they_mean_in_python(n, parts, step):
    lm, transcript = None, ids_of(n)
    wanted = tuple(range(n))[slice(*parts, step)]
    written = ":".join(["" if part is None else str(part) for part in parts] + [str(step)])
    for selector in (slice(*parts, step), written):
        if wanted:
            assert resolve(lm, transcript, selector) == wanted  # type: ignore[arg-type]
        else:
            with pytest.raises(InputError, match="matches no token"):
                resolve(lm, transcript, selector)  # type: ignore[arg-type]


@given(n=st.integers(1, 40), k=st.integers(1, 50))
def test_first_and_last(n, k):
    transcript = ids_of(n)
    assert resolve(None, transcript, f"last {k}") == tuple(range(n))[-k:]  # type: ignore[arg-type]
    assert resolve(None, transcript, f"first {k}") == tuple(range(n))[:k]  # type: ignore[arg-type]


@given(n=st.integers(1, 20), indices=st.lists(st.integers(-25, 25), min_size=1, max_size=6))
def test_indices_are_checked_and_counted_from_the_end(n, indices):
    transcript = ids_of(n)
    if all(-n <= i < n for i in indices):
        wanted = tuple(dict.fromkeys(i % n for i in indices))
        assert resolve(None, transcript, indices) == wanted  # type: ignore[arg-type]
    else:
        with pytest.raises(InputError, match="not all in the context"):
            resolve(None, transcript, indices)  # type: ignore[arg-type]


@pytest.mark.parametrize("selector", ["lats 8", "role()", 1.5, True, None, "8 last"])
def test_no_selector_is_refused(selector):
    with pytest.raises(InputError):
        resolve(None, ids_of(5), selector)  # type: ignore[arg-type]


def test_roles_and_texts_select_their_own_tokens(lm):
    transcript = capture(lm, CHAT, 1, "all").transcript
    for selector, text in (
        (augury.role("assistant"), "The philosopher drank tea."),
        ("role(user)", "What is the text about?"),
        ("text(philosopher)", "philosopher"),
        (augury.text("tea"), "tea"),
    ):
        found = resolve(lm, transcript, selector)
        decoded = lm.tokenizer.decode([transcript.token_ids[i] for i in found])
        assert text in decoded and len(decoded) <= len(text) + 8
    with pytest.raises(InputError, match="user, assistant"):
        resolve(lm, transcript, "role(system)")


def test_a_text_needs_a_tokenizer_and_few_looks(lm, monkeypatch):
    transcript = capture(lm, "\U0001f375 tea " * 60 + "hemlock \U0001f375 \u00e9", 1, "last 1").transcript
    tokenizer, looks = lm.tokenizer, []
    real = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids: looks.append(len(ids)) or real(ids))
    found = resolve(lm, transcript, "text(hemlock)")
    assert "hemlock" in real([transcript.token_ids[i] for i in found]) and len(looks) < 50
    cup = resolve(lm, transcript, augury.text("\U0001f375"))
    assert cup[0] > found[-1] and real([transcript.token_ids[i] for i in cup]).strip() == "\U0001f375"
    looks.clear()
    with pytest.raises(InputError, match="matches no token"):
        resolve(lm, transcript, "text(absent)")
    assert len(looks) == 1
    with pytest.raises(InputError, match="no tokenizer"):
        resolve(replace(lm, tokenizer=None), transcript, "text(hemlock)")


def test_layers_by_index_and_percent():
    assert resolve_layers(30, "62%") == (18,) and resolve_layers(36, [21, "62%"]) == (21, 22)
    assert resolve_layers(36, "25%,50%,75%") == (9, 18, 27)
    for wrong in (30, -1, "100%", "x", [], "1.5"):
        with pytest.raises(InputError):
            resolve_layers(30, wrong)
    for twice in ("18,18", [18, "62%"]):
        with pytest.raises(InputError, match="named twice"):
            resolve_layers(30, twice)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), data=st.data())
def test_left_padding_keeps_every_token_at_its_column(lengths, data):
    rows = [data.draw(st.lists(st.integers(1, 99), min_size=n, max_size=n)) for n in lengths]
    batch = left_pad(rows, 0)
    for i, row in enumerate(rows):
        columns = columns_of(batch.offsets[i], range(len(row)))
        assert batch.input_ids[i, columns].tolist() == row
        assert batch.position_ids[i, columns].tolist() == list(range(len(row)))
        assert batch.attention_mask[i].sum() == len(row) and columns[-1] == batch.input_ids.shape[1] - 1


@given(
    lengths=st.lists(st.integers(1, 9), max_size=20),
    size=st.integers(1, 5),
    equal=st.booleans(),
    tokens=st.none() | st.integers(1, 30),
)
def test_groups_hold_every_item_once(lengths, size, equal, tokens):
    groups = length_groups(lengths, size, equal, tokens)
    padded = [max(lengths[i] for i in group) * len(group) for group in groups]
    assert tokens is None or all(n <= tokens or len(g) == 1 for n, g in zip(padded, groups, strict=True))
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) <= size for group in groups)
    assert not equal or all(len({lengths[i] for i in group}) == 1 for group in groups)


def test_a_file_gives_back_the_same_bytes(lm, tmp_path):
    for dtype in (torch.float32, torch.bfloat16):
        acts = capture(lm, CHAT, [1, 2], "last 3").to(dtype)
        again = Activations.load(acts.save(tmp_path / "a.safetensors"))
        assert torch.equal(again.vectors, acts.vectors) and again.vectors.dtype == dtype
        assert again.transcript == acts.transcript and again.provenance == acts.provenance
        assert (again.layers, again.positions) == (acts.layers, acts.positions)
    several = capture(lm, ["The text", "Who is speaking here?"], 1, "last 2")
    assert [item.positions for item in load(save(several, tmp_path / "b.safetensors"))] == [
        item.positions for item in several
    ]


def test_what_a_capture_costs_is_what_is_written(lm, tmp_path):
    acts = capture(lm, [3 + i % 300 for i in range(400)], [0, 1, 2, 3], "all")
    size = save(acts, tmp_path / "a.safetensors").stat().st_size
    assert size == pytest.approx(capture_bytes(lm, 4, 400), rel=0.1)


def test_pickles_and_torn_files_are_refused(lm, tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps({"vectors": [1.0]}))
    with pytest.raises(FormatError, match="holds no activations"):
        load(path)
    whole = save(capture(lm, "The text", 1, "all"), tmp_path / "a.safetensors").read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(FormatError):
        load(path)
    with pytest.raises(NotFoundError):
        load(tmp_path / "absent.safetensors")


def test_a_full_disk_leaves_the_old_file(lm, tmp_path, monkeypatch):
    path = save(capture(lm, "The text", 1, "all"), tmp_path / "a.safetensors")
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("augury.activations.store.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        save(capture(lm, "Who?", 1, "all"), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_slicing_keeps_vectors_and_positions_together(lm):
    acts = capture(lm, CHAT, [1, 3], "all")
    part = acts[2:5]
    assert part.positions == acts.positions[2:5] and torch.equal(part.vectors, acts.vectors[:, 2:5])
    assert torch.equal(acts[-1].vectors, acts.vectors[:, -1:]) and acts[[3, 1]].positions == (3, 1)
    assert torch.equal(acts.at_layers(3).vectors[0], acts.vectors[1])
    assert torch.equal(part.flat, torch.cat([part.vectors[0], part.vectors[1]]))
    with pytest.raises(InputError, match="not captured"):
        acts.at_layers(2)
    with pytest.raises(InputError, match="empty"):
        acts[5:5]


def test_a_difference_is_taken_token_by_token(lm):
    other = tiny_lm(seed=1)
    base = capture(lm, CHAT, 2, "last 4")
    tuned = capture(other, base.transcript, 2, "last 4")
    found = augury.diff(tuned, base)
    assert torch.allclose(found.vectors, tuned.vectors - base.vectors) and found.provenance.kind == "difference"
    want = (tuned.vectors - base.vectors).norm(dim=-1) / base.vectors.norm(dim=-1)
    assert torch.allclose(found.relative_norms, want)
    with pytest.raises(InputError, match="same token ids"):
        augury.diff(capture(lm, "The text is", 2, "last 1"), capture(lm, "Who is it", 2, "last 1"))
    with pytest.raises(InputError, match="layers"):
        augury.diff(capture(lm, CHAT, 1, "last 4"), base)


def test_a_model_minus_itself_is_below_the_noise_floor(lm):
    base = capture(lm, CHAT, 2, "last 4")
    floor = noise_floor(lm, CHAT, [2], base.positions)
    again = capture(lm, [CHAT, "The text"], 2, "last 4")[0]
    assert float(augury.diff(again, base).relative_norms.max()) <= max(floor, 1e-6) < 1e-3
    tuned = capture(tiny_lm(seed=1), base.transcript, 2, "last 4")
    assert float(augury.diff(tuned, base).relative_norms.min()) > 100 * max(floor, 1e-6)


@pytest.mark.parametrize("length", [100, 128])
def test_the_noise_floor_of_a_context_that_fills_the_model(length):
    lm = build("gpt2")  # whose positions are a table of 128
    assert lm.max_positions == 128
    ids = [5 + i % 40 for i in range(length)]
    assert 0 < noise_floor(lm, ids, [1], [3, length - 1]) < 1e-3


@pytest.mark.parametrize("layers", [1.0, None, object(), [1.5], "inf%", "nan%", True])
def test_what_is_no_layer_is_refused_in_three_parts(layers):
    with pytest.raises(InputError) as refused:
        resolve_layers(30, layers)
    assert refused.value.what and refused.value.why and refused.value.instead


def test_a_file_says_what_took_it(lm, tmp_path):
    import json
    from importlib.metadata import version

    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    acts = capture(lm, CHAT, 2, "last 4")
    path = acts.save(tmp_path / "a")
    with safe_open(path, framework="pt") as file:
        index = json.loads(file.metadata()["augury"])
    entry = index["items"][0]
    packages = {name: version(name) for name in ("torch", "transformers", "peft")}
    assert entry["versions"] == {"augury": augury.__version__, **packages}
    assert entry["provenance"]["model"]["chat_template_hash"] == lm.identity.chat_template_hash
    assert "revision" in entry["provenance"]["model"]
    assert load(path).provenance == acts.provenance
    del entry["versions"]  # as releases before it wrote them
    save_file(load_file(path), tmp_path / "old", metadata={"augury": json.dumps(index)})
    old = load(tmp_path / "old")
    assert old.provenance.versions == {} and torch.equal(old.vectors, acts.vectors)


def test_an_ending_is_refused_where_it_would_do_nothing(lm):
    closed = capture(lm, CHAT, 2, "last 1", end="closed")
    assert capture(lm, closed.transcript, 2, "last 1", end="closed").positions == closed.positions
    for source in ("The text", [5, 6, 7], closed.transcript, ["The text", "tea"]):
        with pytest.raises(InputError):
            capture(lm, source, 2, "last 1", end="open")


def four() -> Activations:
    return Activations.from_tensor(torch.arange(8.0).reshape(4, 2) + 1, 0)


@pytest.mark.parametrize("mask", [[False, True, False, True], torch.tensor([False, True, False, True])])
def test_a_mask_selects_where_it_is_true(mask):
    assert four()[mask].positions == (1, 3)
    assert torch.equal(four()[mask].vectors, four().vectors[:, [1, 3]])
    assert four()[torch.tensor([2, 0])].positions == (2, 0)


@pytest.mark.parametrize("index", [True, [True, False], [1, True, 0, 2], 1.5, [0.0], torch.tensor([1.0]), "1", None])
def test_what_names_no_places_is_refused(index):
    with pytest.raises(InputError):
        four()[index]


def test_what_is_not_finite_is_not_captured():
    broken = tiny_lm()
    broken.blocks[1].mlp.down_proj.weight.data[3, 3] = float("nan")
    assert capture(broken, "The philosopher", 0, "all").layers == (0,)
    with pytest.raises(ModelError, match="not finite") as refusal:
        capture(broken, "The philosopher", (0, 2), "all")
    assert "layers [2]" in refusal.value.why


Edit = Callable[[dict[str, Any], dict[str, Tensor]], Any]


def item(**changes: Any) -> Edit:
    return lambda index, _tensors: index["items"][0].update(changes)


def vectors(change: Callable[[Tensor], Tensor]) -> Edit:
    return lambda _index, tensors: tensors.update(vectors_0=change(tensors["vectors_0"]))


ALTERED: dict[str, Edit] = {
    "list": lambda index, _: [index],
    "no items": lambda index, _: index.update(items=[]),
    "items missing": lambda index, _: index.pop("items"),
    "version": lambda index, _: index.update(version="1"),
    "item is a list": lambda index, _: index.update(items=[[]]),
    "beyond": item(positions=[0, 1, 9999]),
    "negative": item(positions=[0, 1, -1]),
    "floats": item(positions=[0.0, 1.0, 2.0]),
    "truth": item(positions=[False, True, 2]),
    "layers": item(layers=[1.5]),
    "huge": item(positions=[0, 1, 10**400]),
    "ids": lambda index, _: index["items"][0]["transcript"].update(token_ids=["a"] * 9),
    "spans": lambda index, _: index["items"][0]["transcript"].update(spans=[{"role": "a", "start": 0, "stop": 99}]),
    "end": lambda index, _: index["items"][0]["transcript"].update(end="never"),
    "provenance": item(provenance=None),
    "floor": item(noise_floor="low"),
    "width": vectors(lambda found: found[..., :0]),
    "int64": vectors(lambda found: found.long()),
    "bool": vectors(lambda found: found > 0),
    "float8": vectors(lambda found: found.to(torch.float8_e4m3fn)),
    "norms": lambda _, tensors: tensors.update(base_norms_0=torch.ones(7)),
}


@pytest.mark.parametrize("name", list(ALTERED))
def test_files_with_an_altered_index_are_refused(name, lm, tmp_path):
    path = capture(lm, "The philosopher drank tea.", 1, "first 3").save(tmp_path / "a.safetensors")
    with safe_open(path, framework="pt") as file:
        index = json.loads(file.metadata()["augury"])
    tensors = load_file(path)
    changed = ALTERED[name](index, tensors)
    header = json.dumps(changed if isinstance(changed, list) and name == "list" else index)
    save_file(tensors, path, metadata={"augury": header})
    with pytest.raises(FormatError):
        load(path)


@pytest.mark.parametrize("path", [".", "", "/", "~nobody-of-this-name/a"])
def test_where_no_file_can_be_is_refused(path):
    with pytest.raises(InputError):
        four().save(path)


def test_what_is_saved_is_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    os.umask(before)
    assert four().save(tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~before


@pytest.mark.parametrize("other", [5, None, torch.ones(4, 2)])
def test_only_activations_are_subtracted(other):
    for pair in ((four(), other), (other, four())):
        with pytest.raises(InputError, match="cannot be subtracted"):
            augury.diff(*pair)


@pytest.mark.parametrize(
    "acts",
    [
        Activations.from_tensor(torch.ones(2, 4), layers=-1),
        Activations.from_tensor(torch.ones(2, 4, dtype=torch.int64), layers=1),
        Activations.from_tensor(torch.ones(0, 4), layers=1),
        Activations.from_tensor(torch.ones(2, 2, 4), layers=(1, 1)),
    ],
    ids=["layer", "whole numbers", "empty", "twice"],
)
def test_what_could_not_be_read_again_is_not_saved(acts, tmp_path):
    with pytest.raises(InputError, match="cannot be saved"):
        acts.save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_numpys_numbers_name_layers_and_positions(lm):
    one, two = np.int64(1), np.int64(2)
    found = capture(lm, "The philosopher drank tea.", one, [one, two])
    assert found.layers == (1,) and found.positions == (1, 2)
    assert found.at_layers(one).layers == (1,) and capture(lm, "tea tea", 1, np.int64(0)).positions == (0,)
    assert Activations.from_tensor(torch.ones(2, 4), layers=one).layers == (1,)
    assert capture(lm, [np.int64(5), np.int64(6)], 1, "all").transcript.token_ids == (5, 6)
