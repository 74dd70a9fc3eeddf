"""`augury hub`: publish an oracle on the Hugging Face hub, and fetch one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augury.cli.common import guarded, say, working, write_json
from augury.cli.options import AsJson
from augury.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from augury.oracle.parcel import Parcel
    from augury.oracle.pull import Pulled
    from augury.oracle.push import Pushed

hub = typer.Typer(no_args_is_help=True, help="Publish an oracle on the Hugging Face hub, and fetch one.")

Repository = Annotated[str, typer.Argument(metavar="REPO", help="The repository on the hub: owner/name.")]


@hub.command("push")
@guarded
def push_oracle(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_ORACLE", help="A finished run's folder, or an oracle's.")],
    repository: Repository,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who sees a new repository (default: private).", show_default=False),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="BRANCH", help="A branch; made where it does not exist.")
    ] = None,
    license: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="The oracle's licence, where its card states none.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Even over an oracle for another base, or other files.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Send without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check and tell what would be sent.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish an oracle in one commit: its own files, report and recipe, and nothing else of the run.

    It is checked first, and what will be sent is listed. The token is the one that `hf auth login` keeps, or HF_TOKEN.

    \b
    augury hub push runs/mine me/my-oracle --dry-run
    augury hub push runs/mine me/my-oracle --license apache-2.0 --yes
    augury hub push ./my-oracle me/my-oracle --public --revision v2
    """
    from augury.oracle.parcel import pack

    if yes and dry_run:
        raise InputError("--yes does nothing here.", "--dry-run sends nothing", "leave one of them out")
    with working(f"checking {source}"):
        parcel = pack(source, repository, license)
    if dry_run:
        _show_dry_run(parcel, as_json)
        return
    _show_parcel(parcel, say)
    say(f"  a new repository will be {'public' if private is False else 'private'}")
    if not yes:
        _confirm(as_json)
    from augury.oracle.push import push

    with working(f"sending it to {repository}"):
        pushed = push(parcel, private=private, branch=revision, replace=replace)
    _show_pushed(pushed, parcel, as_json)


@hub.command("pull")
@guarded
def pull_oracle(
    repository: Repository,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="A new folder; else it stays in the hub's cache.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="R", help="A branch, tag or commit.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch an oracle with its report, check it, and tell where it lies.

    \b
    augury hub pull me/my-oracle
    augury hub pull me/my-oracle -o ./my-oracle --revision v2
    """
    from augury.oracle.pull import pull

    with working(f"fetching {repository}"):
        pulled = pull(repository, out, revision)
    _show_pulled(pulled, as_json)


def _confirm(as_json: bool) -> None:
    if as_json or not _interactive():
        why = "it was not confirmed, and there is nobody to ask"
        raise InputError("Nothing was sent.", why, "pass --yes, or --dry-run to see what would be sent")
    if not typer.confirm("Send this?", err=True):
        say("nothing was sent")
        raise typer.Exit(1)


def _interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _show_dry_run(parcel: Parcel, as_json: bool) -> None:
    if as_json:
        write_json({"dry_run": True, "repository": parcel.repository, **_told(parcel)})
        return
    _show_parcel(parcel, typer.echo)


def _show_parcel(parcel: Parcel, tell: Callable[[str], Any]) -> None:
    """What is sent, file by file."""
    tell(f"{parcel.folder} to {parcel.repository}: an oracle for {parcel.base}")
    for item in parcel.items:
        tell(f"  {item.name:<28}{item.size:>14,} bytes  sha256 {item.sha256[:12]}")
    tell(
        f"  {len(parcel.items)} files, {parcel.size:,} bytes; {parcel.tensors} tensors of {parcel.parameters:,} numbers"
    )
    for note in parcel.notes:
        tell(f"  note: {note}")


def _told(parcel: Parcel) -> dict[str, Any]:
    files = [{"name": item.name, "bytes": item.size, "sha256": item.sha256} for item in parcel.items]
    return {"folder": str(parcel.folder), "base_model": parcel.base, "files": files, "notes": list(parcel.notes)}


def _show_pushed(pushed: Pushed, parcel: Parcel, as_json: bool) -> None:
    if as_json:
        write_json({**pushed.to_dict(), **_told(parcel)})
        return
    if not pushed.changed:
        say("nothing was new: all of it was there already")
    seen = {True: "private", False: "public", None: "there"}[pushed.private]
    typer.echo(f"{pushed.url} ({seen})")
    typer.echo(f"commit {pushed.commit}")
    if pushed.branch is not None:
        typer.echo(f"branch {pushed.branch}")


def _show_pulled(pulled: Pulled, as_json: bool) -> None:
    contract = pulled.contract
    base = contract.base_model if contract is not None else None
    if as_json:
        files = [{"name": name, "bytes": size} for name, size in pulled.files.items()]
        about = {"repository": pulled.repository, "folder": str(pulled.folder), "commit": pulled.commit}
        write_json({**about, "base_model": base, "files": files, "notes": list(pulled.notes)})
        return
    typer.echo(str(pulled.folder))
    say(f"{pulled.repository} at {pulled.commit}: {len(pulled.files)} files, for {base or 'a base it does not state'}")
    for note in pulled.notes:
        say(f"note: {note}", style="dim")
