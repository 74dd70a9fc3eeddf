"""Training takes no more memory for ten times the examples: they are mapped from disk, not read into memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, require

STEPS = 300
FEW, MANY = 10_000, 100_000
STATUS = Path("/proc/self/status")


def anonymous_bytes() -> int:
    found = re.search(r"^RssAnon:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def write_examples(folder: Path, count: int) -> None:
    """Examples about six contexts, as a build writes them."""
    from augury.data.example import Example
    from augury.data.store import Shards

    shards = Shards(folder, "asked", "train", Example, "made up")
    for first in range(0, count, 5000):
        rows = [
            Example(
                "open", "topic", "train", i % 6, (12, 13 + i % 9), f"What is number {i} about?", "tea", None,
                "What is number {x} about?", source="asked", contexts="answers", layers=(2,), unit=i,
            )
            for i in range(first, first + 5000)
        ]  # fmt: skip
        shards.append(rows, len(rows))


def peak_while_training(folder: Path) -> int:
    """The most anonymous memory that this process holds while it trains on the folder's examples."""
    import torch

    from augury.data.example import Example
    from augury.data.mix import Order, Stage
    from augury.data.store import Shards
    from augury.train.batching import TrainingData
    from augury.train.loop import train_adapter
    from augury.train.reads import cache_reads
    from tests.tiny import tiny_contract, tiny_lm
    from tests.training import recipe, rollouts

    torch.set_num_threads(1)
    lm = tiny_lm()
    reads = cache_reads(lm, rollouts(lm), [2], folder / "reads", "train")
    table = Shards(folder, "asked", "train", Example, "made up").table()
    made = recipe(examples=4 * STEPS, checkpoint_every=STEPS)
    stages = [Stage(until=1.0, weights={"asked": 1.0})]
    settings = made.optimizer
    order = Order(stages, {"asked": table.column("unit")}, settings.pool * settings.batch_size, 4 * STEPS, 0)
    data = TrainingData({"asked": table}, order, {"answers": reads})
    seen, done = [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen[0] = max(seen[0], anonymous_bytes())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as run:
        assert train_adapter(lm, tiny_contract(lm), made, data, Path(run)) == STEPS
    done.set()
    watcher.join()
    return seen[0]


@pytest.mark.slow
def test_ten_times_the_examples_take_no_more_memory(tmp_path: Path) -> None:
    require(STATUS.exists(), "anonymous memory is read from Linux's /proc/self/status")
    peaks = {}
    for count in (FEW, MANY):
        write_examples(tmp_path / str(count), count)
        command = [sys.executable, __file__, str(tmp_path / str(count))]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "PYTHONPATH": paths}
        )
        peaks[count] = json.loads(done.stdout)
    assert peaks[FEW] > 50e6, "else nothing was measured"
    assert peaks[MANY] == pytest.approx(peaks[FEW], rel=0.1)


if __name__ == "__main__":
    print(peak_while_training(Path(sys.argv[1])))
