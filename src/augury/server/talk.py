"""HTTP to a service: asked again where it is busy, its refusals raised as the errors that they were there."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

from augury import errors
from augury.errors import AuguryError, NetworkError
from augury.server import refused

RETRIED = (429, 502, 503)  # 502: a proxy whose service is being started again
LONGEST_WAIT = 30.0

_CLASSES = {
    kind.code: kind
    for room in (errors, refused)
    for kind in vars(room).values()
    if isinstance(kind, type) and issubclass(kind, AuguryError)
}


class Talk:
    """A connection to a service.

    Args:
        url: Where it is.
        token: For services that ask for one.
        timeout: Seconds for a reply.
        retries: How often it is asked again where it is busy.
    """

    def __init__(self, url: str, token: str | None, timeout: float, retries: int) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self.url, self.retries = url, retries
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=timeout)

    def call(self, method: str, path: str, **body: Any) -> httpx2.Response:
        """A reply, whole.

        Raises:
            AuguryError: What the service refused, and `NetworkError` where it cannot be reached.
        """
        with self._replied(method, path, body) as reply:
            reply.read()
            return reply

    def post(self, path: str, **body: Any) -> Any:
        """The JSON of a reply."""
        return self.call("POST", path, **body).json()

    def events(self, path: str, body: Any) -> Iterator[tuple[str, Any]]:
        """The server-sent events of a stream, by name, as they come; errors as in `call`."""
        with self._replied("POST", path, {"json": body}) as reply:
            name = ""
            for line in reply.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    row = json.loads(line.removeprefix("data: "))
                    if name == "error":
                        raise _refusal(row)
                    yield name, row

    def close(self) -> None:
        """End it."""
        self._http.close()

    @contextmanager
    def _replied(self, method: str, path: str, body: Mapping[str, Any]) -> Iterator[httpx2.Response]:
        """A reply that is no refusal, its body not read yet; a busy service is asked again as late as it says."""
        try:
            for tried in itertools.count():
                with self._http.stream(method, path, **body) as reply:
                    if reply.is_success:
                        yield reply
                        return
                    reply.read()
                if reply.status_code not in RETRIED or tried >= self.retries:
                    raise _error(reply)
                told = reply.headers.get("retry-after", "")
                time.sleep(min(LONGEST_WAIT, float(told) if re.fullmatch(r"[0-9.]+", told) else 2.0**tried))
        except httpx2.HTTPError as error:
            why = f"{type(error).__name__}: {error}"[:300]
            instead = "check the address, and whether the service runs"
            raise NetworkError(f"{self.url} gives no reply.", why, instead) from error


def _error(reply: httpx2.Response) -> AuguryError:
    """The service's refusal as the error that it was there."""
    try:
        return _refusal(reply.json())
    except (ValueError, TypeError, KeyError):
        why = f"it answered with status {reply.status_code} and no words of augury's"
        return NetworkError("This is no service of augury.", why, "check the address, and what stands before it")


def _refusal(row: Mapping[str, Any]) -> AuguryError:
    kind = _CLASSES.get(row["code"], AuguryError)
    return kind(str(row["what"]), str(row["why"]), str(row["instead"]))
