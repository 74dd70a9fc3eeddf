"""Writing files: each is whole or as it was, and a disk that refuses is told plainly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from safetensors import SafetensorError

from augury.errors import AuguryError, InputError, StorageError

ELSEWHERE = "free some space and go on, or choose another place; what was written before is whole"


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~user` written out.

    Raises:
        InputError: There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path} is no path.", str(error), "write the folder out") from error


def needs_file_name(path: Path) -> None:
    """Refuse a folder where a file is to be written: said before the work whose result would have no place.

    Raises:
        InputError: It is a folder, or no name at all.
    """
    if not path.name or path.is_dir():
        raise InputError(f"{path} is a folder.", "a file is written here", "name a file in it")


@cache
def _umask() -> int:
    """What the process takes away from the permissions of new files; it can only be read by setting it."""
    found = os.umask(0o077)
    os.umask(found)
    return found


def open_up(path: Path) -> None:
    """Give a file or folder the permissions that this user's new ones have: safetensors and temporary folders are
    made for their owner alone, and others could not read what is shared."""
    path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())


@contextmanager
def storing(path: Path, instead: str = ELSEWHERE) -> Iterator[None]:
    """What the system or safetensors raises inside becomes one refusal that names `path`.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    try:
        yield
    except AuguryError:
        raise
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} could not be written.", str(error), instead) from error


@contextmanager
def replacing(path: Path, instead: str = ELSEWHERE) -> Iterator[Path]:
    """A place beside `path` to write to, renamed onto it at the end; after an error `path` is what it was.

    Raises:
        InputError: `path` is a folder.
        StorageError: The disk is full, or the folder cannot be written.
    """
    needs_file_name(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with storing(path, instead):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            open_up(partial)
            os.replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Put `text` into `path`, whole or not at all.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def locked(place: Path, busy: InputError) -> Iterator[None]:
    """Only one process works behind the lock file `place`; the lock goes with the process, however it ends.

    What holds it may take it again, so parts are safe alone and a caller can hold it around all of them.

    Raises:
        InputError: `busy`, where another process holds it.
        StorageError: Its folder cannot be written.
    """
    from filelock import FileLock, Timeout  # slow to import, and most verbs take no lock

    with storing(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place, timeout=0, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise busy from None
    try:
        yield
    finally:
        lock.release()
