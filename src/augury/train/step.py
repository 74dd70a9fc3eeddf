"""One training step: capture, inject, take the loss on the answer tokens, add up, step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from augury.contract import Contract, Injection
from augury.data.example import Example
from augury.lm import LanguageModel
from augury.lm.packed import Packed, label_logits
from augury.lm.shared import forward_shared
from augury.oracle.inject import injecting
from augury.train.batching import Batch, batches, prepare_all
from augury.train.ranks import ALONE, Ranks
from augury.train.reads import Reads
from augury.train.recipe import OptimizerSettings


class NotFiniteError(ArithmeticError):
    """A loss or a gradient is not finite; nothing has been stepped."""


@dataclass(frozen=True)
class Learner:
    """What a step works on.

    Attributes:
        lm: The base with the adapter on it, in training.
        contract: How prompts are made and slots receive activations.
        settings: Of the optimizer.
        reads: The activations of each set of contexts.
        parameters: The adapter's, by name.
        optimizer: What moves them.
        ranks: The processes that share each batch.
    """

    lm: LanguageModel
    contract: Contract
    settings: OptimizerSettings
    reads: Mapping[str, Reads]
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class Stepped:
    """What a step did: the loss of each example, `[batch]`, and the tokens that were run."""

    losses: list[float]
    tokens: int


def train_step(learner: Learner, examples: Sequence[Example], step: int, rate: float) -> Stepped:
    """Move the adapter down the gradient of the batch's mean loss.

    The loss is `sum_i w_i L_i / sum_i w_i` over the examples of *all* processes, with `L_i` as in `example_losses`, so
    neither how a batch is cut into passes nor how many processes share it changes the step.

    Args:
        learner: The model and what trains it.
        examples: The whole batch; this process runs its share.
        step: Steps done before; dropout is a function of it.
        rate: The learning rate.

    Raises:
        NotFiniteError: The loss of an example or the gradient is not finite; the adapter is as it was.
    """
    lm, settings, ranks = learner.lm, learner.settings, learner.ranks
    torch.manual_seed(settings.seed + step * ranks.count + ranks.rank)
    items = prepare_all(lm, learner.contract, learner.reads, ranks.share(examples))
    weights = torch.tensor([item.example.weight for item in items], device=lm.device)
    total = sum(example.weight for example in examples)
    losses, tokens = [0.0] * len(items), 0
    for places, batch in batches(lm, items, settings.shares, settings.pass_tokens):
        with precision(lm, settings.autocast):
            found = example_losses(lm, learner.contract.injection, batch)
        ((found * weights[places]).sum() / total).backward()
        tokens += batch.rows.tokens
        for place, loss in zip(places, found.detach().tolist(), strict=True):
            losses[place] = loss
    ranks.add_up(_gradients(learner.parameters))
    losses, tokens = ranks.merge(losses), sum(ranks.merge([tokens]))
    _check_finite(losses, _clip(learner.parameters, settings.clip))
    _apply(learner.optimizer, rate)
    return Stepped(losses, tokens)


def example_losses(lm: LanguageModel, injection: Injection, batch: Batch) -> Tensor:
    """Each example's loss, `[batch]`: the sum over its labels by the number of its answer tokens, in nats.

    The end tokens count in the sum but not in the number, so that the one token of a Yes or No weighs as much as a
    token of a long answer.
    """
    return token_losses(lm, injection, batch).sum(1) / batch.answer_tokens


def token_losses(lm: LanguageModel, injection: Injection, batch: Batch, *, inject_nothing: bool = False) -> Tensor:
    """The loss of every label, `[batch, keep]`, 0 where there is none; a row's labels are its last columns."""
    labelled = batch.labels != -100
    logits = _label_logits(lm, injection, batch, labelled, inject_nothing)
    found = torch.nn.functional.cross_entropy(logits.float(), batch.labels[labelled], reduction="none")
    return found.new_zeros(labelled.shape).masked_scatter(labelled, found)


def _label_logits(lm: LanguageModel, injection: Injection, batch: Batch, labelled: Tensor, nothing: bool) -> Tensor:
    """`[labels, vocab]`: what the model expects where each label stands."""
    slots = [[] for _ in batch.slots] if nothing else batch.slots
    if isinstance(batch.rows, Packed):
        one = [column for columns in slots for column in columns]
        return label_logits(lm, batch.rows, labelled, injecting(lm, injection, [one], [torch.cat(batch.vectors)]))
    keep = labelled.shape[1] + 1
    logits = forward_shared(lm, batch.rows, keep, injecting(lm, injection, slots, batch.vectors)).logits
    return logits[:, -keep:-1][labelled]


def precision(lm: LanguageModel, autocast: str | None) -> Any:
    """A context in which matrix products run in `autocast`'s dtype (None: in the model's own)."""
    if autocast is None:
        return nullcontext()
    return torch.autocast(lm.device.type, dtype=getattr(torch, autocast))


def _gradients(parameters: Mapping[str, nn.Parameter]) -> list[Tensor]:
    """The gradients, zeros where a process had no example."""
    for parameter in parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in parameters.values() if parameter.grad is not None]


def _clip(parameters: Mapping[str, nn.Parameter], longest: float | None) -> float:
    """Shorten the gradient where it is longer than that; returns the length that it had."""
    return float(nn.utils.clip_grad_norm_(parameters.values(), longest or math.inf))


def _check_finite(losses: Sequence[float], gradient: float) -> None:
    """What is not finite would make the whole adapter so, and soon every checkpoint that is kept."""
    wrong = [loss for loss in losses if not math.isfinite(loss)]
    if wrong:
        raise NotFiniteError(f"the loss of {len(wrong)} of {len(losses)} examples is {wrong[0]}")
    if not math.isfinite(gradient):
        raise NotFiniteError(f"the losses are finite and their gradient's norm is {gradient}")


def _apply(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
