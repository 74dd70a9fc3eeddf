"""Every raw reply of an endpoint, in a file that is only added to, so that nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from errno import ENOSPC
from pathlib import Path
from threading import Lock
from typing import Any

from augury.errors import FormatError
from augury.files import storing


def key_of(request: Mapping[str, Any]) -> str:
    """SHA-256 of a request: all that is sent, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Replies:
    """A JSONL file of requests and replies, looked up by request; only places in it are kept in memory.

    A last line without an end is what a killed process left: it is cut off, and its request asked again.

    Args:
        path: The file; it is made where it is not there.

    Raises:
        FormatError: A line before the last is no reply.
        StorageError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._out = path.open("ab", buffering=0)
            self._file = path.open("rb")
        self._places: dict[str, int] = {}
        self._end = self._read()

    def __len__(self) -> int:
        return len(self._places)

    def get(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The reply to a request; None where it was not asked yet."""
        place = self._places.get(key_of(request))
        if place is None:
            return None
        with self._lock:
            self._file.seek(place)
            return json.loads(self._file.readline())["reply"]

    def add(self, request: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Keep a reply; once this returns it outlives the process.

        Raises:
            StorageError: The disk is full; the replies before are whole.
        """
        key = key_of(request)
        line = json.dumps({"key": key, "request": request, "reply": reply}, ensure_ascii=False) + "\n"
        with self._lock, storing(self.path):
            self._write(line.encode())
            self._places[key], self._end = self._end, self._end + len(line.encode())

    def close(self) -> None:
        """Close the file."""
        self._out.close()
        self._file.close()

    def _write(self, line: bytes) -> None:
        """All of a line or nothing: what would follow half a line could not be read again."""
        try:
            if self._out.write(line) != len(line):
                raise OSError(ENOSPC, os.strerror(ENOSPC))
        except OSError:
            self._out.truncate(self._end)
            raise

    def _read(self) -> int:
        self._file.seek(0)
        place = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                with storing(self.path):
                    self._out.truncate(place)
                break
            self._places[self._key(number, line)] = place
            place += len(line)
        return place

    def _key(self, number: int, line: bytes) -> str:
        try:
            found = json.loads(line)
            key, right = found["key"], key_of(found["request"])
            if not isinstance(found["reply"], dict) or key != right:
                raise ValueError("its key is not that of its request, or its reply is no object")
        except (ValueError, KeyError, TypeError) as error:
            self.close()
            what = f"Line {number} of {self.path} is no reply of an endpoint."
            raise FormatError(what, str(error), "remove this line: its request will be asked again") from error
        return key
