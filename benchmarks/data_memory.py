"""Memory that building a data set needs, with many examples against few: it must not grow with them.

Each size is built in a process of its own from texts and questions made up here (half of the examples from a lens over
the texts, half from a file of questions), on a tiny random model. What is compared is the highest anonymous memory;
mapped files come and go with what else the machine does, and are not counted. Linux only.

    python benchmarks/data_memory.py --out data_memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capture_memory import ALLOCATOR, MB, status_bytes

ROOT = Path(__file__).resolve().parent.parent
FEW, MANY = 10_000, 100_000
BAR = 1.1
WORDS = ("tea", "bread", "rain", "chess", "lamp", "river", "stone", "letter", "garden", "winter", "copper", "window")


def make_files(folder: Path, examples: int) -> dict[str, Any]:
    """Texts and questions, half of the examples each, and the recipe that reads them."""
    with (folder / "texts.txt").open("w", encoding="utf-8") as texts:
        for i in range(examples // 2):
            texts.write(f"{i} " + " ".join(WORDS[(i * k + k * k) % len(WORDS)] for k in range(1, 13)) + "\n")
    with (folder / "mine.jsonl").open("w", encoding="utf-8") as mine:
        for i in range(examples // 2):
            row = {"text": f"{WORDS[i % len(WORDS)]} {i}", "question": "Which word?", "answer": WORDS[i % len(WORDS)]}
            mine.write(json.dumps(row) + "\n")
    return {
        "name": "memory",
        "model": "tiny",
        "layers": [[2]],
        "contexts": {"texts": {"type": "text", "path": str(folder / "texts.txt")}},
        "sources": {
            "lens": {"type": "lens", "contexts": "texts", "k": 8, "train": examples // 2},
            "mine": {"type": "custom", "path": str(folder / "mine.jsonl")},
        },
    }


def watched(run: Callable[[], Any]) -> tuple[int, int, float]:
    """Anonymous memory before a run, its peak during it, in bytes, and the seconds it took."""
    before, seen, done = status_bytes("RssAnon"), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen[0] = max(seen[0], status_bytes("RssAnon"))
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return before, seen[0], time.perf_counter() - began


def worker(examples: int) -> dict[str, Any]:
    """Build one size in this process."""
    sys.path.insert(0, str(ROOT))
    import torch

    from augury.data.build import build
    from augury.data.recipe import DataRecipe
    from tests.tiny import tiny_lm

    torch.set_num_threads(1)
    lm = tiny_lm()
    with tempfile.TemporaryDirectory() as folder:
        recipe = DataRecipe.model_validate(make_files(Path(folder), examples))
        before, peak, seconds = watched(lambda: build(lm, recipe, Path(folder) / "data"))
        files = list((Path(folder) / "data").rglob("*.arrow"))
        size = sum(path.stat().st_size for path in files)
    return {"examples": examples, "before_bytes": before, "peak_bytes": peak, "seconds": seconds, "disk_bytes": size}


def measure(examples: int) -> dict[str, Any]:
    """Run a worker in a process of its own."""
    command = [sys.executable, __file__, "--worker", str(examples)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **ALLOCATOR})
    return json.loads(done.stdout.splitlines()[-1])


def report(few: int, many: int) -> dict[str, Any]:
    """Both sizes and the ratio of their peaks."""
    found = {"few": measure(few), "many": measure(many), "bar": BAR}
    return {**found, "peak_ratio": found["many"]["peak_bytes"] / found["few"]["peak_bytes"]}


def table(found: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{'examples':>10}{'peak':>12}{'above start':>14}{'on disk':>12}{'time':>10}"]
    for one in (found["few"], found["many"]):
        above = one["peak_bytes"] - one["before_bytes"]
        lines.append(
            f"{one['examples']:>10,}{one['peak_bytes'] / MB:>9.1f} MB{above / MB:>11.1f} MB"
            f"{one['disk_bytes'] / MB:>9.1f} MB{one['seconds']:>8.0f} s"
        )
    return "\n".join([*lines, f"many / few: {found['peak_ratio']:.3f} (bar: below {found['bar']})"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker)))
        return
    found = report(options.few, options.many)
    print(table(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
