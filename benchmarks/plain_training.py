"""The straightforward training step, and the ways from it to Augury's own, one difference at a time.

Written plainly from the maths: it pads every row of a batch to the longest, runs the whole prompt of each, injects item
by item, makes logits at every position, and captures each item's context for that item. So works the public reference.
Every way takes the same examples to the same loss; `check_same` refuses to go on where one does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from augury.contract import Contract
from augury.data.example import Context, Example
from augury.errors import ModelError
from augury.lm import LanguageModel
from augury.lm.adapters import adapters_on
from augury.lm.shared import forward_shared, share_prefix
from augury.oracle.inject import injecting
from augury.oracle.prompt import Labelled
from augury.train.batching import Batch, Item, batches
from augury.train.reads import LiveReads
from augury.train.step import Learner, example_losses, precision


@dataclass(frozen=True)
class Way:
    """A training step between the straightforward one and Augury's.

    Attributes:
        name: What its last difference is called.
        grouped: Batches of similar lengths, instead of any examples together.
        once: A context that several items ask about is captured once, and no further than it is read.
        answers: Logits at the last positions only, as many as the longest answer has.
        shared: What all prompts begin with is run once.
        vectorised: All items are injected at once.
        packed: The rows are laid one behind the other: nothing is padded, logits stand at the labels alone.
        autocast: The dtype of matrix products.
    """

    name: str
    grouped: bool = False
    once: bool = False
    answers: bool = False
    shared: bool = False
    vectorised: bool = False
    packed: bool = False
    autocast: str | None = None


def ladder() -> list[Way]:
    """From the straightforward step on, each way with one difference more."""
    found = [Way("straightforward")]
    for field, name in (
        ("grouped", "length-grouped batches"),
        ("once", "contexts captured once"),
        ("answers", "logits at answers only"),
        ("shared", "shared prefix"),
        ("vectorised", "vectorised injection"),
        ("packed", "rows packed"),
    ):
        found.append(replace(found[-1], **{field: True, "name": f"+ {name}"}))
    return [*found, replace(found[-1], name="+ bfloat16 autocast", autocast="bfloat16")]


@dataclass(frozen=True)
class Task:
    """What all ways train on.

    Attributes:
        learner: The model, the adapter and its optimizer.
        contexts: The set that all examples ask about.
        prompts: Rendered ahead, by (unit's source, question, context, positions): see `prompt_key`.
    """

    learner: Learner
    contexts: Sequence[Context]
    prompts: Mapping[Any, Labelled]


def prompt_key(example: Example) -> Any:
    """What tells one example from another."""
    return (example.source, example.context, example.positions, example.question, example.answer)


def step(task: Task, way: Way, examples: Sequence[Example]) -> None:
    """One step of the optimizer: capture, loss, gradient, clip, step."""
    learner = task.learner
    found = losses(task, way, examples)
    (found.sum() / len(examples)).backward()
    nn.utils.clip_grad_norm_(learner.parameters.values(), learner.settings.clip or float("inf"))
    learner.optimizer.step()
    learner.optimizer.zero_grad()


def losses(task: Task, way: Way, examples: Sequence[Example]) -> Tensor:
    """Each example's loss, `[batch]`, in their order."""
    lm, contract = task.learner.lm, task.learner.contract
    prompts = [task.prompts[prompt_key(example)] for example in examples]
    vectors = _captured_once(task, examples) if way.once else _captured_each(lm, task.contexts, examples)
    if not way.packed:
        with precision(lm, way.autocast):
            return _padded(lm, contract, way, prompts, vectors)
    items = [Item(*parts) for parts in zip(examples, prompts, vectors, strict=True)]
    found = torch.zeros(len(items))
    for places, batch in batches(lm, items, share=True, most=10**9):
        with precision(lm, way.autocast):
            found[places] = example_losses(lm, contract.injection, batch)
    return found


def _captured_each(lm: LanguageModel, contexts: Sequence[Context], examples: Sequence[Example]) -> list[Tensor]:
    """A row for each example, of its whole context, up to the deepest layer; all in one padded pass."""
    rows = [list(contexts[example.context].token_ids) for example in examples]
    ids, mask, positions = _left_padded(rows, lm.pad_id)
    layers = sorted({layer for example in examples for layer in example.layers})
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            seen[layer] = output[0] if isinstance(output, tuple) else output
            if layer == layers[-1]:
                raise _Enough

        return hook

    handles = [lm.blocks[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        with torch.no_grad(), adapters_on(lm.model, lm.target_adapters):
            lm.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for i, example in enumerate(examples):
        padding = ids.shape[1] - len(rows[i])
        columns = [padding + position for position in example.positions]
        found.append(torch.cat([seen[layer][i, columns].float() for layer in example.layers]))
    return found


class _Enough(Exception):
    """All layers have been seen."""


def _captured_once(task: Task, examples: Sequence[Example]) -> list[Tensor]:
    reads = LiveReads(task.learner.lm, task.contexts)
    reads.prefetch(examples)
    return [reads.vectors(example.context, example.layers, example.positions) for example in examples]


def _padded(
    lm: LanguageModel, contract: Contract, way: Way, prompts: Sequence[Labelled], vectors: Sequence[Tensor]
) -> Tensor:
    ids = [list(prompt.token_ids) for prompt in prompts]
    keep = max(len(row) - prompt.answer_start for row, prompt in zip(ids, prompts, strict=True)) + 1
    if way.shared:
        rows = share_prefix(lm, ids, min(prompt.slots[0] for prompt in prompts))
        around = _injected(lm, contract, way, prompts, rows.offsets, vectors)
        logits = forward_shared(lm, rows, keep, around).logits[:, -keep:].float()
    else:
        tokens, mask, positions = _left_padded(ids, lm.pad_id)
        offsets = [tokens.shape[1] - len(row) for row in ids]
        kept = {"logits_to_keep": keep} if way.answers else {}
        with _injected(lm, contract, way, prompts, offsets, vectors):
            logits = lm.model(
                input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False, **kept
            ).logits.float()
    width = logits.shape[1]
    labels = torch.tensor([([-100] * width + prompt.labels)[-width:] for prompt in prompts])
    entropies = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="none"
    ).view(len(prompts), -1)
    tokens_of = [max(1, len(row) - p.answer_start - p.tail) for row, p in zip(ids, prompts, strict=True)]
    return entropies.sum(1) / torch.tensor(tokens_of)


def _left_padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and position ids, `[batch, longest]`."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


@contextmanager
def _injected(
    lm: LanguageModel,
    contract: Contract,
    way: Way,
    prompts: Sequence[Labelled],
    offsets: Sequence[int],
    vectors: Sequence[Tensor],
) -> Iterator[None]:
    """`h + c * ||h|| * v / ||v||` at every slot, item by item or all at once."""
    slots = [[offset + slot for slot in prompt.slots] for offset, prompt in zip(offsets, prompts, strict=True)]
    if way.vectorised:
        with injecting(lm, contract.injection, slots, vectors):
            yield
        return
    coefficient = contract.injection.coefficient

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        hidden = hidden.clone()
        for i, (columns, rows) in enumerate(zip(slots, vectors, strict=True)):
            h = hidden[i, columns]
            unit = rows / rows.norm(dim=-1, keepdim=True)
            hidden[i, columns] = h + (coefficient * h.float().norm(dim=-1, keepdim=True) * unit).detach().to(h.dtype)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = lm.blocks[contract.injection.block or 0].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def check_same(task: Task, examples: Sequence[Example], items: Sequence[Item]) -> dict[str, dict[str, float]]:
    """Each way's loss and gradient in float32 beside those of Augury's own step, on one batch.

    Raises:
        ModelError: A way has another loss (by more than 0.001) or another gradient (cosine below 0.999).
    """
    loss, gradient = own_loss(task, items)
    found = {}
    for way in ladder():
        if way.autocast:
            continue
        other = losses(task, way, examples).mean()
        cosine = _cosine(_gradient(task, other), gradient)
        found[way.name] = {"loss": float(other.detach()), "cosine": cosine}
        if not abs(float(other.detach()) - loss) <= 1e-3 or not cosine > 0.999:
            raise ModelError(
                f"'{way.name}' does not compute what Augury's own step does.",
                f"its loss is {float(other.detach()):.5f} against {loss:.5f}, the gradients' cosine {cosine:.5f}",
                "nothing was timed: report this",
            )
    return {"Augury": {"loss": loss, "cosine": 1.0}, **found}


def own_loss(task: Task, items: Sequence[Item]) -> tuple[float, Tensor]:
    """The loss of Augury's own step, and its gradient, flat."""
    learner = task.learner
    total = torch.zeros(())
    for _, batch in batches(learner.lm, items, learner.settings.shares, learner.settings.pass_tokens):
        total = total + _sum(learner, batch)
    loss = total / len(items)
    return float(loss.detach()), _gradient(task, loss)


def _sum(learner: Learner, batch: Batch) -> Tensor:
    return example_losses(learner.lm, learner.contract.injection, batch).sum()


def _gradient(task: Task, loss: Tensor) -> Tensor:
    parts = torch.autograd.grad(loss, list(task.learner.parameters.values()))
    return torch.cat([part.flatten() for part in parts]).double()


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other / one.norm() / other.norm())
