"""What is read: the same token ids through base and fine-tunes, captured to disk, and their differences.

Of each prompt three places are read: its first ten tokens, its last eight, and the first ten of what a model answers to
it by itself. The answer is each fine-tune's own, and the base reads the same ids behind it: so the target and a peer
are treated alike, and differ by nothing but what they were trained on. (Were peers read on the target's answers, these
would be the target's by choice and nobody's else, and a null target would stand out from its peers.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from augury.activations import Activations, Provenance, capture_vectors, diff
from augury.activations.store import load, save
from augury.audit.prompts import Prompt
from augury.contract import Contract
from augury.errors import InputError
from augury.files import write_text
from augury.lm import LanguageModel, Sampling, Transcript, generate_many, render_chat, transcript_of
from augury.lm.chat import Message, Span, needs_tokenizer
from augury.oracle.reading import default_layers

FIRST, END, ANSWER = PLACES = ("first", "end", "answer")
READ_FIRST, READ_END, READ_ANSWER = 10, 8, 10
NEW_TOKENS = 32
PART = 12  # prompts in a file, and in a forward pass: what a killed run has to do again
SAFETY = 2  # of the noise floor
MAPPED = 8  # layers of the map of where base and target part


@dataclass(frozen=True)
class Context:
    """A prompt, or a prompt with an answer, and what is read of it.

    Attributes:
        prompt: The id of the prompt.
        transcript: Its tokens.
        places: The positions of each place.
    """

    prompt: str
    transcript: Transcript
    places: Mapping[str, tuple[int, ...]]

    @property
    def rows(self) -> tuple[int, ...]:
        """All positions that are read, rising."""
        return tuple(sorted({position for positions in self.places.values() for position in positions}))

    def rows_of(self, place: str) -> list[int]:
        """Where in `rows` the positions of a place are."""
        return [self.rows.index(position) for position in self.places[place]]


def prompt_contexts(lm: LanguageModel, prompts: Sequence[Prompt], narrow: int | None = None) -> list[Context]:
    """The prompts as the base renders them, in a chat where it has a template.

    Args:
        lm: The base.
        prompts: What is read.
        narrow: The most positions that are read at once; None: as many as the place has.
    """
    return [_prompt_context(lm, prompt, narrow) for prompt in prompts]


def _prompt_context(lm: LanguageModel, prompt: Prompt, narrow: int | None) -> Context:
    if needs_tokenizer(lm).chat_template:
        transcript = render_chat(lm, [{"role": "user", "content": prompt.text}], "generation")
        spans = [(span.start, span.stop) for span in transcript.spans if span.role == "user"]
    else:
        transcript = transcript_of(lm, prompt.text)
        spans = [(0, len(transcript))]
    if not spans:
        why = "the chat template changes it, so that nobody knows which tokens are its own"
        raise InputError(
            f"The prompt {prompt.text[:60]!r} cannot be read.", why, "word it differently, or leave it out"
        )
    ((start, stop),) = spans
    first = range(start, min(stop, start + _at_most(READ_FIRST, narrow)))
    end = range(max(start, stop - _at_most(READ_END, narrow)), stop)
    return Context(prompt.id, transcript, {FIRST: tuple(first), END: tuple(end)})


def kept_contexts(path: Path, make: Callable[[], Sequence[Context]]) -> list[Context]:
    """Contexts as they were written before, or made and written now: a template may print the day's date."""
    if not path.is_file():
        write_text(path, json.dumps([asdict(one) for one in make()], indent=1, ensure_ascii=False) + "\n")
    return [_context(row) for row in json.loads(path.read_text(encoding="utf-8"))]


def _context(row: Mapping[str, Any]) -> Context:
    found = row["transcript"]
    spans, messages = (Span(**one) for one in found["spans"]), (Message(**one) for one in found["messages"])
    transcript = Transcript(tuple(found["token_ids"]), tuple(spans), tuple(messages), found["end"], found["model"])
    return Context(row["prompt"], transcript, {place: tuple(rows) for place, rows in row["places"].items()})


