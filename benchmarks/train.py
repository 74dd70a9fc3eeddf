"""Training speed: Augury's own step against a straightforward one, on the same examples in one interleaved run.

The examples are real ones: the bundled model's own answers, captured and asked about as for the oracle that ships. Each
way runs the same examples, interleaved step by step, so that what else the machine does meets all alike.

    python benchmarks/train.py --json train.json
    python benchmarks/train.py --shape qwen3-8b          # on a GPU: a random model of that shape, nothing downloaded
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from plain_training import Task, Way, check_same, ladder, prompt_key, step
from training_shape import SHAPES, measure_shape, shape_table

from augury.activations.versions import versions
from augury.contract import Contract
from augury.data.example import Context, Example
from augury.data.store import Table
from augury.errors import AuguryError
from augury.lm import LanguageModel
from augury.lm.adapters import adapters_on, remove_adapter
from augury.lm.learning import add_learner, learning
from augury.lm.tuners import tuner_layers
from augury.train.batching import Item, TrainingData, batches, pools, prepare_all
from augury.train.loop import ADAPTER, lora_config
from augury.train.prepare import DATA, prepare
from augury.train.reads import LiveReads, Reads
from augury.train.recipe import Recipe, read_recipe
from augury.train.step import Learner, train_step

CONTEXTS = "answers"
RATE = 1e-5
BAR, SHARE_BAR = 2.0, 0.35
FIRST, HEADLINE = "straightforward", "float32"
SPEEDUPS = {
    "float32": (FIRST, "Augury, float32, captured live"),
    "bfloat16": (f"{FIRST}, bfloat16", "Augury, bfloat16, captured live"),
    "float32, both in length-grouped batches": ("+ length-grouped batches", "Augury, float32, captured live"),
}
Seconds = list[list[float]]  # of each repeat, of each step
RECIPE: dict[str, Any] = {  # the shape of the oracle that ships, on fewer answers
    "name": "training-speed",
    "model": "smollm2",
    "layers": [[18]],
    "injection": {"coefficient": 2.0},
    "lora": {"rank": 32, "alpha": 64},
    "optimizer": {"examples": 2048, "batch_size": 16, "learning_rate": RATE},
    "contexts": {
        CONTEXTS: {
            "type": "rollouts", "train": 384, "heldout": 0, "max_new_tokens": 64, "batch_size": 192,
            "dtype": "bfloat16",
        },
    },
    "sources": {
        "lens": {"type": "lens", "contexts": CONTEXTS, "k": 50, "short_k": 8, "short": 0.9, "heldout": 0},
        "asked": {
            "type": "questions", "contexts": CONTEXTS, "pairs": 0.75, "single": 0.6, "window": 10, "heldout": 0,
            "at_request_end": 0.85,
            "yes_no": {"topic": 12, "near_topic": 3, "category": 2, "task": 1, "speaker": 1, "next_word": 1},
            "open": {"topic": 12, "category": 1, "task": 1, "next": 1},
        },
    },
    "stages": [{"until": 1.0, "weights": {"lens": 0.25, "asked": 0.75}}],
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One row of the table: what it is called, and what one step of it does with a batch."""

    name: str
    step: Callable[[Sequence[Example]], Any]
    grouped: bool
    autocast: str | None
    reads: Reads | None = None  # of Augury's own steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=4, help="steps of each way")
    parser.add_argument("--repeats", type=int, default=2, help="how often; the best time of each step counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--recipe", type=Path, help="a recipe with rollouts as its one set of contexts")
    parser.add_argument("--data", type=Path, help="a folder where the answers are kept or found")
    parser.add_argument("--json", type=Path, help="a JSON file")
    parser.add_argument("--shape", choices=list(SHAPES), help="a random model of this shape, on a GPU")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the GPU's dense bfloat16 products (989: H100, H200)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        found = measure_shape(options.shape, options.steps, options.peak) if options.shape else measure_ways(options)
    except AuguryError as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    print(shape_table(found) if options.shape else table(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def measure_ways(options: argparse.Namespace) -> dict[str, Any]:
    """All ways on the same examples."""
    recipe = read_recipe(options.recipe) if options.recipe else Recipe.model_validate(RECIPE)
    with tempfile.TemporaryDirectory() as folder:
        run = options.data or Path(folder)
        made = prepare(recipe, run, _told)
        files = sorted((run / DATA).glob(f"{_set(recipe)}-train-*.arrow"))
        contexts = Table(Context, files)
        return compare(recipe, made.lm, made.contract, made.data, contexts, options.steps, options.repeats)


def _told(what: str, done: int, total: int | None) -> None:
    print(f"\r\033[K{what}: {done} of {total}", end="", file=sys.stderr, flush=True)


def compare(
    recipe: Recipe,
    lm: LanguageModel,
    contract: Contract,
    data: TrainingData,
    contexts: Sequence[Context],
    steps: int,
    repeats: int = 1,
) -> dict[str, Any]:
    """The report of every way, as a JSON object.

    Raises:
        ModelError: A way does not compute the same; nothing is timed then.
    """
    grouped = [examples for _, examples in pools(recipe, data, 0, steps)]
    with _learner(recipe, lm, contract, data) as learner:
        live = replace(learner, reads={_set(recipe): LiveReads(lm, contexts)})
        items = [prepare_all(lm, contract, live.reads, batch) for batch in grouped]
        prompts = {prompt_key(item.example): item.labelled for batch in items for item in batch}
        task = Task(live, contexts, prompts)
        same = check_same(task, grouped[0], items[0])
        runs = _runs(task, learner.reads, _set(recipe))
        seconds, peaks = _timed(runs, grouped, _shuffled(grouped), repeats)
        rows = [_row(run, seconds[run.name], items, task, peaks) for run in runs]
    named = {row["name"]: row for row in rows}
    slow, fast = SPEEDUPS[HEADLINE]
    return {
        "speedup": _against(seconds[slow], seconds[fast])["speedup"],
        "matrix_share": named[fast]["matrix_share"],
        "tokens_per_second": named[fast]["tokens_per_second"],
        "examples_per_second": named[fast]["examples_per_second"],
        "model": lm.name,
        "recipe": recipe.name,
        "batch_size": recipe.optimizer.batch_size,
        "rank": recipe.lora.rank,
        "steps": steps,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "peak_flops": peaks,
        "same_loss": same,
        "rows": [{**row, **_against(seconds[FIRST], seconds[row["name"]])} for row in rows],
        "speedups": {name: _against(seconds[slow], seconds[fast]) for name, (slow, fast) in SPEEDUPS.items()},
        "bars": {"speedup": BAR, "matrix_share": SHARE_BAR},
    }


def _runs(task: Task, cached: Mapping[str, Reads], name: str) -> list[Run]:
    """The ladder, and Augury's own step, from each way of reading and in each precision."""
    plain = [Run(way.name, _plain(task, way), way.grouped, way.autocast) for way in ladder()]
    low = Way(f"{FIRST}, bfloat16", autocast="bfloat16")
    plain.insert(1, Run(low.name, _plain(task, low), False, "bfloat16"))
    for autocast in ("bfloat16", None):
        for kind, reads in (("captured live", task.learner.reads[name]), ("cached", cached[name])):
            called = f"Augury, {autocast or 'float32'}, {kind}"
            plain.append(Run(called, _own(task.learner, autocast, {name: reads}), True, autocast, reads))
    return plain


def _plain(task: Task, way: Way) -> Callable[[Sequence[Example]], None]:
    return lambda examples: step(task, way, examples)


def _own(learner: Learner, autocast: str | None, reads: Mapping[str, Reads]) -> Callable[[Sequence[Example]], Any]:
    own = replace(learner, reads=reads, settings=learner.settings.model_copy(update={"autocast": autocast}))
    return lambda examples: train_step(own, examples, 0, RATE)


@contextmanager
def _learner(recipe: Recipe, lm: LanguageModel, contract: Contract, data: TrainingData) -> Iterator[Learner]:
    """The adapter on the model, in training; taken off again."""
    parameters = add_learner(lm, lora_config(recipe), ADAPTER, recipe.optimizer.seed)
    try:
        for name, parameter in parameters.items():  # B is zero at first, and then A has no gradient to compare
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.01)
        optimizer = torch.optim.AdamW(parameters.values(), lr=RATE)
        with adapters_on(lm.model, [ADAPTER]), learning(lm, ADAPTER):
            yield Learner(lm, contract, recipe.optimizer, data.reads, parameters, optimizer)
    finally:
        remove_adapter(lm, ADAPTER)


def _set(recipe: Recipe) -> str:
    return next(iter(recipe.contexts))


def _shuffled(grouped: Sequence[Sequence[Example]]) -> list[list[Example]]:
    """The same examples in batches of any lengths."""
    size = len(grouped[0])
    flat = [example for batch in grouped for example in batch]
    random.Random(0).shuffle(flat)
    return [flat[i : i + size] for i in range(0, len(flat), size)]


def _timed(
    runs: Sequence[Run], grouped: Sequence[Sequence[Example]], mixed: Sequence[Sequence[Example]], repeats: int
) -> tuple[dict[str, Seconds], dict[str, float]]:
    """Seconds of every step of each way and repeat, and FLOP/s of large products in the same run."""
    seconds: dict[str, Seconds] = {run.name: [[] for _ in range(repeats)] for run in runs}
    peaks = {"float32": 0.0, "bfloat16": 0.0}
    for run in runs:
        run.step((grouped if run.grouped else mixed)[0])
    for repeat in range(repeats):
        for place in range(len(grouped)):
            for run in runs:
                began = perf_counter()
                run.step((grouped if run.grouped else mixed)[place])
                seconds[run.name][repeat].append(perf_counter() - began)
            for dtype in peaks:
                peaks[dtype] = max(peaks[dtype], gemm_rate(getattr(torch, dtype)))
            _told(f"repeat {repeat + 1} of {repeats}, steps", place + 1, len(grouped))
    print(file=sys.stderr)
    return seconds, peaks


def gemm_rate(dtype: torch.dtype, size: int = 2048, tries: int = 3) -> float:
    """FLOP/s of a product of two square matrices, the best of some tries."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    times = []
    for _ in range(tries):
        began = perf_counter()
        torch.mm(a, b)
        times.append(perf_counter() - began)
    return 2 * size**3 / min(times)


def step_flops(lm: LanguageModel, items: Sequence[Item], share: bool, live: Sequence[Context] | None) -> float:
    """Useful FLOPs of one of Augury's steps, as it is run: no padding and no token of a shared prefix twice.

    Linear layers: `4 * weights` a token, since a frozen weight takes part forwards and in the gradient of its input.
    LoRA: `6 * weights` a token, with the gradient of the weights. Logits: `4 * vocab * width` a label. Attention: `12 *
    width of all heads` for each token that a token sees. Live capture, forwards only and up to its layer: `2 * weights`
    a token, `4 * width` a pair. Left out: norms, activations, softmax, and that the first block needs no gradient of
    its input, which is counted (0.3%).
    """
    heads, width, frozen, lora = _sizes(lm)
    vocab = lm.vocab_size * lm.d_model
    total = 0.0
    for places, batch in batches(lm, items, share):
        prefix = len(batch.rows.prefix)
        rows = [len(items[place].labelled.token_ids) - prefix for place in places]
        pairs = _triangle(prefix) + sum(prefix * row + _triangle(row) for row in rows)
        total += batch.rows.tokens * (4 * frozen + 6 * lora) + 12 * heads * width * lm.n_layers * pairs
        total += 4 * vocab * int((batch.labels != -100).sum())
    return total + (_capture_flops(lm, items, live) if live else 0.0)


def _capture_flops(lm: LanguageModel, items: Sequence[Item], contexts: Sequence[Context]) -> float:
    heads, width, frozen, _ = _sizes(lm)
    lengths: dict[int, int] = {}
    for item in items:
        read = item.example
        lengths[read.context] = max(lengths.get(read.context, 0), read.positions[-1] + 1)
    depth = (max(layer for item in items for layer in item.example.layers) + 1) / lm.n_layers
    pairs = sum(map(_triangle, lengths.values()))
    return depth * (2 * frozen * sum(lengths.values()) + 4 * heads * width * lm.n_layers * pairs)


def _triangle(length: int) -> int:
    return length * (length + 1) // 2


def _sizes(lm: LanguageModel) -> tuple[int, int, int, int]:
    """Query heads, their width, and the parameters of the adapted linear layers and of the adapter."""
    layers = [layer for _, layer in tuner_layers(lm.model)]
    frozen = sum(layer.get_base_layer().weight.numel() for layer in layers)
    lora = sum(p.numel() for layer in layers for a in ("lora_A", "lora_B") for p in getattr(layer, a).parameters())
    config = lm.model.config
    heads = int(config.num_attention_heads)
    return heads, int(getattr(config, "head_dim", None) or lm.d_model // heads), frozen, lora


def _row(
    run: Run, seconds: Seconds, items: Sequence[Sequence[Item]], task: Task, peaks: Mapping[str, float]
) -> dict[str, Any]:
    """The rates of one way, and of Augury's own steps the share of the machine's matrix products."""
    took, precision = sum(map(min, zip(*seconds, strict=True))), run.autocast or "float32"
    found: dict[str, Any] = {
        "name": run.name,
        "precision": precision,
        "seconds": seconds,
        "examples_per_second": sum(map(len, items)) / took,
        "tokens_per_second": sum(len(item.labelled.token_ids) for batch in items for item in batch) / took,
        "matrix_share": None,
    }
    if run.reads is not None:
        own, live = task.learner, task.contexts if isinstance(run.reads, LiveReads) else None
        found["flops"] = sum(step_flops(own.lm, batch, own.settings.shares, live) for batch in items)
        found["matrix_share"] = found["flops"] / took / peaks[precision]
    return found


def _against(slow: Seconds, fast: Seconds) -> dict[str, Any]:
    """How many times faster: with the best time of each step, and the least and the most over the repeats."""
    each = [sum(a) / sum(b) for a, b in zip(slow, fast, strict=True)]
    best = sum(map(min, zip(*slow, strict=True))) / sum(map(min, zip(*fast, strict=True)))
    return {"speedup": best, "speedup_range": [min(each), max(each)]}


def table(found: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{found['model']}, rank {found['rank']}, batch {found['batch_size']}, {found['threads']} threads, "
        f"{found['steps']} steps of each, best of {found['repeats']}",
        f"{'':<34}{'examples/s':>11}{'tokens/s':>10}{'times':>7}{'range':>14}{'matrix share':>14}",
    ]
    for row in found["rows"]:
        low, high = row["speedup_range"]
        share = "" if row["matrix_share"] is None else f"{row['matrix_share']:.0%}"
        lines.append(
            f"{row['name']:<34}{row['examples_per_second']:>11.2f}{row['tokens_per_second']:>10.0f}"
            f"{row['speedup']:>7.2f}{f'{low:.2f}-{high:.2f}':>14}{share:>14}"
        )
    for name, one in found["speedups"].items():
        low, high = one["speedup_range"]
        lines.append(
            f"speedup, {name}: {one['speedup']:.2f} ({low:.2f} to {high:.2f}; bar: {found['bars']['speedup']})"
        )
    peaks = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in found["peak_flops"].items())
    lines.append(f"large products in the same run: {peaks} (bar of the share: {found['bars']['matrix_share']:.0%})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
