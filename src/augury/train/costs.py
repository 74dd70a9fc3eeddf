"""What a training run will cost, before it is spent: reckoned from the recipe and the model's files."""

from __future__ import annotations

import json
import math
import struct
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from augury.files import expanded
from augury.lm import bundled
from augury.lm.load import ALIASES
from augury.train.metrics import read_metrics
from augury.train.recipe import Recipe

PROMPT_TOKENS = 35  # of an oracle's question and answer, without the prefix that a batch shares
ROLLOUT_PROMPT = 45
EFFICIENCY = 0.35  # of the speed of one large matrix product, as small steps reach it
LORA_BYTES = 16  # a float32 value, its gradient and Adam's two moments
KEPT_BYTES = 120  # for the backward pass, for each token, block and unit of width
PROCESS_BYTES = 600_000_000  # Python and torch themselves


@dataclass(frozen=True)
class Costs:
    """A run in figures. What depends on the model's files is None where they are not on this machine.

    Attributes:
        steps: Optimizer steps.
        examples: Training examples.
        tokens: Tokens that go through the model in training, about.
        rollout_tokens: Tokens sampled from the target, at most.
        memory_bytes: The most memory, about.
        disk_bytes: Rollouts, activations and checkpoints, about.
        seconds: Rollouts, training and report on this machine, about.
        measured: Whether tokens and seconds come from the steps that the run has done.
    """

    steps: int
    examples: int
    tokens: int
    rollout_tokens: int
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    seconds: float | None = None
    measured: bool = False

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def lines(self) -> list[str]:
        """The figures with units, one line each."""
        unknown = "not known (the model is not on this machine)"
        done = "as the steps so far took" if self.measured else "roughly"
        return [
            f"steps     {self.steps:,} with {self.examples:,} examples",
            f"tokens    {self.tokens / 1e6:.2f} million in training, {self.rollout_tokens / 1e6:.2f} million sampled",
            f"memory    {unknown if self.memory_bytes is None else f'about {self.memory_bytes / 1e9:.1f} GB'}",
            f"disk      {unknown if self.disk_bytes is None else f'about {self.disk_bytes / 1e9:.1f} GB'}",
            f"time      {unknown if self.seconds is None else f'{done} {_hours(self.seconds)} on this machine'}",
        ]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{math.ceil(seconds / 60)} minutes"


def estimate(recipe: Recipe, run: Path | None = None) -> Costs:
    """What the run costs; from its own metrics where it has begun."""
    optimizer, rollouts = recipe.optimizer, recipe.rollouts
    count = rollouts.train + rollouts.heldout
    costs = Costs(
        steps=-(-optimizer.examples // optimizer.batch_size),
        examples=optimizer.examples,
        tokens=optimizer.examples * PROMPT_TOKENS,
        rollout_tokens=count * rollouts.max_new_tokens,
    )
    shape = _shape(recipe.model)
    if shape is not None:
        costs = _with_shape(costs, recipe, shape, count)
    return _measured(costs, run)


def _with_shape(costs: Costs, recipe: Recipe, shape: _Shape, count: int) -> Costs:
    trained = LORA_BYTES * recipe.lora.rank * shape.lora_width
    tokens_in_step = recipe.optimizer.batch_size * (PROMPT_TOKENS + ROLLOUT_PROMPT)
    kept_for_backward = KEPT_BYTES * shape.d_model * shape.n_layers * tokens_in_step
    layers = len({layer for group in recipe.layers for layer in group})
    reads = 2 * count * (rollout_tokens := recipe.rollouts.max_new_tokens + ROLLOUT_PROMPT) * layers * shape.d_model
    passes = 2 * count * rollout_tokens * 2 + 4 * costs.tokens  # twice for sampling and capturing; forward and back
    return replace(
        costs,
        memory_bytes=PROCESS_BYTES + 4 * shape.parameters + trained + kept_for_backward + reads,
        disk_bytes=reads + 3 * trained,
        seconds=passes * shape.parameters / (EFFICIENCY * _flops(recipe.optimizer.autocast)),
    )


def _measured(costs: Costs, run: Path | None) -> Costs:
    steps = [] if run is None else read_metrics(run)[-200:]
    if not steps:
        return costs
    tokens = sum(step.tokens for step in steps) / len(steps)
    seconds = sum(step.seconds for step in steps) / len(steps)
    left = max(0, costs.steps - steps[-1].step)
    return replace(costs, tokens=round(tokens * costs.steps), seconds=seconds * left, measured=True)


@dataclass(frozen=True)
class _Shape:
    parameters: int
    d_model: int
    n_layers: int
    lora_width: int  # inputs and outputs of all adapted matrices together


def _shape(model: str) -> _Shape | None:
    """The model's size, from its configuration and the headers of its weights; None where it is not a folder here."""
    folder = bundled.smollm2_folder() if model in ALIASES else expanded(model)
    config, weights = folder / "config.json", sorted(folder.glob("*.safetensors"))
    if not config.is_file() or not weights:
        return None
    found = json.loads(config.read_text(encoding="utf-8"))
    found = found.get("text_config", found)
    d_model = found.get("hidden_size") or found.get("n_embd")
    n_layers = found.get("num_hidden_layers") or found.get("n_layer")
    if not d_model or not n_layers:
        return None
    inner = found.get("intermediate_size") or 4 * d_model
    lora = n_layers * (4 * 2 * d_model + 3 * (d_model + inner))
    return _Shape(sum(map(_parameters, weights)), d_model, n_layers, lora)


def _parameters(path: Path) -> int:
    """Values in a safetensors file, from its header."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _flops(autocast: str | None, size: int = 768) -> float:
    """Floating-point operations a second of one large matrix product here, from a few tries."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if autocast or device == "cuda" else torch.float32
    size = size if device == "cpu" else 8192
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    best = math.inf
    for _ in range(4):
        started = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # reading a value waits for a GPU
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
