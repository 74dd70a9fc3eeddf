"""`augury audit`: what a fine-tune changed, and what it hides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from augury.cli.bars import shown_bars
from augury.cli.common import say, stdout, write_json
from augury.cli.options import SHIPPED, AsJson, ModelOptions, OracleOptions
from augury.errors import InputError

if TYPE_CHECKING:
    from augury.audit.gather import Tell
    from augury.audit.run import Audit
    from augury.audit.subjects import Shelf

_MANY = "--peers"
PER_KIND = 2
NAMED = 8  # concepts of the user's own that are all planted


class Peers(TyperCommand):
    """A command whose `--peers` takes all names up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write `--peers A B` as `--peers A --peers B`."""
        found: list[str] = []
        for word in args:
            if not word.startswith("-") and found[-2:-1] == [_MANY]:
                found.append(_MANY)
            found.append(word)
        return super().parse_args(ctx, found)


def audit(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The fine-tune: an adapter's folder, or a model.")],
    base: Annotated[str, typer.Option("--base", help="Alias, hub id or folder of what it was made from.")] = SHIPPED,
    adapter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Read TARGET with this adapter on.", show_default=False)
    ] = None,
    peers: Annotated[
        list[str] | None,
        typer.Option(_MANY, metavar="P1 P2 ...", help="Other fine-tunes of the base; 5 or more for a claim."),
    ] = None,
    make_peers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Make so many neutral peers, and keep them for other audits.")
    ] = 0,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your own prompts, one a line.", show_default=False)
    ] = None,
    per_kind: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=12,
            metavar="N",
            help="So many of each kind of the shipped prompts, 1 to 12. Default: 2.",
            show_default=False,
        ),
    ] = None,
    concepts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What is asked about, one a line.", show_default=False)
    ] = None,
    planted: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Concepts planted as a control. Default: those shown, or all of a short --concepts.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="Where everything goes.")] = None,
    oracle: Annotated[str | None, typer.Option(help="Folder, hub id or smollm2.", show_default=False)] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or auto.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Find what a fine-tune changed: base, fine-tune and difference read on the same tokens, against its peers.

    A concept is claimed where the target differs in it from the peers, other fine-tunes that were not given what is
    looked for. Everything is kept in RUN, with report.html; a run that is cut off goes on with the same command.

    \b
    augury audit ./my-adapter --make-peers 8 -o runs/audit
    augury audit ./my-adapter --base smollm2 --peers ./a ./b ./c ./d ./e -o runs/audit
    augury audit ./my-model --base Qwen/Qwen3-8B --oracle ./my-oracle --concepts topics.txt -o runs/audit
    """
    if out is None:
        raise InputError("There is no place for the audit.", "-o was not given", "name a folder: -o runs/audit")
    if prompts is not None and per_kind is not None:
        why = "--per-kind chooses among the shipped prompts"
        raise InputError("--per-kind does nothing beside --prompts.", why, "leave one of the two out")
    from augury.audit.run import run_audit

    chosen = _chosen(target, base, adapter, peers or [], prompts, per_kind, concepts, planted)
    shelf = _shelf(ModelOptions(base, None, dtype, device), OracleOptions(oracle))
    with shown_bars() as bars:
        chosen = _with_peers(chosen, shelf, make_peers, bars.phase)
        report = run_audit(chosen, shelf, out, bars.phase, lambda costs: say(f"this takes {costs}"))
        bars.close()
    if as_json:
        write_json(report)
    else:
        _show(report, out)


def _chosen(
    target: str,
    base: str,
    adapter: Path | None,
    peers: list[str],
    prompts: Path | None,
    per_kind: int | None,
    concepts: Path | None,
    planted: int | None,
) -> Audit:
    """What was said on the command line; what can be refused is refused before a model is loaded."""
    from augury.audit.prompts import default_concepts, read_concepts, read_prompts, shipped_prompts
    from augury.audit.run import Audit
    from augury.audit.subjects import TARGET, peer_of, subject_of

    asked = default_concepts() if concepts is None else read_concepts(concepts)
    if planted is None and concepts is not None and len(asked) <= NAMED:
        planted = len(asked)
    return Audit(
        subject_of(TARGET, target, base, adapter),
        tuple(peer_of(name, base) for name in peers),
        tuple(shipped_prompts(per_kind or PER_KIND) if prompts is None else read_prompts(prompts)),
        asked,
        planted,
    )


def _with_peers(chosen: Audit, shelf: Shelf, count: int, tell: Tell) -> Audit:
    """With neutral peers that are made here."""
    if not count:
        return chosen
    from augury.audit.peers import neutral_peers, peers_folder
    from augury.audit.subjects import peer_of

    base = shelf.base()
    made = neutral_peers(base, count, peers_folder(base), tell, lambda costs: say(f"neutral peers: {costs}"))
    return replace(chosen, peers=(*chosen.peers, *(peer_of(str(path), shelf.name) for path in made)))


def _shelf(models: ModelOptions, oracles: OracleOptions) -> Shelf:
    from augury.audit.subjects import Shelf
    from augury.cli.sources import load_target, oracle_name
    from augury.oracle import load_oracle

    name = oracle_name(models, oracles)
    return Shelf(models.model, lambda model: load_target(models, model), lambda lm: load_oracle(name, lm))


def _show(report: dict[str, Any], out: Path) -> None:
    from rich.table import Column, Table

    for line in report["verdict"]:
        stdout().print(line, markup=False, soft_wrap=True)
    numbers = [Column(name, justify="right") for name in ("p", "score", "moved", "claimed from")]
    shown = Table(Column("concept", no_wrap=True), "claimed", *numbers, "read")
    for one in report["findings"][:10]:
        values = (_figure(one[name]) for name in ("p", "score", "moved", "needed"))
        where = f"{one['read']['kind']}, {one['read']['place']}"
        shown.add_row(one["concept"], "yes" if one["claimed"] else "no", *values, where)
    stdout().print(shown)
    say(f"kept in {out}; the whole report is {out / 'report.html'}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
