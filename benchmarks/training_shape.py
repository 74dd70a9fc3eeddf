"""Training speed of a model of some published shape, with random weights and random examples: nothing is downloaded."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from augury.contract import Contract, Injection
from augury.data.example import Example
from augury.errors import InputError
from augury.lm import LanguageModel, load_model
from augury.lm.adapters import adapters_on, remove_adapter
from augury.lm.learning import add_learner, learning
from augury.oracle.prompt import Labelled
from augury.train.batching import Item, batches
from augury.train.loop import ADAPTER, lora_config
from augury.train.recipe import Recipe
from augury.train.step import example_losses

EXAMPLES = 320_000
PEAK = 989.0  # TFLOP/s of dense bfloat16 products: H100 and H200
BATCH = 16
WARM_UP = 2


@dataclass(frozen=True)
class Shape:
    """A model's sizes, the layers that are read, and the rank."""

    config: Mapping[str, Any]
    layers: tuple[int, ...]
    rank: int


SHAPES = {
    "qwen3-8b": Shape(
        {
            "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
            "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 4096,
        },
        (21, 22, 23, 24, 25),
        64,
    ),
}  # fmt: skip


def measure_shape(name: str, steps: int, peak: float | None = None, device: str = "cuda") -> dict[str, Any]:
    """Tokens a second, peak memory and share of the GPU's products, with and without gradient checkpointing.

    Raises:
        InputError: There is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"The shape {name} needs a GPU.", "torch finds no CUDA device", "leave --shape out to measure this machine"
        )
    shape, rate = SHAPES[name], peak or PEAK
    lm = _random_model(shape, device)
    items = [_items(lm, shape, seed) for seed in range(steps + WARM_UP)]
    rows = [_measured(lm, shape, items, checkpointing, rate) for checkpointing in (False, True)]
    return {
        "shape": name,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "batch_size": BATCH,
        "rank": shape.rank,
        "layers": list(shape.layers),
        "steps": steps,
        "peak_tflops": rate,
        "rows": rows,
    }


def _random_model(shape: Shape, device: str) -> LanguageModel:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = Qwen3ForCausalLM(Qwen3Config(**shape.config, pad_token_id=0))
    finally:
        torch.set_default_dtype(before)
    return load_model(model.eval())


def _items(lm: LanguageModel, shape: Shape, seed: int) -> list[Item]:
    """A batch of random prompts: twenty tokens in common, slots at each layer, a question and an answer."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    common = [7 * i % lm.vocab_size for i in range(20)]
    found = []
    for _ in range(BATCH):
        slots = len(shape.layers) * rng.choice((1, 2, 4, 8))
        question, answer = rng.randint(12, 40), rng.randint(3, 50)
        rest = [rng.randrange(lm.vocab_size) for _ in range(slots + question + answer)]
        labelled = Labelled((*common, *rest), tuple(range(20, 20 + slots)), 20 + slots + question, 2)
        example = Example("open", "random", "train", 0, (), "", "", None, "", layers=shape.layers)
        found.append(Item(example, labelled, torch.randn(slots, lm.d_model, generator=generator)))
    return found


def _measured(
    lm: LanguageModel, shape: Shape, batches_of: Sequence[Sequence[Item]], checkpointing: bool, peak: float
) -> dict[str, Any]:
    recipe = Recipe.model_validate(_recipe(shape, checkpointing))
    cuda = lm.device.type == "cuda"
    parameters = add_learner(lm, lora_config(recipe), ADAPTER, recipe.optimizer.seed)
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-5)
    contract = Contract(
        base_model="random",
        d_model=lm.d_model,
        n_layers=lm.n_layers,
        layers=(shape.layers,),
        injection=Injection(),
    )
    try:
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        with adapters_on(lm.model, [ADAPTER]), learning(lm, ADAPTER):
            took, tokens = 0.0, 0
            for number, items in enumerate(batches_of):
                began = perf_counter()
                run = _step(lm, contract, recipe, items, optimizer)
                if cuda:
                    torch.cuda.synchronize()
                if number >= WARM_UP:
                    took, tokens = took + perf_counter() - began, tokens + run
        memory = torch.cuda.max_memory_allocated() if cuda else 0
    finally:
        remove_adapter(lm, ADAPTER)
    steps = len(batches_of) - WARM_UP
    adapter = sum(parameter.numel() for parameter in parameters.values())
    frozen = sum(p.numel() for p in lm.model.parameters()) - 2 * lm.vocab_size * lm.d_model
    return {
        "gradient_checkpointing": checkpointing,
        "tokens_per_second": tokens / took,
        "examples_per_second": steps * BATCH / took,
        "peak_memory_bytes": memory,
        "peak_share": tokens * (4 * frozen + 6 * adapter) / took / (peak * 1e12),
        "hours": EXAMPLES / (steps * BATCH / took) / 3600,
    }


def _recipe(shape: Shape, checkpointing: bool) -> dict[str, Any]:
    return {
        "name": "shape", "model": "random", "layers": [list(shape.layers)],
        "lora": {"rank": shape.rank, "alpha": 2 * shape.rank, "rslora": True},
        "optimizer": {"examples": EXAMPLES, "batch_size": BATCH, "gradient_checkpointing": checkpointing},
        "contexts": {"answers": {"type": "rollouts"}}, "sources": {"lens": {"type": "lens", "contexts": "answers"}},
        "stages": [{"until": 1.0, "weights": {"lens": 1}}],
    }  # fmt: skip


def _step(
    lm: LanguageModel, contract: Contract, recipe: Recipe, items: Sequence[Item], optimizer: torch.optim.Optimizer
) -> int:
    """A step on items that are ready; the tokens that were run."""
    tokens = 0
    for _, batch in batches(lm, items, recipe.optimizer.shares, recipe.optimizer.pass_tokens):
        (example_losses(lm, contract.injection, batch).sum() / len(items)).backward()
        tokens += batch.rows.tokens
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return tokens


def shape_table(found: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{found['shape']} with random weights, {found['device']}, rank {found['rank']}, batch {found['batch_size']}, "
        f"layers {found['layers']}, {found['steps']} steps",
        f"{'checkpointing':<15}{'tokens/s':>10}{'examples/s':>12}{'peak memory':>14}{'share of peak':>15}"
        f"{f'{EXAMPLES // 1000}k examples':>16}",
    ]
    for row in found["rows"]:
        lines.append(
            f"{'on' if row['gradient_checkpointing'] else 'off':<15}{row['tokens_per_second']:>10.0f}"
            f"{row['examples_per_second']:>12.1f}{row['peak_memory_bytes'] / 1e9:>11.1f} GB{row['peak_share']:>15.1%}"
            f"{row['hours']:>14.1f} h"
        )
    lines.append("share of peak: linear layers and LoRA only, of what a step needs (what is run again does not count)")
    return "\n".join(lines)
