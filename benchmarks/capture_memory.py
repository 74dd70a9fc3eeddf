"""Memory that a capture needs, against a bare forward pass of the same blocks.

Each runs in a process of its own: the model is loaded, the operation runs once on 16 tokens, and then on the whole
context, where the highest anonymous memory above what stood after the 16 tokens is taken. Linux only.

    python benchmarks/capture_memory.py --out capture_memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WARM_UP_TOKENS = 16
RUNS = 3
BAR = 1.1
# Each tensor gets pages of its own and gives them back. Without it glibc keeps or splits freed blocks as chance has it,
# and one and the same forward pass peaks at 50 MB in one process and at 100 MB in the next.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}
MB = 1e6


def status_bytes(field: str) -> int:
    """One figure of `/proc/self/status`, in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def peak_above(run: Callable[[], Any]) -> tuple[int, float]:
    """The highest anonymous memory during three runs above that before them, in bytes, and the seconds of a run.

    A thread reads it all the while, as often as it can: products run without Python's lock, so a block's products of a
    long context are seen hundreds of times. The kernel's own high-water mark also counts the pages of mapped files,
    which come and go with what else the machine does: with it this figure wandered between 0.84 and 1.41.
    """
    before, seen, done = status_bytes("RssAnon"), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen[0] = max(seen[0], status_bytes("RssAnon"))
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        for _ in range(RUNS):
            run()
    finally:
        done.set()
        watcher.join()
    return seen[0] - before, (time.perf_counter() - began) / RUNS


def operation(kind: str, model: Any, layer: int) -> Callable[[Sequence[int]], Any]:
    """What is measured, as a function of token ids."""
    import torch

    from augury.activations import capture_vectors

    if kind == "capture":
        return lambda ids: capture_vectors(model, [ids], [layer], [range(len(ids))])
    # The reference: the model cut off above the layer, without LM head or cache, and without any code of ours.
    parent, _, name = model.decoder.path.rpartition(".")
    setattr(model.model.get_submodule(parent), name, torch.nn.ModuleList(model.blocks[: layer + 1]))

    def forward(ids: Sequence[int]) -> None:
        with torch.no_grad():
            model.decoder.trunk(input_ids=torch.tensor([list(ids)]), use_cache=False)

    return forward


def worker(kind: str, source: str, tokens: int, layer: str) -> dict[str, Any]:
    """Measure one operation in this process."""
    import torch

    from augury.activations import capture, capture_bytes, resolve_layers, save
    from augury.activations.store import saved_bytes
    from augury.lm import load_model

    torch.set_num_threads(1)
    model = load_model(source, dtype="float32", device_map="cpu")
    (index,) = resolve_layers(model.n_layers, layer)
    ids = [(7 * i + 3) % min(model.vocab_size, 9973) for i in range(tokens)]
    run = operation(kind, model, index)
    run(ids[:WARM_UP_TOKENS])
    peak, seconds = peak_above(lambda: run(ids))
    found: dict[str, Any] = {"peak_bytes": peak, "seconds": seconds, "layer": index, "model": model.name}
    if kind == "capture":
        acts = capture(model, ids, index, "all")
        with tempfile.TemporaryDirectory() as folder:
            found["file_bytes"] = save(acts, Path(folder) / "acts.safetensors").stat().st_size
        found["capture_bytes"] = capture_bytes(model, 1, tokens)
        found["saved_bytes"] = saved_bytes(acts)
    return found


def measure(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a worker in a process of its own."""
    command = [sys.executable, __file__, "--worker", kind, "--model", options.model]
    command += ["--tokens", str(options.tokens), "--layer", options.layer]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **ALLOCATOR})
    return json.loads(done.stdout.splitlines()[-1])


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Both measurements and their ratios."""
    forward, capture = measure("forward", options), measure("capture", options)
    return {
        "model": capture["model"],
        "tokens": options.tokens,
        "layer": capture["layer"],
        "capture": capture,
        "forward": forward,
        "peak_ratio": capture["peak_bytes"] / forward["peak_bytes"],
        "bar": BAR,
        "estimate_ratio": capture["saved_bytes"] / capture["file_bytes"],
    }


def table(found: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{found['model']}, layer {found['layer']}, {found['tokens']} tokens, float32, CPU",
        f"{'':<10}{'peak above warm-up':>20}{'time':>10}",
    ]
    for kind in ("forward", "capture"):
        one = found[kind]
        lines.append(f"{kind:<10}{one['peak_bytes'] / MB:>17.1f} MB{one['seconds']:>8.1f} s")
    sizes = found["capture"]
    lines += [
        f"capture / forward: {found['peak_ratio']:.3f} (bar: below {found['bar']})",
        f"estimate {sizes['saved_bytes']:,} bytes, file {sizes['file_bytes']:,} bytes",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--layer", default="62%")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--worker", choices=("forward", "capture"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options.model, options.tokens, options.layer)))
        return
    found = report(options)
    print(table(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
