"""Writing files: each is whole or as it was, and a disk that refuses is told plainly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from augury.errors import AuguryError, StorageError

ELSEWHERE = "free some space and go on, or choose another place; what was written before is whole"


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
        StorageError: The disk is full, or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with storing(path, instead):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
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
