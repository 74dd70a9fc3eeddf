"""The training loop, from top to bottom: make a batch, inject, take the loss on the answer, step, tell."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn

from augury.contract import Contract
from augury.data.mix import Stream
from augury.data.rollouts import Rollout
from augury.errors import ModelError
from augury.lm import LanguageModel, adapters
from augury.lm.adapters import adapter_dropouts, adapter_parameters, adapters_on, add_adapter, remove_adapter
from augury.lm.recompute import recomputing
from augury.oracle.save import write_oracle
from augury.train.batching import Item, batches, pools, prepare
from augury.train.checkpoint import latest, load_checkpoint, save_checkpoint
from augury.train.metrics import Metrics, StepReport, read_metrics
from augury.train.provenance import counted
from augury.train.reads import Reads
from augury.train.recipe import OptimizerSettings, Recipe
from augury.train.step import example_losses, precision

log = logging.getLogger(__name__)
ADAPTER = "oracle"
CHECKPOINTS = "checkpoints"


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
        contract: How slots, prompts and injection are made; every checkpoint carries it, with the steps so far.
        recipe: Everything else.
        rollouts: The training split.
        reads: Their activations, captured with all adapters off.
        run: Where `metrics.jsonl` and `checkpoints/` go.
        on_step: Called after every step.
        stop: Asked after every step; True ends the run after a checkpoint.

    Returns:
        The number of steps done.

    Raises:
        ModelError: A loss or a gradient is not finite; neither the adapter nor a checkpoint has taken it in.
    """
    settings = recipe.optimizer
    steps = -(-settings.examples // settings.batch_size)
    parameters = _trainable(lm, recipe)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    first = _resume(lm, run, parameters, optimizer)
    stream = Stream(rollouts, "train", settings.seed, _decoder(lm))
    layers = [tuple(layers) for layers in contract.layers or ()]
    step, save = first, _saver(lm, contract, recipe, run, parameters, optimizer)
    with adapters_on(lm.model, [ADAPTER]), _training(lm, parameters, settings), Metrics(run, first) as metrics:
        for step, examples in pools(recipe, stream, first, steps):
            started = time.perf_counter()
            items = [prepare(lm, contract, layers[i % len(layers)], reads, e) for i, e in enumerate(examples)]
            torch.manual_seed(settings.seed + step)  # dropout, the same after a resume
            rate = learning_rate(settings, step, steps)
            losses, tokens = _backward(lm, contract, settings, items)
            _check_finite(run, step + 1, losses, _clip(parameters, settings))
            _apply(optimizer, rate)
            loss, seconds = sum(losses) / len(losses), time.perf_counter() - started
            report = StepReport(step + 1, steps, len(items), tokens, seconds, rate, loss, _by_task(items, losses))
            metrics.write(report)
            saved = (step + 1) % settings.checkpoint_every == 0 or step + 1 == steps
            if saved:
                save(step + 1)
            if on_step is not None:  # after the checkpoint: a fault in a caller's code costs no step
                on_step(report)
            if stop():
                if not saved:
                    save(step + 1)
                break
    return step + 1 if steps > first else first


def _resume(lm: LanguageModel, run: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """The steps that the newest checkpoint holds; the model is left as it was where that cannot be used."""
    found = latest(run / CHECKPOINTS)
    try:
        return load_checkpoint(found, parameters, optimizer) if found else 0
    except BaseException:
        remove_adapter(lm, ADAPTER)
        raise


def _saver(
    lm: LanguageModel,
    contract: Contract,
    recipe: Recipe,
    run: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> Callable[[int], Path]:
    """What writes the checkpoint after a step: an oracle that says how far it was trained."""
    config = lora_config(recipe)

    def write(folder: Path) -> None:
        write_oracle(lm, ADAPTER, config, counted(contract, read_metrics(run)), folder, torch.float32)

    def save(step: int) -> Path:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters.values()):
            raise _diverged(run, step, "the adapter's weights are not finite after it")
        return save_checkpoint(run / CHECKPOINTS, step, write, parameters, optimizer)

    return save


def _backward(
    lm: LanguageModel, contract: Contract, settings: OptimizerSettings, items: Sequence[Item]
) -> tuple[list[float], int]:
    """Put the gradients of the mean loss onto the adapter; returns each item's loss and the tokens that were run."""
    share = settings.share_prefix and not settings.gradient_checkpointing
    found, tokens = [0.0] * len(items), 0
    for places, batch in batches(lm, items, share):
        with precision(lm, settings.autocast):
            losses = example_losses(lm, contract.injection, batch)
        (losses.sum() / len(items)).backward()
        for place, loss in zip(places, losses.detach().tolist(), strict=True):
            found[place] = loss
        tokens += batch.rows.tokens
    return found, tokens


def _clip(parameters: dict[str, nn.Parameter], settings: OptimizerSettings) -> float:
    """Shorten the gradient where it is longer than the recipe allows; returns the length that it had."""
    return float(nn.utils.clip_grad_norm_(parameters.values(), settings.clip or math.inf))


def _apply(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _check_finite(run: Path, step: int, losses: Sequence[float], gradient: float) -> None:
    """Stop before the step: what is not finite would make the whole adapter so, and soon every checkpoint kept."""
    wrong = [loss for loss in losses if not math.isfinite(loss)]
    if wrong:
        raise _diverged(run, step, f"the loss of {len(wrong)} of {len(losses)} examples is {wrong[0]}")
    if not math.isfinite(gradient):
        raise _diverged(run, step, f"the losses are finite and their gradient's norm is {gradient}")


def _diverged(run: Path, step: int, why: str) -> ModelError:
    found = latest(run / CHECKPOINTS)
    kept = f"{found} is whole" if found else "no checkpoint was written yet"
    return ModelError(
        f"Training came apart at step {step} and was stopped.",
        f"{why}; {kept}",
        "train in a new folder with a lower optimizer.learning_rate or a longer warmup; what stands in data.json, "
        "rollouts-*.jsonl and reads/ is not made again where they are copied into it",
    )


def learning_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """Warm-up, constant, then linear decay to zero."""
    warm = max(1, round(settings.warmup * steps))
    decaying = max(1, round(settings.decay * steps))
    return settings.learning_rate * min(1.0, (step + 1) / warm, (steps - step) / decaying)


def lora_config(recipe: Recipe) -> dict[str, object]:
    """The adapter's PEFT configuration."""
    lora = recipe.lora
    return adapters.lora_config(lora.rank, lora.alpha, lora.dropout, lora.rslora, lora.target_modules)


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
    dropouts = adapter_dropouts(lm.model, ADAPTER)
    with recomputing(lm.blocks) if settings.gradient_checkpointing else nullcontext():
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


def _by_task(items: Sequence[Item], losses: Sequence[float]) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for item, loss in zip(items, losses, strict=True):
        found[item.example.task].append(loss)
    return {task: sum(values) / len(values) for task, values in sorted(found.items())}


def _decoder(lm: LanguageModel) -> Callable[[Sequence[int]], str]:
    from augury.lm.chat import needs_tokenizer

    tokenizer = needs_tokenizer(lm)
    return lambda ids: tokenizer.decode(list(ids))
