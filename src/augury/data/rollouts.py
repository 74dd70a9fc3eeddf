"""On-policy text: the target's own answers to prompts, kept as the token ids that were sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice

from augury.data.example import Context, Part
from augury.data.prompts import Prompt
from augury.data.store import Shards
from augury.errors import ModelError
from augury.lm import LanguageModel, Sampling, Span, Transcript, generate_batch


def sample_rollouts(
    lm: LanguageModel,
    prompts: Iterable[Prompt],
    shards: Shards[Context],
    sampling: Sampling,
    *,
    thinking: bool = False,
    batch_size: int = 96,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Sample one answer to every prompt, a file of contexts a batch.

    What an interrupted run wrote is continued, with the seeds of a run without interruption.

    Raises:
        ModelError: The chat template does not hold the user's message as it is.
        StorageError: The disk is full; whole batches before are kept.
    """
    rest = islice(prompts, shards.units, None)
    while part := list(islice(rest, batch_size)):
        start = shards.units
        seeded = replace(sampling, seed=sampling.seed + start)
        requests = [[{"role": "user", "content": prompt.text}] for prompt in part]
        found = generate_batch(lm, requests, seeded, end="thinking" if thinking else "generation")
        rows = zip(range(start, start + len(part)), part, found, strict=True)
        shards.append([rollout(lm, *row) for row in rows], len(part))
        if progress is not None:
            progress(shards.units)


def rollout(lm: LanguageModel, number: int, prompt: Prompt, transcript: Transcript) -> Context:
    """The context of one answer.

    Raises:
        ModelError: The chat template does not hold the user's message as it is.
    """
    authors = {"user": prompt.author, "assistant": "target"}
    found = {role: _span(lm, transcript.spans, role) for role in authors}
    parts = tuple(Part(role, authors[role], span.start, span.stop) for role, span in found.items())
    return Context(number, prompt.split, transcript.token_ids, parts, prompt.labels, f"{prompt.author} {number}")


def _span(lm: LanguageModel, spans: Sequence[Span], role: str) -> Span:
    found = [span for span in spans if span.role == role]
    if not found:
        raise ModelError(
            f"The {role}'s turn is not found in a conversation of {lm.name}.",
            f"its chat template (SHA-256 {lm.identity.chat_template_hash}) rewrites messages or leaves them out",
            "give the tokenizer a chat template that holds every message as it is",
        )
    return found[-1]