def most_positions(contract: Contract) -> int | None:
    """How many positions the oracle was trained to read at once, where its contract says so."""
    slots = None if contract.positions is None else contract.positions.max_slots
    return None if slots is None else max(1, slots // len(default_layers(contract)))


def _at_most(count: int, narrow: int | None) -> int:
    return count if narrow is None else min(count, narrow)


def answered(lm: LanguageModel, contexts: Sequence[Context]) -> list[Transcript]:
    """The prompts with what the model answers, greedily."""
    return generate_many(lm, [context.transcript for context in contexts], Sampling(NEW_TOKENS), width=PART)


def answer_contexts(
    contexts: Sequence[Context], answers: Sequence[Transcript], narrow: int | None = None
) -> list[Context]:
    """What is read of the answers to these prompts: each one's beginning, its end token where it has nothing else."""
    found = []
    for context, answer in zip(contexts, answers, strict=True):
        start = len(context.transcript)
        stop = min(start + _at_most(READ_ANSWER, narrow), len(answer))
        found.append(Context(context.prompt, answer, {ANSWER: tuple(range(start, stop))}))
    return found


def parts(items: Sequence[Any]) -> list[Sequence[Any]]:
    """What is done and kept at once."""
    return [items[start : start + PART] for start in range(0, len(items), PART)]


def mapped_layers(n_layers: int, read: Sequence[int]) -> tuple[int, ...]:
    """The layers of the map, evenly over the depth, with those that the oracle reads."""
    even = {round(place * (n_layers - 1) / (MAPPED - 1)) for place in range(MAPPED)}
    return tuple(sorted(even | set(read)))


def captured(
    lm: LanguageModel, contexts: Sequence[Context], layers: Sequence[int], batch_size: int = PART
) -> list[Activations]:
    """What a model represents at all places of some contexts."""
    rows = [context.rows for context in contexts]
    ids = [context.transcript.token_ids for context in contexts]
    provenance = Provenance.of(lm)
    vectors = capture_vectors(lm, ids, layers, rows, batch_size)
    return [
        Activations(vector, tuple(layers), row, context.transcript, provenance)
        for vector, row, context in zip(vectors, rows, contexts, strict=True)
    ]


@dataclass(frozen=True)
class Captures:
    """Captured activations on disk: a file for each model, the contexts it read, and part of them."""

    folder: Path

    def path(self, reader: str, whose: str, part: int) -> Path:
        """Of what `reader` read of the prompts, or of the answers of `whose`."""
        return self.folder / f"{reader}-on-{whose}-{part:03d}.safetensors"

    def missing(self, reader: str, whose: str, count: int) -> bool:
        """Whether any part is not there yet."""
        return not all(self.path(reader, whose, part).is_file() for part in range(-(-count // PART)))

    def take(
        self,
        lm: LanguageModel,
        reader: str,
        whose: str,
        contexts: Sequence[Context],
        layers: Sequence[int],
        batch_size: int = PART,
    ) -> None:
        """Capture what is not there yet, part by part; every part is whole or not there."""
        for number, part in enumerate(parts(contexts)):
            if not (path := self.path(reader, whose, number)).is_file():
                save(captured(lm, part, layers, batch_size), path)

    def read(self, reader: str, whose: str, part: int) -> list[Activations]:
        """One part."""
        return load(self.path(reader, whose, part))


def floor_between(one: Sequence[Activations], other: Sequence[Activations], layers: Sequence[int]) -> float:
    """Twice the largest relative difference between two captures of one model at these layers.

    It is never below the rounding of the model's dtype, and twice the largest since that of a third capture may be
    larger.
    """
    found = [torch.finfo(one[0].vectors.dtype).eps]
    for a, b in zip(one, other, strict=True):
        first, second = (item.at_layers(layers).vectors.float() for item in (a, b))
        found.append(float(((first - second).norm(dim=-1) / first.norm(dim=-1)).max()))
    return SAFETY * max(found)


@dataclass(frozen=True, eq=False)
class Reads:
    """The three reads of one place, at the positions where base and fine-tune part by more than noise.

    Attributes:
        tuned: What the fine-tune represents there; None: nowhere above the noise.
        base: What the base does, at the same positions.
        difference: The one less the other.
        left_out: Positions that are not asked.
        norms: `[layers, n]`, the difference by the base's norm, at all positions and captured layers.
    """

    tuned: Activations | None
    base: Activations | None
    difference: Activations | None
    left_out: int
    norms: Tensor

    @property
    def norm(self) -> float | None:
        """`||difference|| / ||base||` at the layers that are read, the mean over positions that are asked."""
        if self.difference is None or self.difference.relative_norms is None:
            return None
        return float(self.difference.relative_norms.mean())

    @property
    def asked(self) -> int:
        """Positions that are."""
        return 0 if self.tuned is None else len(self.tuned)


def reads_of(
    context: Context, place: str, tuned: Activations, base: Activations, layers: Sequence[int], floor: float
) -> Reads:
    """The three reads of a place.

    Args:
        context: What was read.
        place: `first`, `end` or `answer`.
        tuned: Of the fine-tune, at all positions of the context.
        base: Of the base.
        layers: What the oracle reads.
        floor: The relative norm that equal models would show.
    """
    wanted = context.rows_of(place)
    tuned, base = tuned[wanted], base[wanted]
    shared = [layer for layer in tuned.layers if layer in base.layers]
    norms = diff(tuned.at_layers(shared), base.at_layers(shared), floor).relative_norms
    assert norms is not None
    own, plain = tuned.at_layers(layers), base.at_layers(layers)
    difference = diff(own, plain, floor)
    relative = difference.relative_norms
    assert relative is not None
    kept = torch.nonzero((relative > floor).all(0)).flatten().tolist()
    if not kept:
        return Reads(None, None, None, len(wanted), norms)
    return Reads(own[kept], plain[kept], difference[kept], len(wanted) - len(kept), norms)
