"""The memory bar of building data: many examples need no more than few."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_number_of_examples(root: Path, tmp_path: Path) -> None:
    require(Path("/proc/self/status").exists(), "anonymous memory is read from Linux's /proc/self/status")
    out = tmp_path / "memory.json"
    subprocess.run([sys.executable, root / "benchmarks" / "data_memory.py", "--out", out], check=True)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["few"]["examples"], found["many"]["examples"]) == (10_000, 100_000)
    assert found["many"]["disk_bytes"] > 8 * found["few"]["disk_bytes"]  # else it was not built
    assert found["peak_ratio"] < found["bar"] == 1.1, found
