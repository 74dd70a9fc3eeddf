"""What every request passes before it is read: who calls, from where, how much; and what every reply carries."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from augury.errors import AuguryError
from augury.server.auth import LOCAL, Callers
from augury.server.limits import Limits
from augury.server.page import is_page
from augury.server.refused import foreseen
from augury.server.replies import headers_of, status_of

AUDIT = logging.getLogger("augury.audit")
HEALTH = "/health"  # whoever watches the service need not be let in
FREE = (HEALTH, "/v1/info", "/v1/openapi.json")  # cheap, and asked for by who waits for something else
UPLOAD = "/v1/activations"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


@dataclass(eq=False)
class Guard:
    """Outermost: no request gets past it unknown, from another page, too often, or larger than it may be.

    Attributes:
        app: What is guarded.
        callers: Who may call.
        limits: Bytes of a body.
        let_in: Entered for a caller's request before its body is read, and left when its reply, or its caller, has
            gone.
        hosts: Names under which this machine may be called; None: any, since a token is asked for.
    """

    app: ASGIApp
    callers: Callers
    limits: Limits
    let_in: Callable[[str], AbstractContextManager[None]]
    hosts: tuple[str, ...] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, or refuse."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, told = time.monotonic(), {"status": 0, "bytes": 0}
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        caller = "-"

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                own = list(message.get("headers", ()))
                known = {name for name, _ in own}
                message = {**message, "headers": [*own, *(row for row in HEADERS if row[0] not in known)]}
            else:
                told["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            with ExitStack() as stack:
                refused, caller = self._refused(scope, headers, stack)
                if refused is not None:
                    await _reply(answer, *refused)
                    return
                scope.setdefault("state", {})["caller"] = caller
                await self._through(scope, receive, answer, told)
        finally:
            _audit(scope, caller, told, time.monotonic() - began)

    def _refused(
        self, scope: Scope, headers: dict[bytes, str], stack: ExitStack
    ) -> tuple[tuple[int, AuguryError] | None, str]:
        """Why it is not let in, and who called; who is let in is so until the stack is left."""
        path, caller = scope["path"], LOCAL
        try:
            if path != HEALTH and not is_page(path):
                caller = self.callers.who(headers.get(b"authorization"))
        except AuguryError as error:
            return (401, error), "-"
        host = headers.get(b"host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            why = "it was called by a name that is not this machine's own"
            return (403, _no(why, f"call it as {self.hosts[0]}")), caller
        origin = headers.get(b"origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return (403, _no("another page's script called it", "open the service's own page")), caller
        length = headers.get(b"content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > self._most(scope):
            return (413, self._large(scope)), caller
        try:
            if path not in FREE and not is_page(path):
                stack.enter_context(self.let_in(caller))
        except AuguryError as error:
            return (status_of(error), error), caller
        return None, caller

    async def _through(self, scope: Scope, receive: Receive, answer: Send, told: dict[str, int]) -> None:
        """The body is counted as it comes: what is told of its length may be wrong, or missing."""
        read, most, large = 0, self._most(scope), False

        async def counted() -> Message:
            nonlocal read, large
            message = await receive()
            read += len(message.get("body", b""))
            large = large or read > most
            return {"type": "http.disconnect"} if large else message

        async def sent(message: Message) -> None:
            if not large:
                await answer(message)
            elif message["type"] == "http.response.start":  # of whatever the application made of half a body
                await _reply(answer, 413, self._large(scope))

        try:
            await self.app(scope, counted, sent)
        except Exception as error:
            if told["status"]:
                raise
            status, refusal = (413, self._large(scope)) if large else (500, foreseen(error))
            await _reply(answer, status, refusal)

    def _most(self, scope: Scope) -> int:
        return self.limits.upload_bytes if scope["path"] == UPLOAD else self.limits.body_bytes

    def _large(self, scope: Scope) -> AuguryError:
        why = f"at most {self._most(scope)} bytes are taken here"
        return AuguryError("The request is too large.", why, "send less at once")


def _name(host: str) -> str:
    """A host without its port."""
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host


def _no(why: str, instead: str) -> AuguryError:
    return AuguryError("The request was refused.", why, instead)


async def _reply(send: Send, status: int, error: AuguryError) -> None:
    body = json.dumps(error.as_dict()).encode()
    own = {"content-type": "application/json", "content-length": str(len(body)), **headers_of(error)}
    headers = [(name.encode(), value.encode()) for name, value in own.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _audit(scope: Scope, caller: str, told: dict[str, int], seconds: float) -> None:
    """One line: who, what, how it ended; never a query, a header, a body or a handle."""
    path = f"{UPLOAD}/..." if scope["path"].startswith(f"{UPLOAD}/") else scope["path"][:200]
    known = {"caller": caller, "method": scope["method"], "path": path, **told}
    AUDIT.info(json.dumps({**known, "ms": round(1000 * seconds)}))
