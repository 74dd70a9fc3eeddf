"""A tiny run for the tests of training: its recipe, its rollouts, and the loop over them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from augury.data.rollouts import Rollout
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_parameters, remove_adapter
from augury.train.loop import ADAPTER, train_adapter
from augury.train.metrics import StepReport, read_metrics
from augury.train.reads import Reads
from augury.train.recipe import Recipe
from tests.tiny import tiny_contract

MIX = {
    "weights": {"past_lens": 1, "future_lens": 1, "yes_no": 1, "open": 1},
    "yes_no": {"topic": 1, "speaker": 1},
    "open": {"topic": 1, "next": 1},
    "long_k": 0.0,
}


def recipe(**optimizer) -> Recipe:
    settings = {"examples": 24, "batch_size": 4, "pool": 3, "checkpoint_every": 2, "learning_rate": 1e-2, **optimizer}
    return Recipe.model_validate(
        {
            "name": "test",
            "model": "test",
            "layers": [[2]],
            "lora": {"rank": 4, "alpha": 8},
            "optimizer": settings,
            "stages": [{"until": 1.0, "mix": MIX}],
        }
    )


def rollouts(lm: LanguageModel, count: int = 6) -> list[Rollout]:
    generator = torch.Generator().manual_seed(1)
    topics = ["coffee", "chess", "volcanoes"]
    found = []
    for i in range(count):
        ids = torch.randint(3, lm.vocab_size, (34 + i,), generator=generator).tolist()
        labels = {"topic": topics[i % 3], "category": "food"}
        found.append(Rollout(i, "train", tuple(ids), (2, 6), (10, len(ids)), labels))
    return found


def train(
    lm: LanguageModel,
    data: tuple[list[Rollout], Reads],
    folder: Path,
    stop_after: int | None = None,
    **optimizer,
) -> tuple[list[StepReport], dict[str, Tensor]]:
    """The steps in the run's file, and the adapter, which is taken off the model again."""
    found, reads = data
    seen = []
    try:
        train_adapter(
            lm,
            tiny_contract(lm),
            recipe(**optimizer),
            found,
            reads,
            folder,
            on_step=lambda report: seen.append(report.step),
            stop=lambda: stop_after is not None and len(seen) >= stop_after,
        )
        parameters = {k: v.detach().clone() for k, v in adapter_parameters(lm.model, ADAPTER).items()}
    finally:
        remove_adapter(lm, ADAPTER)
    return list(read_metrics(folder)), parameters
