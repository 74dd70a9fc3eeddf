"""On-policy text: the target's own answers to the bank's prompts, kept as the token ids that were sampled."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augury.data.prompts import Prompt
from augury.errors import ModelError
from augury.files import storing
from augury.lm import LanguageModel, Sampling, Span, Transcript, generate_batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rollout:
    """One conversation of the target.

    Attributes:
        id: Its number in the data set.
        split: `train` or `heldout`.
        token_ids: The whole conversation, end token included where one was sampled.
        user: Token positions `[start, stop)` of the user's content.
        assistant: Token positions `[start, stop)` of the sampled content.
        labels: What is known from how it was made (see `Prompt`).
    """

    id: int
    split: str
    token_ids: tuple[int, ...]
    user: tuple[int, int]
    assistant: tuple[int, int]
    labels: dict[str, str]


def generate_rollouts(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    path: Path,
    sampling: Sampling,
    *,
    batch_size: int = 96,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Sample one answer to every prompt and append them to the JSONL file `path`, a batch at a time.

    A file from an interrupted run is continued: whole batches are kept and what stands behind them is cut off, so that
    the seeds are those of a run without interruption.

    Raises:
        ModelError: The chat template does not hold the user's message as it is.
        StorageError: The disk is full; whole batches before are kept.
    """
    done = _kept_rows(path, len(prompts), batch_size)
    if done:
        log.info("%s holds %d of %d rollouts; going on from there", path, done, len(prompts))
    for start in range(done, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        seeded = Sampling(sampling.max_new_tokens, sampling.temperature, sampling.top_p, sampling.seed + start)
        found = generate_batch(lm, [[{"role": "user", "content": prompt.text}] for prompt in part], seeded)
        _append(path, [_rollout(lm, *row) for row in zip(range(start, len(prompts)), part, found, strict=False)])
        if progress is not None:
            progress(start + len(part), len(prompts))
    return path


def _rollout(lm: LanguageModel, number: int, prompt: Prompt, transcript: Transcript) -> Rollout:
    user, assistant = (_span(lm, transcript.spans, role) for role in ("user", "assistant"))
    return Rollout(number, prompt.split, transcript.token_ids, user, assistant, prompt.labels)


def _append(path: Path, rollouts: Sequence[Rollout]) -> None:
    with storing(path), path.open("a", encoding="utf-8") as sink:
        sink.writelines(json.dumps(_as_row(row), ensure_ascii=False) + "\n" for row in rollouts)
        sink.flush()
        os.fsync(sink.fileno())


def read_rollouts(path: Path) -> Iterator[Rollout]:
    """The rollouts of a file, in order."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row: dict[str, Any] = json.loads(line)
            row.update({key: tuple(row[key]) for key in ("token_ids", "user", "assistant")})
            yield Rollout(**row)


def _as_row(rollout: Rollout) -> dict[str, Any]:
    return {name: getattr(rollout, name) for name in Rollout.__dataclass_fields__}


def _span(lm: LanguageModel, spans: Sequence[Span], role: str) -> tuple[int, int]:
    found = [span for span in spans if span.role == role]
    if not found:
        raise ModelError(
            f"The {role}'s turn is not found in a conversation of {lm.name}.",
            f"its chat template (SHA-256 {lm.identity.chat_template_hash}) rewrites messages or leaves them out",
            "give the tokenizer a chat template that holds every message as it is",
        )
    return found[-1].start, found[-1].stop


def _kept_rows(path: Path, wanted: int, batch_size: int) -> int:
    """How many rows are kept: all where the file is finished, else whole batches; the rest is cut off."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    lines = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
    count = len(lines) if len(lines) >= wanted else len(lines) // batch_size * batch_size
    whole = sum(map(len, lines[:count]))
    if whole < len(content):
        log.warning("%s ended inside a batch, which was cut off", path)
        with storing(path), path.open("r+b") as file:
            file.truncate(whole)
    return count
