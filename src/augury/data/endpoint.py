"""The one client of OpenAI-compatible endpoints: bounded concurrency, retries, and no request asked twice."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from augury.data.faults import no_reply, refusal
from augury.data.replies import Replies, key_of
from augury.data.requests import EndpointSettings, Reply, Request, Usage, parsed
from augury.errors import InputError
from augury.files import locked

T = TypeVar("T")
R = TypeVar("R")
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0


class Endpoint:
    """Asks an endpoint; may be used by several threads. `open_endpoint` makes one."""

    def __init__(self, settings: EndpointSettings, replies: Replies) -> None:
        self.settings, self._replies = settings, replies
        self._key = os.environ.get(settings.key_env or "") or None
        self._client = _client(settings, self._key)
        self._lock = Lock()
        self._asked: dict[str, Future[dict[str, Any]]] = {}
        self._usage = Usage(cost=0.0 if settings.prices else None)

    @property
    def usage(self) -> Usage:
        """What it was used for since it was opened."""
        return self._usage

    def ask(self, request: Request) -> Reply:
        """The reply to a request: the kept one, or a new one, which is kept.

        Raises:
            NetworkError: The endpoint is not there, refuses the key, or gives no reply after all retries.
            NotFoundError: It has no such model, or nothing at this address.
            InputError: It does not take the request.
            StorageError: The reply cannot be kept.
        """
        body = request.body(self.settings)
        raw = self._replies.get(body)
        if raw is None:
            raw = self._once(body)
        else:
            self._count(kept=1)
        return parsed(raw)

    def ask_all(self, requests: Iterable[Request]) -> Generator[Reply, None, None]:
        """The replies to requests, in their order, as many at a time as the settings say."""
        return self.each(self.ask, requests)

    def each(self, work: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        """`work` of each item, in their order, with `work` of several items at a time in threads.

        Where one fails, nothing more is begun, and what runs is finished, so that its replies are kept.
        """
        rest = iter(items)
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            running = deque(pool.submit(work, item) for item in islice(rest, 2 * self.settings.concurrency))
            try:
                while running:
                    found = running.popleft().result()
                    running.extend(pool.submit(work, item) for item in islice(rest, 1))
                    yield found
            finally:
                pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Close the connections and the file of replies."""
        self._client.close()
        self._replies.close()

    def _once(self, body: dict[str, Any]) -> dict[str, Any]:
        """Equal requests at the same time are asked once."""
        key = key_of(body)
        with self._lock:
            future = self._asked.get(key)
            mine = future is None
            if future is None:
                future = self._asked[key] = Future()
        if not mine:
            return future.result()
        try:
            raw = self._replies.get(body) or self._asked_now(body)
            future.set_result(raw)
            return raw
        except BaseException as error:
            future.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._asked[key]

    def _asked_now(self, body: dict[str, Any]) -> dict[str, Any]:
        raw = self._tried(body)
        self._replies.add(body, raw)
        found = parsed(raw)
        self._count(calls=1, prompt_tokens=found.prompt_tokens or 0, completion_tokens=found.completion_tokens or 0)
        return raw

    def _tried(self, body: dict[str, Any]) -> dict[str, Any]:
        """The library retries faults of the connection and of the server; what is no reply is retried here."""
        import openai

        sent = {name: value for name, value in body.items() if name not in ("model", "messages")}
        why = ""
        for number in range(self.settings.retries + 1):
            if number:
                time.sleep(min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (number - 1)))
            try:
                asked = self._client.chat.completions.with_raw_response
                found = asked.create(model=body["model"], messages=body["messages"], extra_body=sent)
                raw = json.loads(found.http_response.content)
                parsed(raw)
                return raw
            except openai.OpenAIError as error:
                told = f"{error} ({error.__cause__})" if error.__cause__ else str(error)
                why = self._hidden(told)  # and no cause: what the library raised may hold the key
                raise refusal(error, why, self.settings, self._key is not None, self._kept) from None
            except ValueError as error:
                why = self._hidden(str(error))
        raise no_reply(why, self.settings, self._kept)

    @property
    def _kept(self) -> str:
        return f"{len(self._replies)} replies are kept in {self._replies.path} and not asked for again"

    def _count(self, **more: int) -> None:
        with self._lock:
            now = {name: getattr(self._usage, name) + count for name, count in more.items()}
            self._usage = replace(self._usage, **now)
            if self.settings.prices:
                cost = self.settings.prices.cost(self._usage.prompt_tokens, self._usage.completion_tokens)
                self._usage = replace(self._usage, cost=cost)

    def _hidden(self, text: str) -> str:
        """Without the key, which some servers repeat."""
        return text.replace(self._key, "[key]")[:500] if self._key else text[:500]


@contextmanager
def open_endpoint(settings: EndpointSettings, replies: Path) -> Iterator[Endpoint]:
    """An endpoint whose replies are kept in a file, which no other process uses meanwhile.

    Args:
        settings: Which, and how it is asked.
        replies: The file, where the settings name none.

    Raises:
        InputError: The `openai` library is not installed, or another process uses the file.
        FormatError: The file holds what is no reply.
        StorageError: It cannot be written.
    """
    path = settings.replies or replies
    busy = InputError(f"{path} is in use.", "another process keeps replies in it", "wait for it, or name another file")
    with locked(path.with_name(f".{path.name}.lock"), busy):
        endpoint = Endpoint(settings, Replies(path))
        try:
            yield endpoint
        finally:
            endpoint.close()


def _client(settings: EndpointSettings, key: str | None) -> Any:
    try:
        import openai
    except ImportError as error:
        raise InputError(
            "No endpoint can be asked.", "the library openai is not installed", "pip install 'augury[train]'"
        ) from error
    return openai.OpenAI(
        base_url=settings.url,
        api_key=key or "none",  # the library insists on one
        max_retries=settings.retries,
        timeout=settings.timeout_s,
    )
