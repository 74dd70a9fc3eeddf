"""Uploads: what `save` wrote comes back, and nothing else is let in, whatever it claims of itself."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as plain_save

from augury.activations import Activations, Provenance
from augury.activations.store import save
from augury.errors import AuguryError, FormatError, InputError
from augury.lm import Transcript
from augury.server.uploads import read_upload

WIDTH, LAYERS, MOST = 8, [[3], [4, 5]], 64


def acts(layers=(3,), positions=3, width=WIDTH) -> Activations:
    return Activations(torch.randn(len(layers), positions, width), tuple(layers), tuple(range(positions)),
                       None, Provenance(None))  # fmt: skip


def file_of(tmp_path, given) -> bytes:
    return save(given, tmp_path / "a.safetensors").read_bytes()


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    return file_of(tmp_path_factory.mktemp("good"), acts())


def forged(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape=(1, 2, WIDTH), dtype="F32", offsets=None) -> dict:
    size = 4
    for n in shape:
        size *= n
    return {"dtype": dtype, "shape": list(shape), "data_offsets": offsets or [0, size]}


def test_what_was_saved_comes_back(tmp_path):
    given = acts((4, 5), 2)
    found = read_upload(file_of(tmp_path, given), WIDTH, LAYERS, MOST)
    assert torch.equal(found.vectors, given.vectors) and found.layers == (4, 5)
    assert read_upload(file_of(tmp_path, acts((9,))), WIDTH, None, MOST).layers == (9,)


def test_what_no_oracle_here_can_read_is_told(tmp_path):
    with pytest.raises(InputError, match="layers"):
        read_upload(file_of(tmp_path, acts((7,))), WIDTH, LAYERS, MOST)
    with pytest.raises(InputError, match="another model"):
        read_upload(file_of(tmp_path, acts(width=16)), WIDTH, LAYERS, MOST)
    with pytest.raises(InputError, match="too many"):
        read_upload(file_of(tmp_path, acts(positions=65)), WIDTH, LAYERS, MOST)
    with pytest.raises(InputError, match="Several contexts"):
        read_upload(file_of(tmp_path, [acts(), acts()]), WIDTH, LAYERS, MOST)
    broken = acts()
    broken.vectors[0, 1, 2] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        read_upload(file_of(tmp_path, broken), WIDTH, LAYERS, MOST)


@pytest.mark.parametrize("norm", [float("nan"), float("inf"), 0.0, -1.0])
def test_norms_that_no_capture_gives_are_refused(tmp_path, norm):
    """What a difference is compared with: a norm of nothing would let noise pass as a change."""
    norms = torch.ones(1, 3)
    fine = read_upload(file_of(tmp_path, replace(acts(), base_norms=norms)), WIDTH, LAYERS, MOST)
    assert fine.base_norms is not None and torch.equal(fine.base_norms, norms)
    norms[0, 1] = norm
    with pytest.raises(InputError, match="not above 0"):
        read_upload(file_of(tmp_path, replace(acts(), base_norms=norms)), WIDTH, LAYERS, MOST)


def test_a_context_that_is_longer_than_any_that_is_taken_is_refused(tmp_path):
    """Its tokens stand in the header, which the tensors' limits do not reach."""
    given = Activations(torch.randn(1, 2, WIDTH), (3,), (0, 1), Transcript((0,) * (MOST + 1)), Provenance(None))
    with pytest.raises(InputError, match="too long"):
        read_upload(file_of(tmp_path, given), WIDTH, LAYERS, MOST)
    given = Activations(torch.randn(1, 2, WIDTH), (3,), (0, 1), Transcript((0,) * 200_000), Provenance(None))
    with pytest.raises(FormatError, match="no header"):
        read_upload(file_of(tmp_path, given), WIDTH, LAYERS, 10**6)


class Evil:
    def __reduce__(self):
        raise AssertionError("unpickled")


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"\0" * 10**7)
    return out.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\0" * 8, b"\xff" * 64, pickle.dumps({"vectors_0": [1, 2]}), zipped(),
        forged([]), forged({}), forged(b"{" * 5000), forged(b"[" * 200_000), forged(b"nonsense"), forged(None),
        forged({"vectors_0": 3}), forged({"vectors_0": {}}), forged({"vectors_0": tensor()}),
        forged({"vectors_0": tensor((1, 10**9, WIDTH))}), forged({"vectors_0": tensor((1, 2**40, WIDTH))}),
        forged({"vectors_0": tensor(offsets=[-64, 64])}, b"\0" * 64), forged({"vectors_0": tensor(offsets=[64, 0])}),
        forged({"vectors_0": tensor(offsets=[0, 10**12])}, b"\0" * 64),
        forged({"vectors_0": tensor((1, -2, -WIDTH))}, b"\0" * 64), forged({"vectors_0": tensor((1, 0, WIDTH))}),
        forged({"vectors_0": tensor(dtype="I64")}, b"\0" * 128),
        forged({"vectors_0": tensor(dtype=["F32"])}, b"\0" * 64),
        forged({"vectors_0": {**tensor(), "shape": [1.0, 2, WIDTH]}}, b"\0" * 64),
        forged({"vectors_0": {**tensor(), "shape": [True, 2, WIDTH]}}, b"\0" * 64),
        forged({"vectors_0": tensor()}, b"\0" * 64),
        forged({"__metadata__": {"augury": "[" * 10**5}, "vectors_0": tensor()}, b"\0" * 64),
        plain_save({"vectors_0": torch.zeros(1, 2, WIDTH)}), plain_save({"weights": torch.zeros(2, WIDTH)}),
        plain_save({"vectors_0": torch.zeros(2, WIDTH)}, {"augury": "{}"}),
    ],
    ids=range(30),
)  # fmt: skip
def test_what_is_none_is_refused(body):
    with pytest.raises(FormatError, match="holds no activations"):
        read_upload(body, WIDTH, LAYERS, MOST)


def test_a_claim_of_much_takes_no_memory():
    tracemalloc.start()
    try:
        for shape in ((1, 2**30, WIDTH), (2**20, 2**10, WIDTH)):
            with pytest.raises(AuguryError):
                read_upload(forged({"vectors_0": tensor(shape)}, b"\0" * 64), WIDTH, LAYERS, MOST)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_is_still_whole(good, data):
    """Cut, changed and lengthened at random: never another error, never values of another shape."""
    body = bytearray(good)
    how = data.draw(st.sampled_from(["cut", "flip", "grow", "splice"]))
    at = data.draw(st.integers(0, len(body) - 1))
    if how == "cut":
        body = body[:at]
    elif how == "flip":
        for place in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=4)):
            body[place] ^= data.draw(st.integers(1, 255))
    elif how == "grow":
        body[at:at] = data.draw(st.binary(max_size=64))
    else:
        body[at : at + 16] = data.draw(st.binary(min_size=16, max_size=16))
    try:
        found = read_upload(bytes(body), WIDTH, LAYERS, MOST)
    except (FormatError, InputError) as error:
        assert "upload.safetensors" not in str(error) and len(str(error)) < 600, "no path of the service's is told"
    else:
        assert found.vectors.shape[-1] == WIDTH and found.vectors.numel() <= MOST * WIDTH
        assert bool(found.vectors.isfinite().all())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_nothing_at_random_is_let_in(body):
    with pytest.raises((FormatError, InputError)):
        read_upload(body, WIDTH, LAYERS, MOST)
