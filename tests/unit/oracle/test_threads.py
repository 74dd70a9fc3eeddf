"""Threads that share a model: each gets what it would get alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from augury.activations import capture
from augury.lm import LanguageModel, generate
from augury.oracle import load_oracle
from tests.oracle_by_hand import CONTEXT, COOKING, LAYER, OTHER, WHO

TURNS = 6


def test_threads_get_what_each_would_get_alone(lm: LanguageModel, folder: Path) -> None:
    """Captures run with every adapter off while another thread's questions switch the oracle on and inject."""
    with load_oracle(folder, lm) as oracle:
        vectors = capture(lm, CONTEXT, LAYER, "all").vectors
        text, margin = oracle.ask(OTHER, WHO, max_new_tokens=4).text, oracle.score(OTHER, COOKING, donors=0).margin
        ids = generate(lm, CONTEXT, max_new_tokens=4).token_ids

        def captures() -> bool:
            return all(torch.equal(capture(lm, CONTEXT, LAYER, "all").vectors, vectors) for _ in range(TURNS))

        def asks() -> bool:
            return all(oracle.ask(OTHER, WHO, max_new_tokens=4).text == text for _ in range(TURNS))

        def scores() -> bool:
            return all(oracle.score(OTHER, COOKING, donors=0).margin == margin for _ in range(TURNS))

        def generates() -> bool:
            return all(generate(lm, CONTEXT, max_new_tokens=4).token_ids == ids for _ in range(TURNS))

        def loads() -> bool:
            for _ in range(TURNS):
                load_oracle(folder, lm).unload()
            return True

        with ThreadPoolExecutor(6) as pool:
            running = [pool.submit(work) for work in (captures, asks, scores, generates, loads, loads)]
            assert all([found.result() for found in running])
