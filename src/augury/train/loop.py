"""The training loop, from top to bottom: make a batch, inject, take the loss on the answer, step, tell."""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from augury.contract import Contract
from augury.data.mix import Stream
from augury.data.rollouts import Rollout
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_parameters, adapters_on, add_adapter
from augury.lm.recompute import recomputing
from augury.train.batching import Item, batches, pools, prepare
from augury.train.checkpoint import latest, load_checkpoint, save_checkpoint
from augury.train.reads import Reads
from augury.train.recipe import OptimizerSettings, Recipe
from augury.train.step import example_losses, precision

log = logging.getLogger(__name__)
ADAPTER = "oracle"


@dataclass(frozen=True)
class StepReport:
    """What one step did. `losses` holds the mean of `example_losses` over each task, in nats."""

    step: int
    steps: int
    examples: int
    tokens: int
    seconds: float
    learning_rate: float
    loss: float
    losses: dict[str, float]


def train_adapter(
    lm: LanguageModel,
    contract: Contract,
    recipe: Recipe,
    rollouts: Sequence[Rollout],
    reads: Reads,
    run: Path,
    *,
    on_step: Callable[[StepReport], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train the oracle's adapter on `lm`, from the newest checkpoint in `run` on if there is one.

    Args:
        lm: The base; the adapter is added to it under the name `oracle` and stays, frozen.
        contract: How slots, prompts and injection are made.
        recipe: Everything else.
        rollouts: The training split.
        reads: Their activations, captured with all adapters off.
        run: Where `metrics.jsonl` and `checkpoints/` go.
        on_step: Called after every step.
        stop: Asked after every step; True ends the run after a checkpoint.

    Returns:
        The number of steps done.
    """
    settings = recipe.optimizer
    steps = -(-settings.examples // settings.batch_size)
    parameters = _trainable(lm, recipe)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    checkpoints = run / "checkpoints"
    found = latest(checkpoints)
    first = load_checkpoint(found, parameters, optimizer) if found else 0
    stream = Stream(rollouts, "train", settings.seed, _decoder(lm))
    layers = [tuple(layers) for layers in contract.layers or ()]
    step = first
    with adapters_on(lm.model, [ADAPTER]), _training(lm, parameters, settings), _log(run, first) as write:
        for step, examples in pools(recipe, stream, first, steps):
            started = time.perf_counter()
            items = [prepare(lm, contract, layers[i % len(layers)], reads, e) for i, e in enumerate(examples)]
            torch.manual_seed(settings.seed + step)  # dropout, the same after a resume
            rate = learning_rate(settings, step, steps)
            loss, losses, tokens = _step(lm, contract, settings, items, optimizer, parameters, rate)
            seconds = time.perf_counter() - started
            report = StepReport(step + 1, steps, len(items), tokens, seconds, rate, loss, _by_task(items, losses))
            write(report)
            saved = (step + 1) % settings.checkpoint_every == 0 or step + 1 == steps
            if saved:
                save_checkpoint(checkpoints, step + 1, parameters, optimizer)
            if on_step is not None:  # after the checkpoint: a fault in a caller's code costs no step
                on_step(report)
            if stop():
                if not saved:
                    save_checkpoint(checkpoints, step + 1, parameters, optimizer)
                break
    return step + 1 if steps > first else first


def _step(
    lm: LanguageModel,
    contract: Contract,
    settings: OptimizerSettings,
    items: Sequence[Item],
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    rate: float,
) -> tuple[float, list[float], int]:
    for group in optimizer.param_groups:
        group["lr"] = rate
    share = settings.share_prefix and not settings.gradient_checkpointing
    found, tokens = [0.0] * len(items), 0
    for places, batch in batches(lm, items, share):
        with precision(lm, settings.autocast):
            losses = example_losses(lm, contract.injection, batch)
        (losses.sum() / len(items)).backward()
        for place, loss in zip(places, losses.detach().tolist(), strict=True):
            found[place] = loss
        tokens += batch.rows.tokens
    nn.utils.clip_grad_norm_(parameters.values(), settings.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return sum(found) / len(found), found, tokens


def learning_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """Warm-up, constant, then linear decay to zero."""
    warm = max(1, round(settings.warmup * steps))
    decaying = max(1, round(settings.decay * steps))
    return settings.learning_rate * min(1.0, (step + 1) / warm, (steps - step) / decaying)


def lora_config(recipe: Recipe) -> dict[str, object]:
    """The adapter's PEFT configuration."""
    modules = recipe.lora.target_modules
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": recipe.lora.rank,
        "lora_alpha": recipe.lora.alpha,
        "lora_dropout": recipe.lora.dropout,
        "use_rslora": recipe.lora.rslora,
        "target_modules": modules if isinstance(modules, str) else list(modules),
        "bias": "none",
        "inference_mode": True,
    }


def _trainable(lm: LanguageModel, recipe: Recipe) -> dict[str, nn.Parameter]:
    torch.manual_seed(recipe.optimizer.seed)
    add_adapter(lm, lora_config(recipe), ADAPTER)
    parameters = adapter_parameters(lm.model, ADAPTER)
    for parameter in parameters.values():  # peft takes the base's dtype, in which small steps would round to nothing
        parameter.data = parameter.data.float()
    return parameters


@contextmanager
def _training(lm: LanguageModel, parameters: dict[str, nn.Parameter], settings: OptimizerSettings) -> Iterator[None]:
    """The adapter's parameters take gradients inside, and only they; its dropout is on, the base's off."""
    frozen = [parameter for parameter in lm.model.parameters() if parameter.requires_grad]
    dropouts = [m for name, m in lm.model.named_modules() if name.endswith(f"lora_dropout.{ADAPTER}")]
    with recomputing(lm.model) if settings.gradient_checkpointing else nullcontext():
        try:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            for dropout in dropouts:
                dropout.train()
            yield
        finally:
            for parameter in parameters.values():
                parameter.requires_grad_(False)
            for parameter in frozen:
                parameter.requires_grad_(True)
            for dropout in dropouts:
                dropout.eval()


class _log:
    """`metrics.jsonl`: one line a step; lines of steps that a resumed run does again are cut off first."""

    def __init__(self, run: Path, first: int) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.path, self.first = run / "metrics.jsonl", first

    def __enter__(self) -> Callable[[StepReport], None]:
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()[: self.first]  # a torn line is after these
            self.path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        self.file = self.path.open("a", encoding="utf-8")
        return self._write

    def _write(self, report: StepReport) -> None:
        self.file.write(json.dumps(report.__dict__) + "\n")
        self.file.flush()

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _by_task(items: Sequence[Item], losses: Sequence[float]) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for item, loss in zip(items, losses, strict=True):
        found[item.example.task].append(loss)
    return {task: sum(values) / len(values) for task, values in sorted(found.items())}


def _decoder(lm: LanguageModel) -> Callable[[Sequence[int]], str]:
    from augury.lm.chat import needs_tokenizer

    tokenizer = needs_tokenizer(lm)
    return lambda ids: tokenizer.decode(list(ids))
