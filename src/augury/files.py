"""Writing files: each is whole or as it was, and a disk that refuses is told plainly."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident

from safetensors import SafetensorError

from augury.errors import AuguryError, InputError, StorageError

log = logging.getLogger(__name__)

# What a file system says that has no locks, or a folder in which only some files may be written.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EROFS}
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


def beside(path: Path, kind: str) -> Path:
    """A hidden name beside `path` that no other process or thread uses."""
    return path.with_name(f".{path.name}.{kind}-{os.getpid()}-{get_ident()}")


def open_up(path: Path) -> None:
    """Give a file or folder the permissions that new ones have there: safetensors and temporary folders are made for
    their owner alone, and others could not read what is shared. Where that is not allowed, they stay as they are."""
    probe = beside(path, "mode")
    with suppress(OSError):
        if path.is_dir():
            probe.mkdir()
        else:
            probe.touch()
        try:
            shutil.copymode(probe, path)
        finally:
            if path.is_dir():
                probe.rmdir()
            else:
                probe.unlink()


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
    partial = beside(path, "partial")
    with storing(path, instead):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            _same_rights(path, partial)
            os.replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _same_rights(path: Path, partial: Path) -> None:
    """What was private stays so when it is replaced."""
    if path.exists():
        with suppress(OSError):
            shutil.copymode(path, partial)
    else:
        open_up(partial)


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

    What holds it may take it again, so parts are safe alone and a caller can hold it around all of them. Where there
    are no locks, that is logged and the work goes on without.

    Raises:
        InputError: `busy`, where another process (or thread) holds it.
        StorageError: Its folder cannot be made.
    """
    from filelock import FileLock, Timeout  # slow to import, and most verbs take no lock

    with storing(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place, timeout=0, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise busy from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            log.warning("%s cannot be locked (%s): see to it that nothing else writes there", place.parent, error)
    try:
        yield
    finally:
        lock.release()
