"""Which models and which oracle a row of results came from: by what the files hold, not by where they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

from augury.cli.options import SHIPPED, ModelOptions, OracleOptions
from augury.cli.sources import oracle_name
from augury.files import expanded

# Of a larger file size and time are taken: reading it would take as long as loading the model.
WHOLE_BYTES = 1 << 28
_KINDS = (".safetensors", ".json", ".jinja", ".model", ".txt")  # weights, settings, tokenizers, templates


def fingerprints(models: ModelOptions, oracles: OracleOptions) -> dict[str, str]:
    """A fingerprint for everything that was named and is a folder, the oracle always.

    A model named by its hub id has none: its files may not be here before it is loaded.

    Raises:
        InputError: No oracle was named for a model that has none of its own.
        NotFoundError: There is no such oracle.
        NetworkError: The oracle is on the hub, which cannot be reached.
    """
    named = {"model": models.model, "adapter": models.adapter, "target": oracles.target}
    folders = {what: expanded(name) for what, name in named.items() if name not in (None, SHIPPED)}
    folders = {what: folder for what, folder in folders.items() if folder.is_dir()}
    folders["oracle"] = _oracle_folder(oracle_name(models, oracles))
    return {what: folder_fingerprint(folder) for what, folder in folders.items()}


def _oracle_folder(name: str) -> Path:
    folder = expanded(name)
    if name != SHIPPED and folder.is_dir():
        return folder  # without importing torch, so that a finished run is told at once
    from augury.oracle.hub import find_oracle

    return find_oracle(name)


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over the weights and settings in a folder: of each file its name and content."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _KINDS and path.is_file()):
        digest.update(f"{path.name}\0{_content(path)}\n".encode())
    return digest.hexdigest()


def _content(path: Path) -> str:
    state = path.stat()
    if state.st_size > WHOLE_BYTES:
        return f"{state.st_size} {state.st_mtime_ns}"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
