"""What the target itself answers: its choices, and what it writes. Items get their labels from this."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from augury.lm import LanguageModel, Sampling, Transcript, generate_many, render_chat
from augury.lm.adapters import adapters_on
from augury.lm.batch import left_pad
from augury.lm.chat import needs_tokenizer

BATCH, WIDTH = 16, 64
Turns = Sequence[dict[str, str]]


def choice_logprobs(lm: LanguageModel, conversations: Sequence[Turns], choices: Sequence[str]) -> Tensor:
    """How likely the answer to each conversation begins with each choice: `[n, choices]`, float32 on the CPU.

    A choice counts with its spellings with and without a space before it, where they are one token; else by the first
    token of it. The target's own adapter is on.
    """
    rows = [render_chat(lm, list(turns), "generation").token_ids for turns in conversations]
    spelled = [_spellings(lm, choice) for choice in choices]
    found = torch.empty(len(rows), len(choices))
    for members in lm.groups([len(row) for row in rows], BATCH):
        batch = left_pad([rows[i] for i in members], lm.pad_id, lm.device)
        with torch.no_grad(), adapters_on(lm.model, lm.target_adapters):
            logits = lm.logits(
                1, input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids
            )
        log_probs = logits[:, -1].float().log_softmax(-1).cpu()
        found[members] = torch.stack([log_probs[:, ids].logsumexp(-1) for ids in spelled], -1)
    return found


def _spellings(lm: LanguageModel, choice: str) -> list[int]:
    tokenizer = needs_tokenizer(lm)
    plain, spaced = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (choice, f" {choice}"))
    single = {ids[0] for ids in (plain, spaced) if len(ids) == 1}
    return sorted(single) or [plain[0]]


def written(
    lm: LanguageModel, conversations: Sequence[Turns], sampling: Sampling, told: Callable[[int, int], None]
) -> list[tuple[Transcript, str]]:
    """What it writes, with its text.

    Args:
        lm: The target.
        conversations: Messages.
        sampling: How tokens are chosen.
        told: Called with (done, of how many).
    """
    asked = [list(turns) for turns in conversations]
    found = generate_many(lm, asked, sampling, width=WIDTH, done=lambda done: told(done, len(asked)))
    return [(transcript, answer_text(lm, transcript)) for transcript in found]


def answer_text(lm: LanguageModel, transcript: Transcript) -> str:
    """The text of a transcript's last turn, without special tokens."""
    last = transcript.spans[-1]
    ids = list(transcript.token_ids[last.start : last.stop])
    return str(needs_tokenizer(lm).decode(ids, skip_special_tokens=True))
