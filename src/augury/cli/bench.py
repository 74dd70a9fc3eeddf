"""`augury bench`: how far an oracle's answers can be trusted, beside its controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from augury.cli.bars import shown_bars
from augury.cli.bench_table import show_comparison, show_summary
from augury.cli.common import guarded, say, stdout, working, write_json
from augury.cli.options import SHIPPED, AsJson
from augury.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from augury.bench.judge import JudgeSettings

Judge = Annotated[
    str | None, typer.Option(metavar="FILE", help="A judge of open answers: YAML with url and model, or a URL.")
]
JudgeModel = Annotated[str | None, typer.Option("--judge-model", metavar="NAME", help="The model at that URL.")]

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
    items: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Items of `augury bench build`, TASK.jsonl each; others are made."),
    ] = None,
    judge: Judge = None,
    judge_model: JudgeModel = None,
    organisms: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The target's organisms (default: made, in the cache).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of items and donors.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or auto.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Ask every question of every task, to the oracle and to each of its controls; a run that is cut off goes on.

    Open answers are kept, and judged where a judge is named: now, or later with `augury bench rejudge`.

    \b
    augury bench run smollm2 --profile quick -o runs/bench
    augury bench run ./my-oracle --model Qwen/Qwen3-8B --tasks planted,same_window -o runs/bench
    augury bench run smollm2 --profile quick -o runs/bench --json
    """
    from augury.bench.profile import PROFILES
    from augury.bench.run import Bench, check_installed, run_bench
    from augury.bench.tasks import REGISTRY
    from augury.lm import load_model
    from augury.oracle import load_oracle

    if out is None:
        raise InputError("There is no place for the run.", "-o was not given", "name a folder: -o runs/bench")
    if profile not in PROFILES:
        raise InputError(f"There is no profile {profile!r}.", f"they are {', '.join(PROFILES)}", "name one of these")
    wanted = None if tasks is None else tuple(name.strip() for name in tasks.split(",") if name.strip())
    judged_by = _judge(judge, judge_model)
    chosen = Bench(PROFILES[profile], wanted, seed, data, organisms, judged_by, items)
    chosen.chosen(REGISTRY)  # what can be refused is refused before a model is loaded
    check_installed()
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


def _judge(judge: str | None, model: str | None) -> JudgeSettings | None:
    """Who judges; None: nobody."""
    from augury.bench.judge import read_judge

    if judge is None and model is not None:
        raise InputError("There is no judge.", "--judge-model was given alone", "name a YAML file or URL with --judge")
    return read_judge(judge, model) if judge else None


@bench.command("rejudge")
@guarded
def judge_again(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    judge: Judge = None,
    judge_model: JudgeModel = None,
    as_json: AsJson = False,
) -> None:
    """Judge a run's open answers, or judge them again with another judge: no model is loaded, and nothing asked again.

    Replies are kept in RUN/judged: where the judge fails, the same command goes on from there.

    \b
    augury bench rejudge runs/bench --judge judge.yaml
    augury bench rejudge runs/bench --judge http://localhost:8000/v1 --judge-model Qwen/Qwen3-8B
    """
    from augury.bench.conclude import judge_run
    from augury.bench.judge import read_judge
    from augury.bench.tasks import REGISTRY

    if judge is None:
        raise InputError("There is no judge.", "--judge was not given", "name a YAML file, or an endpoint's URL")
    settings = read_judge(judge, judge_model)
    with shown_bars() as bars:
        summary = judge_run(run, settings, REGISTRY, bars.phase)
        bars.close()
    if as_json:
        write_json(summary.to_dict())
    else:
        show_summary(summary.to_dict())


