"""Fetch a published oracle, check it, and lay it where it is wanted."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from augury.contract import Contract, read_contract
from augury.errors import ContractError, InputError
from augury.files import expanded, open_up, storing
from augury.lm.adapter_files import check_adapter_files
from augury.oracle.hub import EXTRAS, FILES, check_repository, fetch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pulled:
    """A fetched oracle.

    Attributes:
        repository: `owner/name`.
        folder: Where it lies.
        commit: The commit that it is of.
        files: The names of its files and their sizes in bytes.
        contract: What it carries; None for an adapter that carries none that can be read by itself.
        notes: What a user should know of it.
    """

    repository: str
    folder: Path
    commit: str
    files: dict[str, int]
    contract: Contract | None
    notes: tuple[str, ...] = ()


def pull(repository: str, folder: str | Path | None = None, revision: str | None = None) -> Pulled:
    """Fetch an oracle with its report and recipe; it is checked before it is put anywhere.

    Args:
        repository: `owner/name`.
        folder: A new or empty folder for a copy; without it the oracle stays in the hub's cache.
        revision: A branch, tag or commit.

    Raises:
        InputError: No repository's name, or a folder that is not empty.
        NotFoundError: The hub does not know it, or it has no adapter.
        FormatError: A file that cannot be used.
        ContractError: A kind of adapter that is never loaded.
        ModelError: The adapter changes nothing.
        NetworkError: The hub cannot be reached and the cache does not have it.
        StorageError: The folder cannot be written.
    """
    check_repository(repository)
    goal = expanded(folder) if folder is not None else None
    if goal is not None:
        _check_empty(goal)
    cached = fetch(repository, revision, EXTRAS)
    contract, notes = _checked(cached, repository)
    names = [name for name in (*FILES, *EXTRAS) if (cached / name).is_file()]
    if goal is not None:
        _lay(cached, names, goal)
    sizes = {name: (cached / name).stat().st_size for name in names}
    return Pulled(repository, goal or cached, cached.name, sizes, contract, notes)


def _check_empty(folder: Path) -> None:
    if folder.is_dir():
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not replaced.", "it is not empty", "name a new folder")
    elif folder.exists() or folder.is_symlink():
        raise InputError(f"{folder} is a file.", "an oracle is a folder", "name a new folder")


def _checked(folder: Path, repository: str) -> tuple[Contract | None, tuple[str, ...]]:
    files = check_adapter_files(folder)
    try:
        return read_contract(folder, files.config, repository=repository), ()
    except ContractError as error:  # it can be loaded with a contract that its user states
        log.debug("%s: %s", repository, error)
        return None, (error.brief(),)


def _lay(cached: Path, names: list[str], folder: Path) -> None:
    """Copy beside the folder's place and rename, so that it is whole or not there.

    A folder that is there already may be a mount, or where somebody works: it stays, and the files are moved in.
    """
    with storing(folder):
        parent = folder if folder.is_dir() else folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=parent, prefix=f".{folder.name}.partial-"))
        try:
            open_up(partial)
            for name in names:
                shutil.copyfile(
                    cached / name, partial / name
                )  # the cache has links, and these have rights of their own
            if parent == folder:
                for name in names:
                    os.replace(partial / name, folder / name)
            else:
                os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
