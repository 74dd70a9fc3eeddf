"""Wall time of the bench against one question at a time, on the same questions of the `core` profile.

One question at a time is what a plain loop does: each question captures its own context, once for itself and once for
its donor, and each of its raters runs the whole prompt in a pass of its own. Both sides are asked the same questions,
about the first items of every task in all wordings and windows; making items is left out of both.

    python benchmarks/bench.py --items 12 --json bench.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import augury
from augury.bench.asks import Ask
from augury.bench.build import build_items, shipped_items
from augury.bench.engine import RATERS, Engine
from augury.bench.item import Item
from augury.bench.profile import PROFILES
from augury.bench.readings import Target
from augury.bench.task import REGISTRY, Task
from augury.bench.tasks import planted
from augury.oracle.controls import SHUFFLED
from augury.oracle.reading import default_layers

TASKS = (
    "planted", "same_window", "missing_info", "classification", "classification_new", "topic", "number_prediction",
    "past_lens", "future_lens",
)  # fmt: skip
BAR = 3.0


def made_now(name: str, number: int, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Blocks that are not kept."""
    del name, number
    return make()


def questions(engine: Engine, names: Sequence[str], items: int) -> dict[str, tuple[Task, list[Ask]]]:
    """What each task asks of its first items."""
    found = {}
    profile = replace(PROFILES["core"], items=items, made=max(items, 24))
    for task in REGISTRY.chosen(names):
        kind = REGISTRY.items[task.items]
        base = engine.oracle.base
        built = shipped_items(base, kind.name, 0) or build_items(base, kind, profile.made, 0, lambda *_: None)
        if built.manifest.unmeasurable is None or built.items:
            found[task.name] = (task, profile.asks(task, built.items))
    return found


def together(engine: Engine, task: Task, asks: Sequence[Ask]) -> None:
    """As the bench does it."""
    taken = engine.take(asks)
    for rater in RATERS:
        engine.answers(task, asks, taken, rater, made_now)


def one_by_one(engine: Engine, task: Task, asks: Sequence[Ask]) -> None:
    """Each question by itself: its own capture, and a pass for each rater."""
    for place, ask in enumerate(asks):
        taken = engine.take([ask])
        for rater in RATERS:
            if rater == SHUFFLED:  # another item's activations, the same question
                donor = replace(ask, item=_read_instead(ask.item, asks[place - 1].item))
                engine.answers(task, [donor], engine.take([donor]), "oracle", made_now)
            else:
                engine.answers(task, [ask], taken, rater, made_now)


def _read_instead(item: Item, donor: Item) -> Item:
    """The item with another one's context under it."""
    places = donor.positions[-len(item.positions) :]
    return replace(item, token_ids=donor.token_ids, positions=places, state=donor.state)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    model = augury.load_model(options.model)
    with augury.load_oracle(options.oracle, model) as oracle:
        plants = planted.plants(model, default_layers(oracle.contract))
        fast = Engine(oracle, Target(model, plants=plants))
        slow = replace(fast, batch_size=1)
        rows = {}
        asked = questions(fast, options.tasks, options.items)
        for name, (task, asks) in asked.items():
            seconds = {}
            for how, engine, run in (("together", fast, together), ("one by one", slow, one_by_one)):
                began = time.perf_counter()
                run(engine, task, asks)
                seconds[how] = time.perf_counter() - began
            rows[name] = {"questions": len(asks), **seconds, "times": seconds["one by one"] / seconds["together"]}
            print(f"{name}: {rows[name]['times']:.1f} times", file=sys.stderr, flush=True)
    total = {how: sum(row[how] for row in rows.values()) for how in ("together", "one by one")}
    return {"tasks": rows, **total, "times": total["one by one"] / total["together"], "bar": BAR}


def show(found: dict[str, Any]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Column, Table

    heads = [Column(name, justify="right") for name in ("questions", "together, s", "one by one, s", "times")]
    table = Table("task", *heads)
    for name, row in found["tasks"].items():
        table.add_row(
            name, str(row["questions"]), f"{row['together']:.1f}", f"{row['one by one']:.1f}", f"{row['times']:.1f}"
        )
    table.add_row("all", "", f"{found['together']:.1f}", f"{found['one by one']:.1f}", f"{found['times']:.1f}")
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--oracle", default="smollm2")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--items", type=int, default=12, help="of each task")
    parser.add_argument("--tasks", type=lambda names: tuple(names.split(",")), default=TASKS)
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    try:
        found = measure(options)
    except augury.AuguryError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if found["times"] >= BAR else 2


if __name__ == "__main__":
    sys.exit(main())