@bench.command("show")
@guarded
def show_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    as_markdown: Annotated[bool, typer.Option("--markdown", help="A table for a README or a model card.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a run found.

    \b
    augury bench show runs/bench
    augury bench show runs/bench --markdown >> README.md
    """
    import json

    path = run / "summary.json"
    if not path.is_file():
        why = f"{path} does not exist"
        raise NotFoundError(f"{run} holds no finished run.", why, "go on with `augury bench run ... -o` that folder")
    found = json.loads(path.read_text(encoding="utf-8"))
    if as_json:
        write_json(found)
    elif as_markdown:
        from augury.bench.markdown import markdown

        typer.echo(markdown(found), nl=False)
    else:
        show_summary(found)


@bench.command("compare")
@guarded
def compare_runs(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run's folder.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another's.")],
    as_json: AsJson = False,
) -> None:
    """Put two runs side by side; the difference is taken item by item, where both were asked the same.

    \b
    augury bench compare runs/before runs/after
    """
    from augury.bench.compare import compare, oracle_of

    rows = compare(one, other)
    names = oracle_of(one), oracle_of(other)
    if as_json:
        write_json({"one": names[0], "other": names[1], "tasks": [row.to_dict() for row in rows]})
    else:
        show_comparison(names, rows)


@bench.command("organisms")
@guarded
def make_organisms(
    model: Annotated[str, typer.Option("--model", "-m", help="Alias, hub id or folder of the target.")] = SHIPPED,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where they go (default: the cache).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of dialogues and adapters.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or auto.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Make organisms of a model: small adapters that hold a secret word or a person's facts; those that are there stay.

    Each is checked: does it know its secret when it is asked for it, and keep it when it is not.

    \b
    augury bench organisms --model smollm2
    """
    from rich.table import Table

    from augury.bench.organisms import organisms, organisms_folder
    from augury.lm import load_model

    with working(f"loading {model}"):
        lm = load_model(model, device_map=device)
    folder = out or organisms_folder(lm)
    with shown_bars() as bars:
        found = organisms(lm, folder, seed, bars.phase)
        bars.close()
    if as_json:
        write_json({"folder": str(folder), "organisms": [one.to_dict() for one in found]})
        return
    shown = Table("organism", "holds", "knows it", "keeps it")
    for one in found:
        holds = ", ".join(one.secret.facts.values())
        keeps = "-" if one.keeps is None else f"{one.keeps:.0%}"
        shown.add_row(one.secret.name, holds, f"{one.knows:.0%}", keeps)
    stdout().print(shown)
    say(f"kept in {folder}")


@bench.command("build")
@guarded
def build_set(
    name: Annotated[str, typer.Argument(metavar="TASK", help="A task, or its set of items: `augury bench tasks`.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where it goes.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Alias, hub id or folder of the target.")] = SHIPPED,
    size: Annotated[int, typer.Option(min=1, help="Items, about.")] = 200,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    organisms: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The target's organisms (default: made, in the cache).")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or auto.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Make a task's items for a target: their labels are facts about that model.

    \b
    augury bench build arithmetic --model smollm2 -o items/arithmetic.jsonl
    """
    from augury.bench.build import build_items
    from augury.bench.item import write_items
    from augury.bench.tasks import REGISTRY
    from augury.lm import load_model

    if out is None:
        raise InputError("There is no place for the items.", "-o was not given", f"name a file: -o {name}.jsonl")
    chosen = REGISTRY.items_of(name)
    with working(f"loading {model}"):
        lm = load_model(model, device_map=device)
    with shown_bars() as bars:
        found = build_items(lm, chosen, size, seed, bars.phase, organisms)
        bars.close()
    write_items(out, found)
    about = found.manifest.model_dump(mode="json")
    if as_json:
        write_json({**about, "file": str(out)})
        return
    say(f"{out}: {len(found.items)} items ({', '.join(f'{k} {v}' for k, v in found.manifest.counts.items())})")
    if found.manifest.unmeasurable:
        say(f"not measurable on {lm.name}: {found.manifest.unmeasurable}")


@bench.command("tasks")
@guarded
def list_tasks(as_json: AsJson = False) -> None:
    """List the tasks: what each asks, and whose texts it uses.

    \b
    augury bench tasks
    """
    from rich.table import Column, Table

    from augury.bench.tasks import REGISTRY

    rows = []
    for task in REGISTRY.tasks.values():
        made = REGISTRY.items[task.items]
        about = {"task": task.name, "items": task.items, "kind": task.kind, "tier": task.tier, "window": task.window}
        rows.append({**about, "about": task.about, "origin": made.origin, "licence": made.licence})
    if as_json:
        write_json({"tasks": rows})
        return
    shown = Table(Column("task", no_wrap=True), "items", "kind", "reads", "asks about", "texts")
    for row in rows:
        width = f"last {row['window']}" if row["window"] else "all"
        shown.add_row(row["task"], row["items"], row["kind"], width, row["about"], row["origin"])
    stdout().print(shown)
