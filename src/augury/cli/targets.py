"""Files that a verb writes: looked at before any work is done, and written by one process at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from augury.errors import InputError, StorageError
from augury.files import expanded, locked


def check_target(path: Path, option: str) -> None:
    """Refuse what cannot become a file, before the work whose result it is to hold.

    Raises:
        InputError: A folder, a pipe or a device, or a place below a file.
        StorageError: No right to write there.
    """
    path = expanded(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder.", f"{option} writes one file", f"name a file, such as {path}/NAME")
    if path.exists() and not path.is_file():
        why = f"it is a pipe or a device, and {option} needs a file that can be read again and replaced"
        raise InputError(f"{path} is no regular file.", why, "name a file, and read it afterwards")
    above = _nearest(path.parent)
    if not above.is_dir():
        raise InputError(f"{path} cannot be a file.", f"{above} is a file, not a folder", "name another place")
    if not os.access(path if path.exists() else above, os.W_OK):
        why = f"there is no right to write {'it' if path.exists() else f'to {above}'}"
        raise StorageError(f"{path} cannot be written.", why, "name another place, or change its rights")


def _nearest(folder: Path) -> Path:
    """The folder, or the lowest one above it that is there already."""
    return next((place for place in (folder, *folder.parents) if place.exists()), folder)


@contextmanager
def writing_alone(path: Path) -> Iterator[None]:
    """Only one process writes to `path`; the lock goes with the process, however it ends.

    Raises:
        InputError: Another process writes to it.
        StorageError: Its folder cannot be written.
    """
    whole = path.resolve()  # one lock for all names of the file
    why = "another process writes its results there and holds its lock"
    busy = InputError(f"{path} is being written already.", why, "wait for it, or name another OUT")
    with locked(whole.with_name(f".{whole.name}.lock"), busy):
        yield
