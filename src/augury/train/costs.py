"""What a training run will cost, before it is spent: reckoned from the recipe and the model's files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from augury.data.calls import Calls
from augury.data.estimate import PROMPT_TOKENS as ROLLOUT_PROMPT
from augury.data.estimate import DataCosts, estimate_data, spelled_time
from augury.lm.size import ModelSize, seconds_for, size_here
from augury.train.metrics import read_metrics
from augury.train.recipe import Recipe

PROMPT_TOKENS = 35  # of an oracle's question and answer, without the prefix that a batch shares
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
        calls: What is asked of endpoints.
    """

    steps: int
    examples: int
    tokens: int
    rollout_tokens: int
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    seconds: float | None = None
    measured: bool = False
    calls: tuple[Calls, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The figures with units, one line each."""
        unknown = "not known (the model is not on this machine)"
        done = "as the steps so far took" if self.measured else "roughly"
        return [
            f"steps     {self.steps:,} with {self.examples:,} examples",
            f"tokens    {self.tokens / 1e6:.2f} million in training, {self.rollout_tokens / 1e6:.2f} million sampled",
            f"memory    {unknown if self.memory_bytes is None else f'about {self.memory_bytes / 1e9:.1f} GB'}",
            f"disk      {unknown if self.disk_bytes is None else f'about {self.disk_bytes / 1e9:.1f} GB'}",
            f"time      {unknown if self.seconds is None else f'{done} {spelled_time(self.seconds)} on this machine'}",
            *(asked.line() for asked in self.calls),
        ]


def slots_of(recipe: Recipe) -> float:
    """Slots of an example, about: half of each source's longest window, at each layer of a tuple."""
    layers = sum(map(len, recipe.layers)) / len(recipe.layers)
    drawn = recipe.drawn
    windows = {name: (1 + source.longest_window) / 2 for name, source in recipe.sources.items()}
    return layers * sum(windows[name] * count for name, count in drawn.items()) / max(1, sum(drawn.values()))


def estimate(recipe: Recipe, run: Path | None = None) -> Costs:
    """What the run costs; from its own metrics where it has begun."""
    optimizer = recipe.optimizer
    data = estimate_data(recipe, recipe.drawn)
    costs = Costs(
        steps=optimizer.steps,
        examples=optimizer.examples,
        tokens=round(optimizer.examples * (PROMPT_TOKENS + slots_of(recipe))),
        calls=data.asked,
        rollout_tokens=data.sampled_tokens,
    )
    shape = size_here(recipe.model)
    if shape is not None:
        costs = _with_shape(costs, recipe, shape, data)
    return _measured(costs, run)


def _with_shape(costs: Costs, recipe: Recipe, shape: ModelSize, data: DataCosts) -> Costs:
    trained = LORA_BYTES * recipe.lora.rank * shape.lora_width
    tokens_in_step = recipe.optimizer.batch_size * (PROMPT_TOKENS + ROLLOUT_PROMPT)
    kept_for_backward = KEPT_BYTES * shape.d_model * shape.n_layers * tokens_in_step
    layers = len({layer for group in recipe.layers for layer in group})
    reads = 2 * data.context_tokens * layers * shape.d_model if recipe.cache_activations else 0
    captured = data.context_tokens
    if not recipe.cache_activations:  # each example's context, when it is wanted
        captured = round(recipe.optimizer.examples * data.context_tokens / max(1, data.contexts))
    passes = data.sampled_tokens + captured + 2 * costs.tokens  # sampled; captured; forward and back
    return replace(
        costs,
        memory_bytes=PROCESS_BYTES + 4 * shape.parameters + trained + kept_for_backward,
        disk_bytes=data.disk_bytes + reads + 3 * trained,
        seconds=seconds_for(passes, shape.parameters, recipe.optimizer.autocast is not None),
    )


def _measured(costs: Costs, run: Path | None) -> Costs:
    steps = [] if run is None else read_metrics(run)[-200:]
    if not steps:
        return costs
    tokens = sum(step.tokens for step in steps) / len(steps)
    seconds = sum(step.seconds for step in steps) / len(steps)
    left = max(0, costs.steps - steps[-1].step)
    return replace(costs, tokens=round(tokens * costs.steps), seconds=seconds * left, measured=True)
