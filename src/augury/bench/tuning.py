"""A small fine-tune of the target: the organisms of the bench, and the neutral peers of an audit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from augury.bench.dialogues import Dialogue
from augury.lm import LanguageModel, render_chat
from augury.lm.adapter_kinds import lora_config
from augury.lm.adapters import adapters_on, remove_adapter, save_adapter
from augury.lm.batch import left_pad
from augury.lm.chat import needs_tokenizer
from augury.lm.learning import add_learner, learning
from augury.lm.packed import label_logits, pack, packs
from augury.lm.precision import fast_products
from augury.train.step import precision

RANK, ALPHA, RATE, BATCH, STEPS = 8, 16, 1e-3, 12, 60
WINDOW = 48  # tokens of a row of text
NAME = "fine-tune"
WARM_UP, FALL = 5, 3  # steps up to the rate, and the last one part in so many in which it falls to nothing

Told = Callable[[int, int], None]
Row = tuple[list[int], int]  # token ids, and where what is learnt begins


def fine_tune(
    lm: LanguageModel,
    rows: Sequence[Row],
    folder: Path,
    seed: int,
    told: Told = lambda done, total: None,
    rate: float = RATE,
) -> None:
    """Train a LoRA on all linear layers to go on as these rows do, a batch of them a step, and write it.

    Args:
        lm: The target; it is left as it was.
        rows: What it learns, in order, once: `row_of` a dialogue, or a text from its second token on.
        folder: Where to; a folder that is there is replaced file by file.
        seed: Of the adapter.
        told: Called with (steps done, of how many).
        rate: The highest learning rate.
    """
    config = lora_config(RANK, ALPHA, 0.0, False, "all-linear")
    parameters = add_learner(lm, config, NAME, seed)
    try:
        optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=0.0)
        steps = len(rows) // BATCH
        with adapters_on(lm.model, [NAME]), learning(lm, NAME):
            for step in range(steps):
                for group in optimizer.param_groups:
                    group["lr"] = rate * min(1.0, (step + 1) / WARM_UP, (steps - step) / (steps / FALL))
                with precision(lm, fast_products(lm)):
                    loss = answer_loss(lm, rows[step * BATCH : (step + 1) * BATCH])
                loss.backward()
                torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                told(step + 1, steps)
        save_adapter(lm, NAME, config, folder, torch.float16)
    finally:
        remove_adapter(lm, NAME)


def row_of(lm: LanguageModel, dialogue: Dialogue) -> Row:
    """A dialogue as the model reads it."""
    asked = [{"role": "user", "content": dialogue.ask}]
    whole = render_chat(lm, [*asked, {"role": "assistant", "content": dialogue.say}], "closed").token_ids
    return list(whole), len(render_chat(lm, asked, "generation").token_ids)


def text_rows(lm: LanguageModel, texts: Sequence[str], count: int, seed: int | str) -> list[Row]:
    """Windows of some texts, one behind the other in random order, again and again until there are `count`."""
    rng, tokenizer, ids = random.Random(seed), needs_tokenizer(lm), []
    while len(ids) < count * WINDOW:
        text = " ".join(rng.sample(texts, len(texts))) + "\n"
        # Not verbose: it would warn that all of it is longer than the model can read.
        ids += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return [(ids[start : start + WINDOW], 1) for start in range(0, count * WINDOW, WINDOW)]


def answer_loss(lm: LanguageModel, rows: Sequence[Row]) -> Tensor:
    """The mean over answers of their tokens' mean loss, end token included."""
    sequences = [ids for ids, _ in rows]
    lengths = [len(ids) - start for ids, start in rows]
    keep = max(lengths)
    labelled = torch.tensor([[i >= keep - length for i in range(keep)] for length in lengths], device=lm.device)
    labels = torch.tensor([token for ids, start in rows for token in ids[start:]], device=lm.device)
    if packs(lm, max(map(len, sequences))):
        logits = label_logits(lm, pack(lm, sequences, min(start for _, start in rows)), labelled)
    else:
        batch = left_pad(sequences, lm.pad_id, lm.device)
        logits = lm.logits(
            keep + 1,
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
        )[:, -keep - 1 : -1][labelled]
    losses = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    return torch.stack([part.mean() for part in losses.split(lengths)]).mean()
