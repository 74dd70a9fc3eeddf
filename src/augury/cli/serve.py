"""`augury serve`: oracles over HTTP, for programs and for people who share one machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.common import say, working, write_json
from augury.cli.options import SHIPPED, AsJson
from augury.errors import AccessError, AuguryError, InputError

if TYPE_CHECKING:
    from augury.oracle import Oracle

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def serve(
    model: Annotated[str, typer.Option("--model", "-m", help="Alias, hub id or folder of the target.")] = SHIPPED,
    oracle: Annotated[
        list[str] | None, typer.Option("--oracle", help="Folder, hub id or smollm2; may be given several times.")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Read the model with this adapter on.", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(help="Another than this machine's own asks for tokens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who may call: a line `name: token` each; mode 600.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="A name that a proxy calls it by; may be given several times.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or auto.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Serve oracles over HTTP: /v1/openapi.json says what may be asked.

    Without tokens only programs on this machine get in. One line of each request goes to stderr.

    \b
    augury serve
    augury serve --model Qwen/Qwen3-8B --oracle ./my-oracle --port 8080
    augury serve --host 0.0.0.0 --token-file tokens
    """
    from augury.server.auth import Callers, is_loopback, read_tokens

    _check_installed()
    callers = read_tokens(token_file) if token_file is not None else Callers()
    if not is_loopback(host) and not callers.digests:
        why = f"{host} can be reached from other machines, and no tokens were given"
        raise AccessError("This would let anyone in.", why, "pass --token-file, or leave --host out")
    from augury.lm import load_model
    from augury.server.app import make_app
    from augury.server.run import run
    from augury.server.schemas import BASE
    from augury.server.service import Service

    with working(f"loading {model}"):
        lm = load_model(model, dtype=dtype, device_map=device, adapter=adapter)
        oracles = _oracles(oracle, model, lm)
    shown = f"[{host}]" if ":" in host else host
    hosts = None if callers.digests and not name else tuple(dict.fromkeys((*LOOPBACK, shown, *(name or ()))))
    app = make_app(Service({BASE: lm}, oracles), callers, hosts)
    with _listening(host, port) as socket:
        url = f"http://{shown}:{socket.getsockname()[1]}"
        if as_json:
            write_json({"url": url, "model": lm.name, "oracles": list(oracles), "tokens": len(callers.digests)})
        who = f"{len(callers.digests)} callers" if callers.digests else "this machine's own callers"
        say(f"{', '.join(oracles) or 'no oracle'} on {lm.name}: {url}, for {who}; Ctrl-C stops it")
        _log_requests()
        run(app, socket)


def _check_installed() -> None:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        why = f"{error.name} is not installed"
        raise AuguryError("Nothing can be served.", why, "pip install 'augury[serve]'") from error


def _oracles(wanted: list[str] | None, model: str, lm) -> dict[str, Oracle]:
    """The oracles that were named, by their last name; the shipped one where none was and it fits."""
    from augury.oracle import load_oracle

    chosen = wanted or ([SHIPPED] if model == SHIPPED else [])
    found: dict[str, Oracle] = {}
    for place in chosen:
        short = Path(place).name
        if short in found:
            raise InputError(f"Two oracles are called {short}.", "callers name them so", "rename one of the folders")
        found[short] = loaded = load_oracle(place, lm)
        loaded.name = short  # what callers are told; where it lies is not their business
    return found


def _listening(host: str, port: int):
    """A socket before anything is told, so that a port in use is refused in words."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host.strip("[]"), port))
    except OSError as error:
        found.close()
        why = f"{error.strerror or error} at {host}:{port}"
        raise InputError("The service cannot listen there.", why, "choose another --port, or --port 0") from error
    return found


def _log_requests() -> None:
    """One JSON line of each request on stderr."""
    import logging
    import sys

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter('{"at": "%(asctime)s", "request": %(message)s}'))
    audit = logging.getLogger("augury.audit")
    audit.setLevel(logging.INFO)
    audit.propagate = False
    audit.handlers = [handler]
