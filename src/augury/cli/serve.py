"""`augury serve`: oracles over HTTP, for programs and for people who share one machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.common import say, working, write_json
from augury.cli.options import SHIPPED, AsJson
from augury.errors import AccessError, AuguryError, ContractError, InputError
from augury.files import expanded

if TYPE_CHECKING:
    from augury.lm import LanguageModel
    from augury.oracle import Oracle

COORDINATES = (("width", "d_model"), ("depth", "n_layers"), ("tokenizer", "tokenizer_hash"))
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def serve(
    model: Annotated[str, typer.Option("--model", "-m", help="Alias, hub id or folder of the base.")] = SHIPPED,
    oracle: Annotated[
        list[str] | None, typer.Option("--oracle", help="Folder, hub id or smollm2; may be given several times.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="Adapter or fine-tune that may be read beside it; may be given several times."),
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
    """Serve oracles: a page for a browser at /, and over HTTP what /v1/openapi.json says.

    Without tokens only programs on this machine get in. One line of each request goes to stderr.

    \b
    augury serve
    augury serve --model Qwen/Qwen3-8B --oracle ./my-oracle --target ./my-fine-tune --port 8080
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
    from augury.server.service import Service

    with working(f"loading {model}"):
        lm = load_model(model, dtype=dtype, device_map=device)
        oracles = _oracles(oracle, model, lm)
        targets = _targets(target or [], lm, partial(load_model, dtype=dtype, device_map=device))
    shown = f"[{host}]" if ":" in host else host
    hosts = None if callers.digests and not name else tuple(dict.fromkeys((*(name or ()), *LOOPBACK, shown)))
    app = make_app(Service(targets, oracles), callers, hosts)
    with _listening(host, port) as socket:
        url = f"http://{shown}:{socket.getsockname()[1]}"
        if as_json:
            served = {"model": lm.name, "targets": list(targets), "oracles": list(oracles)}
            write_json({"url": url, **served, "tokens": len(callers.digests)})
        count = len(callers.digests)
        who = f"{count} caller{'s' if count > 1 else ''}" if count else "this machine's own callers"
        read = ", ".join([lm.name, *list(targets)[1:]])
        say(f"{', '.join(oracles) or 'no oracle'} on {read}: {url}, for {who}; Ctrl-C stops it")
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


def _targets(wanted: list[str], lm: LanguageModel, load: Callable[[str], LanguageModel]) -> dict[str, LanguageModel]:
    """What may be read: the base, and beside it adapters on it and fine-tunes of it, by their last name."""
    from augury.lm import load_model
    from augury.server.schemas import BASE

    found = {BASE: lm}
    for place in wanted:
        folder = expanded(place)
        short = folder.name or folder.resolve().name
        if short in found:
            what = "The base is called base." if short == BASE else f"Two targets are called {short}."
            raise InputError(what, "callers name them so", "rename one of the folders")
        if (folder / "adapter_config.json").is_file():
            found[short] = load_model(lm, adapter=folder)
        else:
            loaded = load(place)
            # Where it lies is not the callers' business.
            found[short] = _fitting(lm, replace(loaded, name=short) if folder.is_dir() else loaded)
    return found


def _fitting(base: LanguageModel, lm: LanguageModel) -> LanguageModel:
    """A model that has the base's coordinates: what oracles on the base read must mean the same in it."""
    pairs = [(word, getattr(base.identity, name), getattr(lm.identity, name)) for word, name in COORDINATES]
    differ = [f"its {word} is {have}, the base's is {want}" for word, want, have in pairs if want != have]
    if differ:
        instead = "serve a fine-tune of the base, or another base with --model"
        raise ContractError(f"{lm.name} cannot be read beside {base.name}.", "; ".join(differ), instead)
    return lm


def _listening(host: str, port: int):
    """A socket before anything is told, so that a port in use is refused in words."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host.strip("[]"), port))
        found.listen()  # who is told the address may call at once
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
