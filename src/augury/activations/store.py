"""Activations on disk: one safetensors file, its index as JSON in the header, written whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file
from torch import Tensor

from augury.activations.types import Activations, Provenance
from augury.contract import ModelIdentity
from augury.errors import AuguryError, FormatError, InputError, NotFoundError
from augury.files import expanded, needs_file_name, replacing
from augury.lm import Message, Span, Transcript
from augury.lm.chat import ENDS

FORMAT = "augury-activations"
VERSION = 1
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FRAME = 128  # a safetensors file's own header of one tensor


def save(activations: Activations | Sequence[Activations], path: str | Path) -> Path:
    """Write activations of one context, or of several, to a safetensors file.

    Raises:
        InputError: Nothing to write, what could not be read again, or a folder's name.
        StorageError: The file cannot be written; nothing partial is left, and an older file stays.
    """
    items = [activations] if isinstance(activations, Activations) else list(activations)
    if not items:
        raise InputError("There is nothing to save.", "the list of activations is empty", "capture something first")
    path = expanded(path)
    needs_file_name(path)
    for item in items:
        _check_before(item)
    tensors = _tensors(items)
    metadata = {"augury": _header(items, isinstance(activations, Activations))}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata=metadata)
    return path


def dump(activations: Activations) -> bytes:
    """What `save` writes, as bytes.

    Raises:
        InputError: What could not be read again.
    """
    _check_before(activations)
    return to_bytes(_tensors([activations]), {"augury": _header([activations], True)})


def _check_before(item: Activations) -> None:
    """Refuse what `load` would call broken."""
    try:
        _whole(list(item.layers), "layers")
        _whole(list(item.positions), "positions")
        _checked(item)
    except ValueError as error:
        instead = "save floating-point rows of layers from 0, each once"
        raise InputError("These activations cannot be saved.", str(error), instead) from error


def _tensors(items: Sequence[Activations]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for i, item in enumerate(items):
        for name, tensor in ((f"vectors_{i}", item.vectors), (f"base_norms_{i}", item.base_norms)):
            if tensor is None:
                continue
            plain = tensor.detach().contiguous()
            storage = plain.untyped_storage().data_ptr()
            found[name] = plain.clone() if storage in seen else plain  # safetensors refuses shared memory
            seen.add(storage)
    return found


def saved_bytes(activations: Activations) -> int:
    """About how many bytes `save` writes for one context; its vectors may be on the meta device, not captured yet."""
    header = len(json.dumps(_header([activations], True)))  # a text inside the file's own JSON
    return header + _FRAME + activations.vectors.numel() * activations.vectors.element_size()


def _header(items: Sequence[Activations], single: bool) -> str:
    entries = [_index(item) for item in items]
    return json.dumps({"format": FORMAT, "version": VERSION, "single": single, "items": entries})


def load(path: str | Path) -> Any:
    """Read what `save` wrote: `Activations`, or a list of them where a list was saved.

    Raises:
        NotFoundError: No such file.
        FormatError: A pickle, a truncated file, or no file of ours.
    """
    path = expanded(path)
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.", "nothing lies there", "check the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("augury")
            if header is None:
                raise _foreign(path, "its header has no index of ours")
            index = json.loads(header)
            if not isinstance(index, dict):
                raise _foreign(path, f"its index is a {type(index).__name__}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise _foreign(path, f"it is a pickle, or cut off: {error}") from error
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, FormatError) else _foreign(path, f"its index is broken: {error}") from error
    _check_version(path, index)
    return _items(path, index, tensors)


def _items(path: Path, index: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    try:
        items = [_item(entry, i, tensors) for i, entry in enumerate(index["items"])]
        single = index["single"]
        _hold(bool(items) and (not single or len(items) == 1), f"it holds {len(items)} contexts")
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        why = error.why if isinstance(error, AuguryError) else f"{type(error).__name__}: {error}"
        raise _foreign(path, f"its index does not fit what it holds ({why})") from error
    return items[0] if single else items


def _foreign(path: Path, why: str) -> FormatError:
    return FormatError(
        f"{path} holds no activations.", why, "pass a file that `augury capture -o` or `Activations.save` wrote"
    )


def _check_version(path: Path, index: dict[str, Any]) -> None:
    version = index.get("version")
    if index.get("format") != FORMAT or not isinstance(version, int) or version > VERSION:
        raise FormatError(
            f"{path} is of another form.",
            f"it is {index.get('format')} version {index.get('version')}, and version {VERSION} is read here",
            "use the release of augury that wrote it, or a newer one",
        )


def _index(item: Activations) -> dict[str, Any]:
    provenance = item.provenance
    return {
        "layers": item.layers,
        "positions": item.positions,
        "transcript": None if item.transcript is None else asdict(item.transcript),
        "noise_floor": item.noise_floor,
        "versions": dict(provenance.versions),  # beside the provenance, whose fields older readers take as they are
        "provenance": {
            "model": None if provenance.model is None else provenance.model.model_dump(mode="json"),
            "adapters": provenance.adapters,
            "dtype": provenance.dtype,
            "created": provenance.created,
            "kind": provenance.kind,
        },
    }


def _item(entry: dict[str, Any], i: int, tensors: dict[str, Tensor]) -> Activations:
    known = dict(entry["provenance"])
    identity = None if known["model"] is None else ModelIdentity(**known["model"])
    changed = {"model": identity, "adapters": tuple(known["adapters"]), "versions": entry.get("versions", {})}
    provenance = Provenance(**{**known, **changed})
    return _checked(
        Activations(
            vectors=tensors[f"vectors_{i}"],
            layers=_whole(entry["layers"], "layers"),
            positions=_whole(entry["positions"], "positions"),
            transcript=_transcript(entry["transcript"]),
            provenance=provenance,
            base_norms=tensors.get(f"base_norms_{i}"),
            noise_floor=entry["noise_floor"],
        )
    )


def _checked(item: Activations) -> Activations:
    """What an index may get wrong about its tensors: all that would fail later, or select other tokens."""
    _hold(item.vectors.dtype in _DTYPES, f"its vectors are {item.vectors.dtype}")
    _hold(0 not in item.vectors.shape, f"its vectors are {list(item.vectors.shape)}")
    _hold(len(set(item.layers)) == len(item.layers), f"layers {item.layers}")
    norms, floor = item.base_norms, item.noise_floor
    _hold(norms is None or (norms.shape == item.vectors.shape[:2] and norms.dtype in _DTYPES), "norms of another shape")
    _hold(floor is None or (isinstance(floor, (int, float)) and math.isfinite(floor)), f"noise floor {floor!r}")
    if item.transcript is not None:
        length = len(item.transcript)
        _hold(max(item.positions) < length, f"position {max(item.positions)} of a context of {length} tokens")
    return item


def _whole(values: Any, name: str) -> tuple[int, ...]:
    """Indices: whole numbers from 0."""
    fine = isinstance(values, list) and all(type(value) is int and 0 <= value < 2**31 for value in values)
    _hold(fine, f"{name} {values!r:.60}")
    return tuple(values)


def _hold(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _transcript(entry: dict[str, Any] | None) -> Transcript | None:
    if entry is None:
        return None
    ids = _whole(entry["token_ids"], "token ids")
    spans = tuple(Span(**span) for span in entry["spans"])
    _hold(all(0 <= span.start <= span.stop <= len(ids) for span in spans), "turns outside the context")
    messages = tuple(Message(**message) for message in entry["messages"])
    _hold(all(isinstance(text, str) for m in messages for text in (m.role, m.content)), "messages that are no text")
    end = entry["end"]
    _hold(end is None or end in ENDS, f"ending {end!r}")
    return Transcript(ids, spans, messages, end, entry["model"])
