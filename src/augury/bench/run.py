"""A run of the bench: every question of every task to the oracle and its controls, kept as it goes, and the summary."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from augury.activations.versions import versions
from augury.bench.asks import Ask
from augury.bench.baseline import probe_items, probed
from augury.bench.browse import shown
from augury.bench.build import Told, build_items, published_items, sets_in, shipped_items
from augury.bench.conclude import ANSWERS, ITEMS, SETTINGS, SINGLE, conclude, judge_run, tasks_of, unmeasurable
from augury.bench.engine import PROBE, RATERS, Engine
from augury.bench.item import Item, ItemSet, check_model, read_items, write_items
from augury.bench.judge import JudgeSettings
from augury.bench.kept import kept_in, write_answers
from augury.bench.organisms import fingerprint_of, organisms_folder
from augury.bench.profile import Profile
from augury.bench.readings import Reading, Taken, Target
from augury.bench.summary import Summary
from augury.bench.task import Items, Registry, Task
from augury.bench.tasks import REGISTRY, planted
from augury.errors import InputError
from augury.files import locked, write_text
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_parameters, load_target_adapter, remove_adapter
from augury.oracle import Oracle
from augury.oracle.plot import need_matplotlib
from augury.oracle.reading import decoded, default_layers
from augury.oracle.together import Work
from augury.stats.clusters import need_scipy
from augury.stats.probe import need_sklearn

log = logging.getLogger(__name__)
BLOCKS = "blocks"


@dataclass(frozen=True)
class Bench:
    """What a run does.

    Attributes:
        profile: How much is asked.
        tasks: Names of the tasks; None: the profile's.
        seed: Of items and donors.
        data: The user's folder of published items; None: they are made for the model.
        organisms: Where the target's organisms are, or are made; None: in the cache.
        judge: Who judges open answers; None: they are kept, and not judged.
        items: A folder of sets that `augury bench build` made for the target; the others are those that ship for it,
            or are made now.
    """

    profile: Profile
    tasks: tuple[str, ...] | None = None
    seed: int = 0
    data: Path | None = None
    organisms: Path | None = None
    judge: JudgeSettings | None = None
    items: Path | None = None

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
        NetworkError: The judge gives no reply; all answers are kept, and can be judged with `judge_run`.
    """
    check_installed()
    chosen = bench.chosen(registry)
    why, instead = "another process holds its lock", "wait for it, or choose another -o"
    with locked(out.resolve() / ".lock", InputError(f"{out} is being worked on already.", why, instead)):
        _check_sets(bench, registry)
        tasks = _claim(oracle, bench, chosen, registry, out)
        done = Progressed(told, len(tasks))
        for name in dict.fromkeys(task.items for task in tasks):
            _set(
                oracle, bench, registry, registry.items[name], [task for task in tasks if task.items == name], out, done
            )
        summary = conclude(out, registry)
        shutil.rmtree(out / BLOCKS, ignore_errors=True)  # all of it stands in the answers
        opened = any(found.task.rubric and found.asked for found in summary.tasks)
        return judge_run(out, bench.judge, registry, told) if bench.judge is not None and opened else summary


def _check_sets(bench: Bench, registry: Registry) -> None:
    """A folder of items in which none is known would change nothing, and say nothing."""
    for name in sets_in(bench.items) if bench.items is not None else ():
        registry.items_of(name)


def check_installed() -> None:
    """Find out before hours of work whether the intervals and the report can be made.

    Raises:
        AuguryError: A package is missing.
    """
    need_scipy()
    need_sklearn()
    need_matplotlib("The report")


@dataclass
class Progressed:
    """Tells how much of all tasks is done, one rater after the other."""

    told: Told
    tasks: int
    raters: int = 0

    def rated(self, raters: int = 1) -> None:
        """So many raters more have answered a task: one bar for all of them, so that the time left can be told."""
        self.raters += raters
        self.told("asking", self.raters, self.tasks * len(RATERS))


def _set(
    oracle: Oracle,
    bench: Bench,
    registry: Registry,
    items: Items,
    tasks: Sequence[Task],
    out: Path,
    done: Progressed,
) -> None:
    """All tasks about one set of items: what any of them reads is captured once."""
    path = out / ITEMS / f"{items.name}.jsonl"
    found = read_items(path) if path.exists() else _items(oracle.base, bench, items, path, done.told)
    check_model(found, oracle.base.identity)
    asked = [task for task in tasks if unmeasurable(task, found, registry) is None]
    done.rated(len(RATERS) * (len(tasks) - len(asked)))
    tasks = asked
    asks = {task.name: bench.profile.asks(task, found.items) for task in tasks}
    missing = [task for task in tasks if not (out / ANSWERS / f"{task.name}.jsonl").exists()]
    done.rated(len(RATERS) * (len(tasks) - len(missing)))
    if missing:
        with _target(oracle, found, bench) as target:
            engine = Engine(oracle, target, seed=bench.seed)
            probes = {task.name: probe_items(task, found.items) for task in tasks}
            more = [
                Ask(item, task.window, 0, "") for task in tasks for group in probes[task.name] for item in group
            ]  # a probe is trained on items that the oracle is not asked about
            # Of all tasks, done or not: a batch's neighbours leave float noise, and to go on must change nothing.
            taken = engine.take([*(ask for task in tasks for ask in asks[task.name]), *more])
            for task in missing:
                _ask(engine, task, asks[task.name], probes[task.name], taken, out, done)


