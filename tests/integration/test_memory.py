"""The memory bar: a capture needs hardly more than the forward pass it is made of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require


@pytest.mark.slow
@pytest.mark.bundled
def test_a_capture_needs_hardly_more_than_its_forward_pass(root: Path, tmp_path: Path, smollm2: Any) -> None:
    require(Path("/proc/self/status").exists(), "anonymous memory is read from Linux's /proc/self/status")
    out = tmp_path / "memory.json"
    subprocess.run([sys.executable, root / "benchmarks" / "capture_memory.py", "--out", out], check=True)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["tokens"] == 2000
    # A forward pass of 2,000 tokens needs at least a few hidden states: else nothing was measured.
    assert found["forward"]["peak_bytes"] > 3 * 2000 * smollm2.d_model * 4
    assert found["peak_ratio"] < found["bar"] == 1.1
    sizes = found["capture"]
    assert sizes["capture_bytes"] == 2000 * smollm2.d_model * 4
    assert sizes["capture_bytes"] == pytest.approx(sizes["file_bytes"], rel=0.1)
    assert sizes["saved_bytes"] == pytest.approx(sizes["file_bytes"], rel=0.1)
