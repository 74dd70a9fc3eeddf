"""Writing files: whole or as they were, with the rights that they should have, and one process at a time."""

from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from augury.errors import InputError, StorageError
from augury.files import expanded, locked, open_up, replacing, write_text

BUSY = InputError("It is busy.", "another holds it", "wait")


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_new_files_have_the_rights_that_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    code = (
        "import sys; from pathlib import Path; from augury.files import open_up, write_text\n"
        "here = Path(sys.argv[1]); write_text(here / 'text', 'a')\n"
        "(here / 'folder').mkdir(0o700); open_up(here / 'folder')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], umask=umask, check=True)
    assert rights(tmp_path / "text") == 0o666 & ~umask and rights(tmp_path / "folder") == 0o777 & ~umask
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "text"]


def test_what_was_private_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "acts"
    write_text(path, "old")
    path.chmod(0o600)
    write_text(path, "new")
    assert path.read_text() == "new" and rights(path) == 0o600


def test_rights_that_may_not_be_changed_are_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a mounted FAT or a share of another user's."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(Path, "chmod", refuse)
    write_text(tmp_path / "a", "first")
    write_text(tmp_path / "a", "second")
    open_up(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "second" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "old")
    with pytest.raises(StorageError, match="could not be written"), replacing(path) as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old" and [found.name for found in tmp_path.iterdir()] == ["a"]


def test_a_user_that_is_none_is_told() -> None:
    with pytest.raises(InputError, match="no path"):
        expanded("~nobody-of-this-name/a")


def test_a_held_lock_is_told_and_may_be_taken_again_by_its_holder(tmp_path: Path) -> None:
    place = tmp_path / "made" / ".lock"
    with locked(place, BUSY), locked(place, BUSY):
        held = FileLock(place, timeout=0)
        with pytest.raises(TimeoutError):
            held.acquire()
    with FileLock(place), pytest.raises(InputError, match="busy"), locked(place, BUSY):
        pytest.fail("two hold it")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EACCES])
def test_where_there_are_no_locks_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def refuse(self: FileLock) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with caplog.at_level(logging.WARNING), locked(tmp_path / ".lock", BUSY):
        (tmp_path / "written").touch()
    assert "cannot be locked" in caplog.text


def test_a_full_disk_is_no_missing_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileLock) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(StorageError, match="could not be written"), locked(tmp_path / ".lock", BUSY):
        pytest.fail("it was entered")
