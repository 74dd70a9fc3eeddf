"""`augury data`: build the data set that a recipe describes, and look at what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from augury.cli.bars import shown_bars
from augury.cli.common import guarded, progress_bar, say, stdout, working, write_json
from augury.cli.options import AsJson
from augury.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from rich.console import Console

    from augury.data.audit import Audit
    from augury.data.cards import Card
    from augury.data.estimate import DataCosts
    from augury.data.opened import DataSet
    from augury.data.recipe import DataRecipe
    from augury.data.show import Grid
    from augury.data.summary import Summary

HELP = """Build training data from a recipe, and look at what is in it.

\b
augury data build recipes/smollm2.yaml -o data/mine
augury data show data/mine --cards 3
"""
AUDITED = 100

data = typer.Typer(no_args_is_help=True, help=HELP)


@data.command("build")
@guarded
def build_data(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML), of training or of data alone.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where; one that was begun is gone on with.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Laid over the recipe; several times.")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only tell what it would cost.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make contexts and examples, with the costs told first. Stopped with Ctrl-C, the same command goes on.

    \b
    augury data build recipes/smollm2.yaml -o data/mine
    augury data build mine.yaml -o data/mine --set contexts.answers.train=2000
    augury data build mine.yaml --estimate
    """
    from augury.data.estimate import estimate_data
    from augury.train.recipe import read_data_recipe

    found = read_data_recipe(recipe, list(settings or ()))
    if out is None and not estimate:
        raise InputError("There is no folder for the data.", "-o was not given", "pass -o DIR, or --estimate")
    drawn = _checked(found, out)
    with working("reckoning the costs"):
        costs = estimate_data(found, drawn)
    if estimate or out is None:
        _show_costs(costs, found, as_json)
        return
    for line in costs.lines():
        say(line)
    _build(found, out, drawn)
    _show_built(out, as_json)


def _checked(recipe: DataRecipe, out: Path | None) -> Mapping[str, int]:
    """Refuse what can be refused without the model; training examples that the recipe's stages draw."""
    from augury.data.preflight import preflight
    from augury.train.checks import check_unloaded
    from augury.train.recipe import Recipe

    if not isinstance(recipe, Recipe):
        preflight(recipe, out)
        return {}
    check_unloaded(recipe, out)
    return recipe.drawn


def _show_costs(costs: DataCosts, recipe: DataRecipe, as_json: bool) -> None:
    if as_json:
        write_json({"estimate": True, "recipe": recipe.name, "model": recipe.model, **costs.to_dict()})
        return
    typer.echo(f"{recipe.name}: {recipe.model}")
    for line in costs.lines():
        typer.echo(line)


def _build(recipe: DataRecipe, out: Path, drawn: Mapping[str, int]) -> None:
    from augury.data.build import build
    from augury.data.opened import keep_recipe
    from augury.lm import load_model

    with working(f"loading {recipe.model}"):
        lm = load_model(recipe.model)
    keep_recipe(out, recipe, begun=True)
    try:
        with shown_bars() as bars:
            build(lm, recipe, out, drawn, bars.phase)
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        raise
    keep_recipe(out, recipe, begun=False)


def _show_built(out: Path, as_json: bool) -> None:
    from augury.data.asked import asked_of
    from augury.data.opened import open_data
    from augury.data.show import counts
    from augury.data.summary import summarise

    built = open_data(out)
    summary, asked = summarise(built), asked_of(built)
    if as_json:
        told = {"asked": [one.to_dict() for one in asked]}
        write_json({"data": str(out), "fingerprint": built.fingerprint, **summary.to_dict(), **told})
        return
    console = stdout()
    _print_grid(console, counts(summary))
    for one in asked:
        typer.echo(one.line())
    typer.echo(f"data: {out}")


def _print_grid(console: Console, grid: Grid) -> None:
    """As a table in a terminal, as aligned lines in a pipe."""
    if console.is_terminal:
        console.print(grid.rich())
    else:
        typer.echo(grid.plain())


