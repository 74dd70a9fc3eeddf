"""A run of the bench: every question of every task to the oracle and its controls, kept as it goes, and the summary."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from augury.activations.versions import versions
from augury.bench.asks import Ask
from augury.bench.browse import shown
from augury.bench.engine import RATERS, Engine, Result
from augury.bench.item import ItemSet, Manifest, check_model, read_items, write_items
from augury.bench.organisms import organisms_folder
from augury.bench.page import page
from augury.bench.profile import Profile
from augury.bench.readings import Target
from augury.bench.summary import Summary, TaskSummary, summary_of, task_summary
from augury.bench.task import Build, Items, NotMeasurable, Registry, Task
from augury.bench.tasks import REGISTRY, planted
from augury.errors import FormatError, InputError
from augury.files import locked, write_text
from augury.lm import LanguageModel
from augury.lm.adapters import load_target_adapter, remove_adapter
from augury.oracle import Oracle
from augury.oracle.reading import decoded, default_layers

SETTINGS, ANSWERS, ITEMS, SUMMARY, PAGE = "bench.json", "answers", "items", "summary.json", "report.html"
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Bench:
    """What a run does.

    Attributes:
        profile: How much is asked.
        tasks: Names of the tasks; None: the profile's.
        seed: Of items and donors.
        data: The user's folder of published items; None: they are made for the model.
        organisms: Where the target's organisms are, or are made; None: in the cache.
    """

    profile: Profile
    tasks: tuple[str, ...] | None = None
    seed: int = 0
    data: Path | None = None
    organisms: Path | None = None

    def chosen(self, registry: Registry) -> list[Task]:
        """The tasks, in order."""
        names = self.tasks or self.profile.tasks
        return list(registry.chosen(registry.tasks if names is None else names))


def run_bench(
    oracle: Oracle,
    bench: Bench,
    out: Path,
    told: Told = lambda what, done, total: None,
    registry: Registry = REGISTRY,
) -> Summary:
    """Ask every question of every task, or what is missing of them, and sum up.

    Args:
        oracle: Who is asked.
        bench: What is asked.
        out: Where items, answers and the summary go.
        told: Called with what is done, how much of it, and of how much.
        registry: The tasks there are.

    Raises:
        InputError: There is no such task; the folder holds another run, or another process works there.
        ContractError: Published items are about another model.
        StorageError: The disk is full; finished blocks are kept, and a later call goes on from them.
    """
    chosen = bench.chosen(registry)
    why, instead = "another process holds its lock", "wait for it, or choose another -o"
    with locked(out.resolve() / ".lock", InputError(f"{out} is being worked on already.", why, instead)):
        tasks = _claim(oracle, bench, chosen, registry, out)
        found = []
        for number, task in enumerate(tasks):
            rated = partial(_overall, told, task.name, number, len(tasks))
            found.append(_task(oracle, bench, task, registry.items[task.items], out, rated, told))
        summary = summary_of(_settings(oracle, bench, tasks), [figures for figures, _ in found])
        single = {task.name: rows for task, (_, rows) in zip(tasks, found, strict=True) if rows}
        write_text(out / SUMMARY, json.dumps(summary.to_dict(), indent=1) + "\n")
        write_text(out / PAGE, page(summary.to_dict(), single))
    return summary


def _overall(told: Told, name: str, number: int, tasks: int, rater: int) -> None:
    """Tell how much of all tasks is done, one rater after the other."""
    told(f"asking {name}", number * len(RATERS) + rater, tasks * len(RATERS))


def _task(
    oracle: Oracle, bench: Bench, task: Task, items: Items, out: Path, rated: Callable[[int], None], told: Told
) -> tuple[TaskSummary, list[dict[str, Any]]]:
    """A task's figures, and single answers to look at."""
    path = out / ITEMS / f"{items.name}.jsonl"
    found = read_items(path) if path.exists() else _items(oracle.base, bench, items, path, told)
    if found.manifest.unmeasurable is not None:
        return TaskSummary(task, found.manifest, {}, {}, {}), []
    asks = bench.profile.asks(task, found.items)
    answers = out / ANSWERS / f"{task.name}.jsonl"
    if not answers.exists():
        with _target(oracle, found, bench) as target:
            engine = Engine(oracle, target, seed=bench.seed)
            results = dict(_asked(engine, task, asks, out / "blocks" / task.name, rated))
        work = {"captured": engine.captured, **asdict(engine.work)}
        write_text(answers, "".join(_lines(task, asks, results, work)))
    results, work = read_answers(answers, asks)
    single = shown(task, asks, results, partial(decoded, oracle.base, special=True))
    return task_summary(task, found.manifest, asks, results, work), single


def _items(lm: LanguageModel, bench: Bench, items: Items, path: Path, told: Told) -> ItemSet:
    """Published items of the user's, or made for this model; kept beside the answers."""
    if bench.data is not None and items.load is not None:
        found = items.load(lm, bench.data)
        check_model(found, lm.identity)
    else:
        found = build_items(lm, items, bench.profile.items or 400, bench.seed, told, bench.organisms)
    write_items(path, found)
    return found


