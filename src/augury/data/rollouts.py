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
from augury.lm import LanguageModel, Sampling, Span, generate_batch

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

    A file from an interrupted run is continued: whole batches are kept, a torn last line is cut off.
    """
    done = _kept_rows(path)
    if done:
        log.info("%s holds %d of %d rollouts; going on from there", path, done, len(prompts))
    with path.open("a", encoding="utf-8") as sink:
        for start in range(done, len(prompts), batch_size):
            part = prompts[start : start + batch_size]
            seeded = Sampling(sampling.max_new_tokens, sampling.temperature, sampling.top_p, sampling.seed + start)
            found = generate_batch(lm, [[{"role": "user", "content": prompt.text}] for prompt in part], seeded)
            for number, (prompt, transcript) in enumerate(zip(part, found, strict=True), start):
                user, assistant = _span(transcript.spans, "user"), _span(transcript.spans, "assistant")
                row = Rollout(number, prompt.split, transcript.token_ids, user, assistant, prompt.labels)
                sink.write(json.dumps(_as_row(row), ensure_ascii=False) + "\n")
            sink.flush()
            os.fsync(sink.fileno())
            if progress is not None:
                progress(start + len(part), len(prompts))
    return path


def read_rollouts(path: Path) -> Iterator[Rollout]:
    """The rollouts of a file, in order."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row: dict[str, Any] = json.loads(line)
            row.update({key: tuple(row[key]) for key in ("token_ids", "user", "assistant")})
            yield Rollout(**row)


def _as_row(rollout: Rollout) -> dict[str, Any]:
    return {name: getattr(rollout, name) for name in Rollout.__dataclass_fields__}


def _span(spans: Sequence[Span], role: str) -> tuple[int, int]:
    found = [span for span in spans if span.role == role][-1]
    return found.start, found.stop


def _kept_rows(path: Path) -> int:
    """How many whole rows the file has; a torn last line is cut off."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        log.warning("%s ended in a torn line, which was cut off", path)
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return whole.count(b"\n")
