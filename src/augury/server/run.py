"""The process of a service: what was accepted is finished or told before it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from threading import Thread

import uvicorn
from fastapi import FastAPI

from augury.server.app import GRACE
from augury.server.service import Service

LAST = 1.5  # seconds in which what was told at the end is read


class Server(uvicorn.Server):
    """A server that ends the service before it ends the connections.

    uvicorn by itself cuts the requests off first, and tells the application afterwards. Here it goes on listening while
    the service ends, so that who comes then is told too.

    Args:
        config: Of uvicorn.
        service: What the application serves.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what was accepted, or tell it, then close; a second Ctrl-C ends at once."""
        headers = self.server_state.default_headers
        self.server_state.default_headers = [*headers, (b"connection", b"close")]
        ending = Thread(target=self.service.stop, args=(GRACE,), name="augury-stop", daemon=True)
        ending.start()
        while ending.is_alive() and not self.force_exit:
            await asyncio.sleep(0.05)
        cut = asyncio.get_running_loop().call_later(LAST, self._cut)
        await super().shutdown(sockets)
        cut.cancel()

    def _cut(self) -> None:
        """Who has not read or sent the rest by now is not waited for; uvicorn would tell it as an error of ours."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serve until the process is told to stop; SIGTERM and Ctrl-C end it as they would any other.

    Args:
        app: Of `make_app`.
        listening: Where callers come in.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # uvicorn raises it again at the end, when nothing is left to do
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=int(2 * LAST), server_header=False)
    Server(config, app.state.service).run(sockets=[listening])
