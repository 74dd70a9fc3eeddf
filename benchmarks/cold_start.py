"""Seconds from a cold start to an answer: interpreter, libraries, model, oracle and the answer itself.

Each run is a process of its own. The first one is left out: it reads files that the others find in memory.

    python benchmarks/cold_start.py --runs 5 --out cold_start.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TEXT, QUESTION = "Explain how bread is baked.", "What is this about?"
CASES = {
    "greedy": ([], 15.0),
    "ten samples and all controls": (["--samples", "10", "--controls"], 30.0),
}


def seconds(options: list[str]) -> float:
    """One run of `augury ask`."""
    command = [sys.executable, "-m", "augury", "ask", TEXT, "--question", QUESTION, *options]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(runs: int) -> dict[str, Any]:
    """All runs of each case, beside its bar."""
    seconds([])
    return {
        name: {"seconds": [seconds(options) for _ in range(runs)], "bar": bar} for name, (options, bar) in CASES.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    found = measure(options.runs)
    for name, case in found.items():
        times = case["seconds"]
        print(
            f"{name}: median {statistics.median(times):.1f} s, {min(times):.1f} to {max(times):.1f} s "
            f"in {len(times)} runs (bar: {case['bar']:.0f} s)"
        )
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
