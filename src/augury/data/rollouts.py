"""On-policy text: the target's own answers to prompts, kept as the token ids that were sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from augury.data.example import Context, Part
from augury.data.prompts import Prompt
from augury.data.store import Shards
from augury.errors import ModelError
from augury.lm import LanguageModel, Sampling, Span, Transcript, generate_many

FILE = 4  # the batch runs dry only at a file's end, and an interruption costs no more than a file


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
    """Sample one answer to every prompt, a file of contexts for every `FILE` batches.

    What an interrupted run wrote is continued; an answer follows from the seed and its prompt's number.

    Args:
        lm: The target.
        prompts: What it answers.
        shards: Where its answers go.
        sampling: How tokens are chosen.
        thinking: Whether it thinks first, where its template knows that.
        batch_size: Answers that are sampled together.
        progress: Called with how many there are.

    Raises:
        ModelError: The chat template does not hold the user's message as it is.
        StorageError: The disk is full; whole files before are kept.
    """
    told = progress or (lambda count: None)
    rest = islice(prompts, shards.units, None)
    while part := list(islice(rest, FILE * batch_size)):
        start = shards.units
        numbers = range(start, start + len(part))
        found = generate_many(
            lm,
            [[{"role": "user", "content": prompt.text}] for prompt in part],
            sampling,
            numbers=numbers,
            width=batch_size,
            end="thinking" if thinking else "generation",
            done=lambda count, start=start: told(start + count),
        )
        shards.append([rollout(lm, *row) for row in zip(numbers, part, found, strict=True)], len(part))


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
