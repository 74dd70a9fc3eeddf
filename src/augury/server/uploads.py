"""Activations that a caller sends: safetensors and nothing else, looked at before anything is made of them."""

from __future__ import annotations

import json
import math
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from augury.activations import Activations
from augury.activations.store import load
from augury.errors import AuguryError, FormatError, InputError

SIZES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
LONGEST_HEADER = 2**18
MOST_NUMBER = 2**31
_TOLD = 300  # characters of what a file says of itself


def read_upload(body: bytes, d_model: int, layers: Sequence[Sequence[int]] | None, most: int) -> Activations:
    """The activations in a safetensors file that `Activations.save` wrote.

    The header alone is read first: a tensor of another width, dtype or size than the service takes is refused before it
    is made.

    Args:
        body: The file.
        d_model: Of the model that is served.
        layers: Layers that may be read; None: any.
        most: Activations, and tokens of their context, at most.

    Raises:
        FormatError: It is no such file.
        InputError: It holds several contexts, or values that cannot be injected.
    """
    for name, entry in _header(body).items():
        _check_tensor(name, entry, d_model, most)
    found = _loaded(body)
    if found.vectors.shape[-1] != d_model:
        raise _refused(f"its vectors are of shape {list(found.vectors.shape)}")
    if found.transcript is not None and len(found.transcript) > most:
        why = f"it has {len(found.transcript)} tokens, and {most} may be"
        raise InputError("The context of these activations is too long.", why, "send them of a shorter one")
    _check_layers(found, layers)
    norms = found.base_norms
    if not bool(found.vectors.isfinite().all()) or not (norms is None or bool((norms.isfinite() & (norms > 0)).all())):
        why, instead = "some of its values are not finite, or norms not above 0", "send what was captured, as it was"
        raise InputError("These activations cannot be injected.", why, instead)
    return found


def _header(body: bytes) -> dict[str, Any]:
    """The tensors that a file says it holds; its last one ends where the file does."""
    length = struct.unpack("<Q", body[:8])[0] if len(body) >= 8 else -1
    if not 2 <= length <= min(LONGEST_HEADER, len(body) - 8):
        raise _refused("it has no header of safetensors")
    try:
        header = json.loads(body[8 : 8 + length])
        header.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in header.values()]
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise _refused("its header is broken") from error
    if not ends or not all(_number(end) for end in ends) or max(ends) != len(body) - 8 - length:
        raise _refused("its tensors do not end where the file does")
    return header


def _check_tensor(name: str, entry: Any, d_model: int, most: int) -> None:
    shape, dtype, offsets = (entry.get(key) if isinstance(entry, dict) else None for key in _KEYS)
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise _refused(f"{_named(name)} is {_named(dtype)}, and {', '.join(SIZES)} are taken")
    if not (isinstance(shape, list) and 2 <= len(shape) <= 3 and all(_number(size) and size for size in shape)):
        raise _refused(f"the shape of {_named(name)} is {_named(shape)}")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(map(_number, offsets))):
        raise _refused(f"{_named(name)} has no place in it")
    if math.prod(shape) * SIZES[dtype] != offsets[1] - offsets[0]:
        raise _refused(f"{_named(name)} of shape {_named(shape)} does not fit its place")
    if len(shape) == 3 and shape[-1] != d_model:
        why = f"they are {shape[-1]} wide, and this service's model is {d_model}"
        raise InputError("These activations are of another model.", why, "send activations of the model that is served")
    if math.prod(shape[:2]) > most:
        why, instead = f"{math.prod(shape[:2])} were sent, and {most} may be", "send fewer positions or layers"
        raise InputError("These activations are too many.", why, instead)


_KEYS = ("shape", "dtype", "data_offsets")


def _number(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_NUMBER


def _loaded(body: bytes) -> Activations:
    """Through a file, as every other is read; a caller's own path never comes near it."""
    with tempfile.TemporaryDirectory(prefix="augury-") as folder:
        path = Path(folder) / "upload.safetensors"
        path.write_bytes(body)
        try:
            found = load(path)
        except AuguryError as error:
            raise _refused(error.why.replace(str(path), "it")[:_TOLD]) from error
    if not isinstance(found, Activations):
        raise InputError("Several contexts were sent.", f"the file holds {len(found)}", "send one at a time")
    return found


def _check_layers(found: Activations, layers: Sequence[Sequence[int]] | None) -> None:
    known = sorted({layer for group in layers or () for layer in group})
    if layers is not None and not set(found.layers) <= set(known):
        why = f"they are of the layers {list(found.layers)}, and the oracles here read {known}"
        raise InputError("No oracle here can read these activations.", why, "send activations of these layers")


def _named(value: Any) -> str:
    """What a file says of itself, cut: it may say anything."""
    return repr(value)[:80]


def _refused(why: str) -> FormatError:
    instead = "send a safetensors file that `Activations.save` or `augury capture -o` wrote"
    return FormatError("This upload holds no activations.", why, instead)