def build_items(
    lm: LanguageModel, items: Items, size: int, seed: int, told: Told, organisms: Path | None = None
) -> ItemSet:
    """Make a set for a model; what cannot be made is told in its manifest."""
    wanted = Build(lm, size, seed, {}, organisms, lambda done, total: told(f"making {items.name}", done, total))
    unmeasurable, found = None, ()
    try:
        found = tuple(items.build(wanted))
    except NotMeasurable as error:
        unmeasurable = error.why
        wanted.counts.update(error.counts)
    manifest = Manifest(
        name=items.name, model=lm.identity, origin=items.origin, licence=items.licence,
        made={"size": size, "seed": seed}, counts={**wanted.counts, "items": len(found)}, unmeasurable=unmeasurable,
    )  # fmt: skip
    return ItemSet(manifest, found)


@contextmanager
def _target(oracle: Oracle, found: ItemSet, bench: Bench) -> Iterator[Target]:
    """The target in the states that the items name."""
    base, states = oracle.base, {item.state for item in found.items}
    plants = planted.plants(base, default_layers(oracle.contract)) if any(state.planted for state in states) else None
    folder = bench.organisms or organisms_folder(base)
    with ExitStack() as stack:
        models = {}
        for name in sorted({state.organism for state in states if state.organism}):
            models[name] = loaded = load_target_adapter(base, folder / name)
            stack.callback(remove_adapter, base, loaded.target_adapters[-1])
        yield Target(base, models, plants)


def _asked(
    engine: Engine, task: Task, asks: Sequence[Ask], folder: Path, rated: Callable[[int], None]
) -> Iterator[tuple[str, list[Result | None]]]:
    taken = engine.take(asks)
    for number, rater in enumerate(RATERS):
        rated(number)
        yield rater, engine.answers(task, asks, taken, rater, _kept_in(folder))
    rated(len(RATERS))


def _kept_in(folder: Path) -> Callable[[str, int, Callable[[], list[list[Result]]]], list[list[Result]]]:
    """Blocks of results as files: what an interrupted run wrote is read, the rest is made."""

    def kept(name: str, number: int, make: Callable[[], list[list[Result]]]) -> list[list[Result]]:
        path = folder / f"{name}-{number:05d}.json"
        if not path.exists():
            write_text(path, json.dumps(make(), ensure_ascii=False))
        return json.loads(path.read_text(encoding="utf-8"))

    return kept


def _lines(
    task: Task, asks: Sequence[Ask], results: Mapping[str, Sequence[Result | None]], work: Mapping[str, int]
) -> Iterator[str]:
    yield json.dumps({"task": task.name, "work": work}) + "\n"
    for i, ask in enumerate(asks):
        about = {"item": ask.item.id, "problem": ask.item.problem, "window": ask.window, "wording": ask.wording}
        for rater, found in results.items():
            line = {**about, "rater": rater, "question": ask.question, **(found[i] or {"unavailable": True})}
            yield json.dumps(line, ensure_ascii=False) + "\n"


def read_answers(path: Path, asks: Sequence[Ask]) -> tuple[dict[str, list[Result | None]], dict[str, int]]:
    """The results of each rater, one for each ask, and what was run.

    Raises:
        FormatError: The answers are to other questions.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found: dict[str, list[Result | None]] = {}
    for row in rows[1:]:
        given = {name: row[name] for name in ("log_probs", "likeliest", "text") if name in row}
        found.setdefault(row["rater"], []).append(given or None)
    asked = [(ask.item.id, ask.window, ask.wording) for ask in asks]
    first = [(row["item"], row["window"], row["wording"]) for row in rows[1:] if row["rater"] == RATERS[0]]
    if first != asked or any(len(results) != len(asks) for results in found.values()):
        why = f"it has {len(first)} of {len(asks)} questions, or others"
        raise FormatError(f"{path} does not answer this run's questions.", why, "remove it: it is made again")
    return found, rows[0]["work"]


def _settings(oracle: Oracle, bench: Bench, tasks: Sequence[Task]) -> dict[str, Any]:
    """What a run follows from, JSON-ready."""
    contract = oracle.contract.model_dump(mode="json")
    return {
        "oracle": {"name": oracle.name, "contract": contract, "reader": oracle.reader is not None},
        "model": oracle.base.identity.model_dump(mode="json"),
        "profile": json.loads(json.dumps(asdict(bench.profile))),
        "tasks": [task.name for task in tasks],
        "seed": bench.seed,
        "versions": dict(versions()),
    }


def _claim(oracle: Oracle, bench: Bench, chosen: Sequence[Task], registry: Registry, out: Path) -> list[Task]:
    """Take a new folder, or go on in one that holds this run; the tasks that it then has, in order."""
    path, settings = out / SETTINGS, _settings(oracle, bench, chosen)
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        differs = [name for name in settings if name != "tasks" and before.get(name) != settings[name]]
        if differs:
            raise InputError(
                f"{out} holds another run.",
                f"it differs in {', '.join(differs)}",
                "name a new folder with -o, or remove this one",
            )
        settings["tasks"] = [name for name in registry.tasks if name in {*before["tasks"], *settings["tasks"]}]
    write_text(path, json.dumps(settings, indent=1) + "\n")
    return [registry.tasks[name] for name in settings["tasks"]]