def _ask(
    engine: Engine,
    task: Task,
    asks: Sequence[Ask],
    probes: Sequence[Sequence[Item]],
    taken: dict[Reading, Taken],
    out: Path,
    done: Progressed,
) -> None:
    """Every rater's answers to one task, and the probe's, into its file."""
    kept = kept_in(out / BLOCKS / task.name)
    results, work = {}, Work()
    for rater in RATERS:
        results[rater], run = engine.answers(task, asks, taken, rater, kept)
        work.add(run)
        done.rated()
    probe = probed(task, probes, asks, taken, engine.seed)
    if probe is not None:
        results[PROBE] = probe
    read = len({Reading.of(ask.item) for ask in asks})
    single = shown(task, asks, results, partial(decoded, engine.oracle.base, special=True))
    write_text(out / SINGLE / f"{task.name}.json", json.dumps(single, ensure_ascii=False) + "\n")
    write_answers(out / ANSWERS / f"{task.name}.jsonl", task, asks, results, {"readings": read, **asdict(work)})


def _items(lm: LanguageModel, bench: Bench, items: Items, path: Path, told: Told) -> ItemSet:
    """Items that the user has made, or published ones, or those that ship, or made now; kept beside the answers."""
    shipped = shipped_items(lm, items.name, bench.seed)
    mine = sets_in(bench.items).get(items.name) if bench.items is not None else None
    if bench.data is not None and items.load is None and mine is None:
        log.warning("%s: there are no published items of it, so they are made for this model", items.name)
    if mine is not None:
        found = read_items(mine)
        check_model(found, lm.identity)
    elif bench.data is not None and items.load is not None:
        found = published_items(lm, items, bench.data, bench.seed, bench.organisms)
        check_model(found, lm.identity)
    elif shipped is not None:
        found = shipped
    else:
        found = build_items(lm, items, bench.profile.made, bench.seed, told, bench.organisms)
    write_items(path, found)
    return found


@contextmanager
def _target(oracle: Oracle, found: ItemSet, bench: Bench) -> Iterator[Target]:
    """The target in the states that the items name."""
    base, states = oracle.base, {item.state for item in found.items}
    plants = planted.plants(base, default_layers(oracle.contract)) if any(state.planted for state in states) else None
    folder = bench.organisms or organisms_folder(base)
    with ExitStack() as stack:
        models = {}
        for name in sorted({state.organism for state in states if state.organism}):
            _check_organism(found, name, folder / name)
            models[name] = loaded = load_target_adapter(base, folder / name)
            stack.callback(remove_adapter, base, loaded.target_adapters[-1])
        yield Target(base, models, plants)


def _check_organism(found: ItemSet, name: str, folder: Path) -> None:
    """What an organism knows is a fact about the very adapter that was asked."""
    if found.manifest.organisms.get(name, fingerprint_of(folder)) != fingerprint_of(folder):
        raise InputError(
            f"The organism {name} is another than the one that the items are about.",
            f"the adapter in {folder} has changed since they were made",
            "start a new run with -o, which makes its items anew",
        )


def _settings(oracle: Oracle, bench: Bench, tasks: Sequence[Task]) -> dict[str, Any]:
    """What a run follows from, JSON-ready."""
    contract = oracle.contract.model_dump(mode="json")
    return {
        "oracle": {
            "name": oracle.name,
            "contract": contract,
            "adapter": adapter_digest(oracle, oracle.adapter),
            "reader": oracle.reader is not None,
            "reader's adapter": adapter_digest(oracle, oracle.reader) if oracle.reader else None,
            "notes": list(oracle.notes),
        },
        "dtype": str(oracle.base.dtype).removeprefix("torch."),
        "model": oracle.base.identity.model_dump(mode="json"),
        "profile": json.loads(json.dumps(asdict(bench.profile))),
        "tasks": [task.name for task in tasks],
        "seed": bench.seed,
        "data": str(bench.data.resolve()) if bench.data else None,
        "items": str(bench.items.resolve()) if bench.items else None,
        "versions": dict(versions()),
    }


def adapter_digest(oracle: Oracle, adapter: str) -> str:
    """SHA-256 over an adapter's tensors, as they are in memory."""
    digest = hashlib.sha256()
    for name, parameter in sorted(adapter_parameters(oracle.base.model, adapter).items()):
        digest.update(name.encode())
        digest.update(parameter.detach().to(torch.float32).cpu().numpy().tobytes())
    return digest.hexdigest()


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
    return tasks_of(settings, registry)
