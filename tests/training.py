"""A tiny run for the tests of training: its recipe, its contexts and examples, and the loop over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from augury.data.bank import Split
from augury.data.example import Context, Example, Part
from augury.data.index import Indexed
from augury.data.mix import Order
from augury.data.sources.base import Made, unit
from augury.data.sources.lens import LensSource
from augury.data.sources.questions import QuestionSource
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_parameters, remove_adapter
from augury.train.batching import TrainingData
from augury.train.loop import ADAPTER, train_adapter
from augury.train.metrics import StepReport, read_metrics
from augury.train.ranks import ALONE, Ranks
from augury.train.reads import Reads
from augury.train.recipe import Recipe

SOURCES = {
    "lens": {"type": "lens", "contexts": "answers", "k": 8, "heldout": 6},
    "asked": {
        "type": "questions", "contexts": "answers", "pairs": 0.5, "yes_no": {"topic": 1, "speaker": 1},
        "open": {"topic": 1, "next": 1}, "heldout": 6,
    },
}  # fmt: skip


def recipe(**optimizer) -> Recipe:
    settings = {"examples": 24, "batch_size": 4, "pool": 3, "checkpoint_every": 2, "learning_rate": 1e-2, **optimizer}
    return Recipe.model_validate(
        {
            "name": "test",
            "model": "test",
            "layers": [[2]],
            "lora": {"rank": 4, "alpha": 8},
            "optimizer": settings,
            "contexts": {"answers": {"type": "rollouts"}},
            "sources": SOURCES,
            "stages": [{"until": 1.0, "weights": {"lens": 1, "asked": 1}}],
        }
    )


def rollouts(lm: LanguageModel, count: int = 6) -> list[Context]:
    generator = torch.Generator().manual_seed(1)
    topics = ["coffee", "chess", "volcanoes"]
    found = []
    for i in range(count):
        ids = torch.randint(3, lm.vocab_size, (34 + i,), generator=generator).tolist()
        labels = {"topic": topics[i % 3], "category": "food"}
        found.append(two_turns(i, "train", ids, (2, 6), (10, len(ids)), labels))
    return found


def two_turns(
    number: int,
    split: Split,
    token_ids: Sequence[int],
    user: tuple[int, int],
    assistant: tuple[int, int],
    labels: dict[str, str],
) -> Context:
    """A request and the target's answer."""
    parts = (Part("user", "bank", *user), Part("assistant", "target", *assistant))
    return Context(number, split, tuple(token_ids), parts, labels)


def examples_of(
    lm: LanguageModel, contexts: Sequence[Context], count: int = 40, split: Split = "train"
) -> dict[str, list[Example]]:
    """Each source's examples about the contexts, `count` units of them."""
    found = {}
    for name, source in (("lens", LensSource), ("asked", QuestionSource)):
        made = Made(name, split, Indexed(contexts), ((2,),), 0, lm.tokenizer.decode)
        settings = recipe().sources[name]
        found[name] = [e for i in range(count) for e in unit(source(settings, made), settings, made, i)]
    return found


def training_data(found: Recipe, examples: dict[str, list[Example]], reads: Reads) -> TrainingData:
    """The examples in the recipe's order."""
    units = {name: np.array([example.unit for example in rows]) for name, rows in examples.items()}
    settings = found.optimizer
    total = settings.steps * settings.batch_size
    order = Order(found.stages, units, settings.pool * settings.batch_size, total, settings.seed)
    return TrainingData(examples, order, {"answers": reads})


def train(
    lm: LanguageModel,
    data: tuple[list[Context], Reads],
    folder: Path,
    stop_after: int | None = None,
    ranks: Ranks = ALONE,
    **optimizer,
) -> tuple[list[StepReport], dict[str, Tensor]]:
    """The steps in the run's file, and the adapter, which is taken off the model again."""
    from tests.tiny import tiny_contract

    contexts, reads = data
    seen = []
    made = recipe(**optimizer)
    try:
        train_adapter(
            lm,
            tiny_contract(lm),
            made,
            training_data(made, examples_of(lm, contexts), reads),
            folder,
            ranks=ranks,
            on_step=lambda report: seen.append(report.step),
            stop=lambda: stop_after is not None and len(seen) >= stop_after,
        )
        parameters = {k: v.detach().clone() for k, v in adapter_parameters(lm.model, ADAPTER).items()}
    finally:
        remove_adapter(lm, ADAPTER)
    return list(read_metrics(folder)), parameters