class _Show(TyperCommand):
    """`--audit` takes a number or none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        following = [*args[1:], ""]
        filled = [
            [arg, str(AUDITED)] if arg == "--audit" and not follows.isdecimal() else [arg]
            for arg, follows in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, [arg for part in filled for arg in part])


@data.command("show", cls=_Show)
@guarded
def show_data(
    folder: Annotated[Path, typer.Argument(help="A data set, or a run with one in it.", show_default=False)],
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Only this source.")] = None,
    cards: Annotated[int, typer.Option(min=0, metavar="N", help="Example cards of each source.")] = 2,
    audit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="[N]",
            help=f"Also ask the base about N examples of each source (default {AUDITED}) with the text in place of the "
            "activations; this loads the model.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show counts, lengths, who wrote what, and example cards, without loading a model.

    \b
    augury data show data/mine
    augury data show data/mine --source lens --cards 5
    augury data show data/mine --audit 200
    """
    from augury.data.opened import open_data
    from augury.data.summary import summarise

    opened = open_data(folder)
    _check_source(opened, source)
    with working("reading"):
        summary, drawn = summarise(opened, source), _cards(opened, source, cards)
    if not as_json:
        _print_summary(opened, summary, drawn)
    found = None if audit is None else _audit(opened, source, audit)
    if as_json:
        _write_all(opened, summary, drawn, found)
    elif found is not None:
        _print_audit(found)


def _check_source(opened: DataSet, source: str | None) -> None:
    if source is not None and source not in opened.sources:
        from augury.data.sources.base import nearest

        why = f"the examples are of others{nearest(source, opened.sources)}"
        raise InputError(f"There is no source '{source}' in {opened.folder}.", why, "name one of these")


def _cards(opened: DataSet, source: str | None, count: int) -> list[Card]:
    from augury.data.cards import draw_cards

    decode = _decode(opened) if count else None
    return [
        card for name in opened.sources if source in (None, name) for card in draw_cards(opened, name, count, decode)
    ]


def _decode(opened: DataSet) -> Any:
    """Token ids to text by the target's own tokenizer; None, with a word why, where it is not here."""
    from augury.lm.fingerprint import tokenizer_hash
    from augury.lm.tokenizer import tokenizer_here

    tokenizer = tokenizer_here(opened.target) if opened.target else None
    if tokenizer is None:
        say(f"the tokenizer of {opened.target or 'the target'} is not on this machine: counts are shown, and no text")
        return None
    if opened.model.get("tokenizer_hash") not in (None, tokenizer_hash(tokenizer)):
        say(f"{opened.target} has another tokenizer now than this data was made with: no text is shown")
        return None
    return tokenizer.decode


def _print_summary(opened: DataSet, summary: Summary, cards: list[Card]) -> None:
    from augury.data.asked import asked_of
    from augury.data.show import card_lines, card_panel, grids, headline

    console = stdout()
    for line in [*headline(opened), *(one.line() for one in asked_of(opened))]:
        typer.echo(line)
    for grid in grids(summary):
        typer.echo()
        _print_grid(console, grid)
    for card in cards:
        typer.echo()
        if console.is_terminal:
            console.print(card_panel(card))
        else:
            typer.echo("\n".join(card_lines(card)))


def _audit(opened: DataSet, source: str | None, count: int) -> Audit:
    from augury.data.audit import audit, pick
    from augury.data.estimate import estimate_audit
    from augury.data.readers import BaseReader, reader_contract
    from augury.lm import load_model

    if opened.target is None:
        why = "neither a recipe nor a finished build names it"
        raise NotFoundError(f"The model of {opened.folder} is not known.", why, "build it with `augury data build`")
    picked = pick(opened, count, source)
    with working("reckoning the costs"):
        costs = estimate_audit(picked, opened.target)
    say(costs.line())
    with working(f"loading {opened.target}"):
        lm = load_model(opened.target)
    with progress_bar("asking the base") as tell:
        return audit(opened, picked, BaseReader(lm, reader_contract(opened.recipe)), tell)


def _write_all(opened: DataSet, summary: Summary, cards: list[Card], audit: Audit | None) -> None:
    from augury.data.asked import asked_of

    told: dict[str, Any] = {
        "data": str(opened.folder),
        "fingerprint": opened.fingerprint,
        "model": opened.model,
        "made": opened.made,
    }
    told["asked"] = [one.to_dict() for one in asked_of(opened)]
    found = {**told, **summary.to_dict(), "cards": [card.to_dict() for card in cards]}
    write_json(found if audit is None else {**found, "audit": audit.to_dict()})


def _print_audit(audit: Audit) -> None:
    from augury.data.show import audit_grid

    typer.echo()
    typer.echo(audit.sentence)
    _print_grid(stdout(), audit_grid(audit))
