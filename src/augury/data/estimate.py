"""What a data set will cost, before it is spent: reckoned from the recipe and the sizes of its files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from augury.data.calls import Calls, endpoint_calls
from augury.data.contexts import RolloutSettings
from augury.data.example import Example
from augury.data.recipe import DataRecipe, files_of
from augury.data.sources.base import SourceSettings
from augury.data.sources.custom import CustomSettings
from augury.data.sources.system import LISTS
from augury.lm.size import seconds_for, size_here

PROMPT_TOKENS = 45  # of a rollout's prompt, with the template's own
BYTES_A_TOKEN = 4  # of text
CONTEXT_BYTES, EXAMPLE_BYTES = 150, 300  # on disk, without the tokens of a context
A_SECOND = 3000  # contexts read or examples drawn


@dataclass(frozen=True)
class DataCosts:
    """A data set in figures.

    Attributes:
        contexts: Rollouts and rows of files, about.
        context_tokens: Their tokens, about.
        sampled_tokens: Tokens sampled from the target, at most.
        examples: Examples of all sources, about.
        calls: Calls to endpoints, at most.
        disk_bytes: Contexts and examples, about.
        seconds: On this machine, about; None where the model that samples is not on it.
        asked: What is asked of each endpoint.
    """

    contexts: int
    context_tokens: int
    sampled_tokens: int
    examples: int
    calls: int
    disk_bytes: int
    seconds: float | None
    asked: tuple[Calls, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The figures with units, one line each."""
        unknown = "not known (the model is not on this machine)"
        return [
            f"contexts  about {self.contexts:,}",
            f"tokens    {f'at most {self.sampled_tokens:,} sampled' if self.sampled_tokens else 'none sampled'}",
            *([asked.line() for asked in self.asked] or ["calls     none to endpoints"]),
            f"examples  about {self.examples:,}",
            f"disk      about {spelled_bytes(self.disk_bytes)}",
            f"time      {unknown if self.seconds is None else f'roughly {spelled_time(self.seconds)} on this machine'}",
        ]


def spelled_time(seconds: float) -> str:
    """In hours or minutes."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minute{'s' if minutes != 1 else ''}"


def spelled_bytes(count: float) -> str:
    """In GB or MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def estimate_data(recipe: DataRecipe, counts: Mapping[str, int] | None = None) -> DataCosts:
    """What building costs.

    Args:
        recipe: What to make.
        counts: Training examples of the sources whose settings leave that open, as for `build`.
    """
    own = {name: source for name, source in recipe.sources.items() if not source.contexts}
    sets = {name: _reckoned(settings) for name, settings in (*recipe.contexts.items(), *own.items())}
    examples = {
        name: _examples(name, source, sets[source.contexts or name], counts or {})
        for name, source in recipe.sources.items()
    }
    contexts, made = sum(found.contexts for found in sets.values()), sum(examples.values())
    tokens = sum(found.tokens for found in sets.values())
    return DataCosts(
        contexts=contexts,
        context_tokens=tokens,
        sampled_tokens=sum(found.sampled for found in sets.values()),
        examples=made,
        calls=sum(asked.calls for asked in endpoint_calls(recipe)),
        asked=tuple(endpoint_calls(recipe)),
        disk_bytes=contexts * CONTEXT_BYTES + tokens * 4 + made * EXAMPLE_BYTES,
        seconds=_seconds(recipe, (contexts + made) / A_SECOND),
    )


@dataclass(frozen=True)
class AuditCosts:
    """What a text-inversion audit takes.

    Attributes:
        examples: That the reader is asked about.
        tokens: Through the model, about.
        seconds: On this machine, about; None where the model is not on it.
    """

    examples: int
    tokens: int
    seconds: float | None

    def line(self) -> str:
        """The figures with units."""
        time = "" if self.seconds is None else f", roughly {spelled_time(self.seconds)} on this machine"
        return f"audit: {self.examples:,} examples under three readings, about {self.tokens:,} tokens{time}"


def estimate_audit(picked: Mapping[str, Sequence[Example]], model: str) -> AuditCosts:
    """What asking a reader about these examples costs.

    Args:
        picked: Each source's examples.
        model: Who reads.
    """
    examples = [example for part in picked.values() for example in part]
    tokens = sum(sum(_read(example)) for example in examples)
    size = size_here(model)
    return AuditCosts(len(examples), tokens, None if size is None else seconds_for(tokens, size.parameters, False))


def _read(example: Example) -> tuple[int, int, int]:
    """Tokens under the three readings, each with its answer, and once more for a greedy one."""
    answer = len(example.answer_ids or ()) or len(example.answer) // BYTES_A_TOKEN + 1
    bare = PROMPT_TOKENS + len(example.question) // BYTES_A_TOKEN + answer * (1 if example.task == "yes_no" else 2)
    return bare, bare + len(example.positions), bare + example.positions[-1] + 1


@dataclass(frozen=True)
class _Reckoned:
    """A set of contexts in figures: all of them, those of training, their tokens, and how many of these are sampled."""

    contexts: int
    train: int
    tokens: int
    sampled: int = 0


def _reckoned(settings: Any) -> _Reckoned:
    if isinstance(settings, RolloutSettings):
        count = settings.train + settings.heldout
        sampled = count * settings.max_new_tokens
        here = sampled if settings.endpoint is None else 0
        return _Reckoned(count, settings.train, sampled + count * PROMPT_TOKENS, here)
    paths = files_of(settings)
    rows, size = sum(map(_rows, paths)), sum(map(_size, paths))
    return _Reckoned(rows, round(rows * (1 - dict(settings).get("heldout_share", 0.0))), size // BYTES_A_TOKEN)


def _rows(path: Path) -> int:
    """Rows of a table, or conversations of a folder, about: cells may hold line ends."""
    if path.is_dir():
        found = (path / f"{name}.json" for name in LISTS)
        return sum(len(json.loads(file.read_text(encoding="utf-8"))) for file in found if file.is_file())
    with path.open("rb") as stream:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))
    return max(1, lines - (path.suffix in (".csv", ".tsv")))  # these begin with a header


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*.json")) if path.is_dir() else path.stat().st_size


def _examples(name: str, source: SourceSettings, about: _Reckoned, counts: Mapping[str, int]) -> int:
    if isinstance(source, CustomSettings):
        return about.contexts
    train = source.train if source.train is not None else counts.get(name, about.train)
    return train + (source.heldout if about.contexts > about.train else 0)


def _seconds(recipe: DataRecipe, besides: float) -> float | None:
    """Sampling takes a forward pass a token; None where the size of what samples is not known."""
    sets = (s for s in recipe.contexts.values() if isinstance(s, RolloutSettings))
    rollouts = [settings for settings in sets if settings.endpoint is None]
    if not rollouts:
        return besides
    size = size_here(recipe.model)
    if size is None:
        return None
    return besides + sum(
        seconds_for(_reckoned(settings).tokens, size.parameters, settings.dtype == "bfloat16") for settings in rollouts
    )
