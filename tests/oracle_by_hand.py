"""An oracle on the tiny model, and what it has to say according to a forward pass written out by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from augury.contract import Contract
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_parameters
from tests.tiny import tiny_contract

RANK, ALPHA = 4, 8
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout": 0.0,
    "target_modules": ["q_proj", "v_proj", "down_proj"],
}
LAYER, BLOCK, COEFFICIENT = 2, 1, 2.0
CONTEXT = "The philosopher drank tea. Who is speaking here?"
OTHER = "Can you predict this cooking? Answer only."
COOKING = "Is this about cooking?"
WHO = "Who is speaking here?"


def randomise(lm: LanguageModel, name: str, seed: int = 1, size: float = 0.3) -> None:
    """Values that float16 holds exactly, so that saving changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter_parameters(lm.model, name).values():
        drawn = torch.randn(parameter.shape, generator=generator) * size
        parameter.data.copy_(drawn.half().float())


def contract_of(lm: LanguageModel) -> Contract:
    return tiny_contract(lm, ((LAYER,),), block=BLOCK, coefficient=COEFFICIENT)


def written_out(lm: LanguageModel, question: str, vectors: Tensor | None, more: tuple[int, ...] = ()) -> Tensor:
    """Log-probabilities `[tokens, vocab]` after the oracle's prompt, with the injection written out."""
    tokenizer: Any = lm.tokenizer
    count = 0 if vectors is None else len(vectors)
    slots = len(vectors) if vectors is not None else 3
    content = f"Layer: {LAYER}\n" + " ?" * slots + " \n" + question
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    slot = tokenizer.convert_tokens_to_ids("Ġ?")
    at = [i for i, token in enumerate(ids) if token == slot][:count]
    assert len(at) == count

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        hidden = output if isinstance(output, Tensor) else output[0]
        hidden = hidden.clone()
        for position, vector in zip(at, vectors if vectors is not None else (), strict=True):
            row = hidden[0, position]
            hidden[0, position] = row + COEFFICIENT * row.norm() * vector / vector.norm()
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    handle = lm.model.model.layers[BLOCK].register_forward_hook(hook)  # pyright: ignore
    try:
        with torch.no_grad():
            logits = lm.model(torch.tensor([[*ids, *more]])).logits[0]
    finally:
        handle.remove()
    return logits.log_softmax(-1)[len(ids) - 1 :]


def by_hand(lm: LanguageModel, log_probs: Tensor) -> Tensor:
    """Yes and No over the spellings that the tiny tokenizer has for both."""
    tokenizer: Any = lm.tokenizer
    found = []
    for words in (("Yes", " Yes", "yes", " yes", "YES", " YES"), ("No", " No", "no", " no", "NO", " NO")):
        found.append([tokenizer(word, add_special_tokens=False)["input_ids"] for word in words])
    both = [i for i in range(6) if all(len(spelled[i]) == 1 for spelled in found)]
    assert 1 <= len(both) < 6
    return torch.stack([log_probs[[spelled[i][0] for i in both]].logsumexp(0) for spelled in found])
