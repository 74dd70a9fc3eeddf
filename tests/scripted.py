"""An endpoint on this machine that answers and fails as it is told, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Fault:
    """A reply that is none: a status with a body, or (`drop`) a connection that ends in the middle of one."""

    status: int = 200
    body: str = '{"error": {"message": "told to fail"}}'
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    wait_s: float = 0.0


def completion(text: str, finish: str = "stop", prompt_tokens: int = 10, **choice: Any) -> dict[str, Any]:
    """A chat completion."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(text.split())}
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish, **choice}], "usage": usage}


class Scripted:
    """What the server was asked, and what it will answer: the faults first, one a request."""

    def __init__(self, answer: Callable[[dict[str, Any]], Any]) -> None:
        self.answer = answer
        self.faults: deque[Fault] = deque()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.url = ""

    def handle(self, body: dict[str, Any], headers: dict[str, str]) -> Fault:
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            if self.faults:
                return self.faults.popleft()
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            found = self.answer(body)
        finally:
            with self.lock:
                self.at_once -= 1
        return found if isinstance(found, Fault) else Fault(body=json.dumps(found))


@contextmanager
def scripted(answer: Callable[[dict[str, Any]], Any] = lambda body: completion("fine")) -> Iterator[Scripted]:
    """A server that lives as long as the block."""
    script = Scripted(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = script.handle(body, {name.lower(): value for name, value in self.headers.items()})
            time.sleep(said.wait_s)
            try:
                self._send(said)
            except OSError:  # the client has gone
                self.close_connection = True

        def _send(self, said: Fault) -> None:
            sent = said.body.encode()
            self.send_response(said.status)
            for name, value in {"Content-Type": "application/json", **said.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(sent) + (9 if said.drop else 0)))
            self.end_headers()
            self.wfile.write(sent)
            self.close_connection = said.drop

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
