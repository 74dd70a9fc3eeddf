"""Activations on disk: one safetensors file, its index as JSON in the header, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from augury.activations.types import Activations, Provenance
from augury.contract import ModelIdentity
from augury.errors import FormatError, InputError, NotFoundError
from augury.files import replacing
from augury.lm import Message, Span, Transcript

FORMAT = "augury-activations"
VERSION = 1
_FRAME = 128  # a safetensors file's own header of one tensor


def save(activations: Activations | Sequence[Activations], path: str | Path) -> Path:
    """Write activations of one context, or of several, to a safetensors file.

    Raises:
        InputError: Nothing to write.
        StorageError: The file cannot be written; nothing partial is left, and an older file stays.
    """
    items = [activations] if isinstance(activations, Activations) else list(activations)
    if not items:
        raise InputError("There is nothing to save.", "the list of activations is empty", "capture something first")
    path = Path(path).expanduser()
    tensors = _tensors(items)
    metadata = {"augury": _header(items, isinstance(activations, Activations))}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata=metadata)
    return path


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
    path = Path(path).expanduser()
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.", "nothing lies there", "check the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("augury")
            if header is None:
                raise _foreign(path, "its header has no index of ours")
            index = json.loads(header)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        _check_version(path, index)
        items = [_item(entry, i, tensors) for i, entry in enumerate(index["items"])]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise _foreign(path, f"it is a pickle, or cut off: {error}") from error
    return items[0] if index["single"] else items


def _foreign(path: Path, why: str) -> FormatError:
    return FormatError(
        f"{path} holds no activations.", why, "pass a file that `augury capture -o` or `Activations.save` wrote"
    )


def _check_version(path: Path, index: dict[str, Any]) -> None:
    if index.get("format") != FORMAT or index.get("version", 0) > VERSION:
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
    return Activations(
        vectors=tensors[f"vectors_{i}"],
        layers=tuple(entry["layers"]),
        positions=tuple(entry["positions"]),
        transcript=_transcript(entry["transcript"]),
        provenance=provenance,
        base_norms=tensors.get(f"base_norms_{i}"),
        noise_floor=entry["noise_floor"],
    )


def _transcript(entry: dict[str, Any] | None) -> Transcript | None:
    if entry is None:
        return None
    return Transcript(
        tuple(entry["token_ids"]),
        tuple(Span(**span) for span in entry["spans"]),
        tuple(Message(**message) for message in entry["messages"]),
        entry["end"],
        entry["model"],
    )
