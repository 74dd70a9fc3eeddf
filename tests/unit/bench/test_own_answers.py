"""What the target itself answers, against its plain logits."""

from __future__ import annotations

import pytest
import torch

from augury.bench.own_answers import choice_logprobs
from augury.lm import render_chat


def test_choices_are_the_models_own_probabilities(lm):
    asked = [[{"role": "user", "content": text}] for text in ("Is this tea?", "a " * 30, "What is it? Yes or No")]
    found = choice_logprobs(lm, asked, ("Yes", "No"))
    for turns, row in zip(asked, found, strict=True):
        ids = render_chat(lm, turns, "generation").token_ids
        log_probs = lm.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        for choice, told in zip(("Yes", "No"), row.tolist(), strict=True):
            spelled = [lm.tokenizer(text)["input_ids"] for text in (choice, f" {choice}")]
            single = [ids[0] for ids in spelled if len(ids) == 1]
            assert single
            assert told == pytest.approx(float(log_probs[single].logsumexp(0)), abs=1e-5)
