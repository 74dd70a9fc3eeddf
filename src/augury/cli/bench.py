"""`augury bench`: how far an oracle's answers can be trusted, beside its controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augury.cli.bars import shown_bars
from augury.cli.bench_table import show_summary
from augury.cli.common import guarded, say, stdout, working, write_json
from augury.cli.options import SHIPPED, AsJson
from augury.errors import InputError, NotFoundError

bench = typer.Typer(no_args_is_help=True, help="How far an oracle's answers can be trusted, beside its controls.")


@bench.command("rescore")
@guarded
def rescore_answers(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Recorded answers: TASK/ORACLE.jsonl.")],
    as_json: AsJson = False,
) -> None:
    """Score recorded AObench answers again, as published: no model, no judge.

    The table has each task's headline figure; --json has every metric by its published name.

    \b
    augury bench rescore recorded/
    augury bench rescore recorded/ --json > metrics.json
    """
    from augury.bench.rescore import HEADLINES, rescore

    found = rescore(folder)
    if as_json:
        write_json(found)
        return
    from rich.table import Column, Table

    oracles = sorted({oracle for by_oracle in found.values() for oracle in by_oracle})
    numbers = [Column(str(number), justify="right") for number in range(1, len(oracles) + 1)]
    shown = Table(Column("task", no_wrap=True), Column("metric", no_wrap=True), *numbers)
    for task, by_oracle in found.items():
        metric = HEADLINES[task]
        shown.add_row(task, metric, *(_figure(by_oracle.get(oracle, {}).get(metric)) for oracle in oracles))
    stdout().print(shown)
    for number, oracle in enumerate(oracles, 1):
        stdout().print(f"{number}  {oracle}", highlight=False)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


@bench.command("run")
@guarded
def run_tasks(
    oracle: Annotated[str, typer.Argument(metavar="ORACLE", help="Folder, hub id or smollm2.")] = SHIPPED,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="RUN", help="Where items, answers and summary go.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Some tasks, with commas; see `augury bench tasks`.")
    ] = None,
    profile: Annotated[str, typer.Option(help="quick, core or all.")] = "core",
    model: Annotated[str, typer.Option("--model", "-m", help="Alias, hub id or folder of the base.")] = SHIPPED,
    reader: Annotated[Path | None, typer.Option(metavar="DIR", help="A trained reader, for the text controls.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Published items, for the model that they are about.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of items and donors.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or auto.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Ask every question of every task, to the oracle and to each of its controls; a run that is cut off goes on.

    \b
    augury bench run smollm2 --profile quick -o runs/bench
    augury bench run ./my-oracle --model Qwen/Qwen3-8B --tasks planted,same_window -o runs/bench
    augury bench run smollm2 --profile quick -o runs/bench --json
    """
    from augury.bench.profile import PROFILES
    from augury.bench.run import Bench, run_bench
    from augury.bench.task import REGISTRY
    from augury.lm import load_model
    from augury.oracle import load_oracle

    if out is None:
        raise InputError("There is no place for the run.", "-o was not given", "name a folder: -o runs/bench")
    if profile not in PROFILES:
        raise InputError(f"There is no profile {profile!r}.", f"they are {', '.join(PROFILES)}", "name one of these")
    wanted = None if tasks is None else tuple(name.strip() for name in tasks.split(",") if name.strip())
    chosen = Bench(PROFILES[profile], wanted, seed, data)
    chosen.chosen(REGISTRY)  # names are checked before a model is loaded
    with working(f"loading {model}"):
        lm = load_model(model, dtype=dtype, device_map=device)
        loaded = load_oracle(oracle, lm, reader=reader)
    with shown_bars() as bars:
        summary = run_bench(loaded, chosen, out, bars.phase)
        bars.close()
    if as_json:
        write_json(summary.to_dict())
    else:
        show_summary(summary.to_dict())
        say(f"kept in {out}; `augury bench show {out}` shows this again")


@bench.command("show")
@guarded
def show_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    as_json: AsJson = False,
) -> None:
    """Show what a run found.

    \b
    augury bench show runs/bench
    """
    import json

    path = run / "summary.json"
    if not path.is_file():
        why = f"{path} does not exist"
        raise NotFoundError(f"{run} holds no finished run.", why, "go on with `augury bench run ... -o` that folder")
    found = json.loads(path.read_text(encoding="utf-8"))
    if as_json:
        write_json(found)
    else:
        show_summary(found)


@bench.command("tasks")
@guarded
def list_tasks(as_json: AsJson = False) -> None:
    """List the tasks: what each asks, and whose texts it uses.

    \b
    augury bench tasks
    """
    from rich.table import Column, Table

    from augury.bench import tasks as _known  # noqa: F401
    from augury.bench.task import REGISTRY

    rows = [
        {
            "task": task.name, "kind": task.kind, "tier": task.tier, "window": task.window, "about": task.about,
            "origin": REGISTRY.items[task.items].origin, "licence": REGISTRY.items[task.items].licence,
        }
        for task in REGISTRY.tasks.values()
    ]  # fmt: skip
    if as_json:
        write_json({"tasks": rows})
        return
    shown = Table(Column("task", no_wrap=True), "kind", "reads", "asks about", "texts")
    for row in rows:
        width = f"last {row['window']}" if row["window"] else "all"
        shown.add_row(row["task"], row["kind"], width, row["about"], row["origin"])
    stdout().print(shown)
