"""Everything that is asked in an audit, part by part into files: a run that is cut off goes on where it was."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augury.activations import Activations
from augury.audit.asks import Asker
from augury.audit.contrast import Floats, Moved, figures
from augury.audit.states import ANSWER, END, PART, PLACES, Captures, Context, Reads, parts, reads_of
from augury.audit.subjects import BASE
from augury.bench.kept import kept_in
from augury.errors import InputError
from augury.oracle.together import Work

TUNED, DIFFERENCE = KINDS = ("fine-tuned", "difference")
READS = tuple((kind, place) for kind in KINDS for place in PLACES)
PROMPTS = "prompts"
AGAIN = "base-again"
DIGITS = 6

Tell = Callable[[str, int, int], None]
Block = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Asked:
    """What was asked of one fine-tune at one place.

    Attributes:
        tuned: `[prompts, concepts]`, log-odds of Yes on the fine-tune's activations; NaN where nothing was asked.
        base: The same on the base's, at the same tokens.
        difference: The same on the difference.
        norms: `[prompts]`, the mean `||difference|| / ||base||` of what was asked; NaN where nothing was.
        positions: Positions that were asked, over all prompts.
        left_out: Positions below the noise floor, which were not.
    """

    tuned: Floats
    base: Floats
    difference: Floats
    norms: Floats
    positions: int = 0
    left_out: int = 0


@dataclass(frozen=True, eq=False)
class Gatherer:
    """Asks the oracle about captured activations, and keeps what it says.

    Attributes:
        asker: Who is asked.
        captures: What was captured.
        contexts: The prompts, under `prompts`, and each fine-tune's answers, under its key.
        floor: The relative norm that equal models would show.
        folder: Where answers are kept.
        tell: Called with (what, done, of how many).
    """

    asker: Asker
    captures: Captures
    contexts: Mapping[str, Sequence[Context]]
    floor: float
    folder: Path
    tell: Tell

    def reads(self, key: str, place: str, part: int) -> list[Reads]:
        """The three reads of one part of the prompts."""
        whose = key if place == ANSWER else PROMPTS
        tuned, base = (self.captures.read(reader, whose, part) for reader in (key, BASE))
        contexts = parts(self.contexts[whose])[part]
        layers, floor = self.asker.layers, self.floor
        rows = zip(contexts, tuned, base, strict=True)
        return [reads_of(context, place, own, plain, layers, floor) for context, own, plain in rows]

    def check_moves(self, key: str, name: str) -> None:
        """Refuse a fine-tune that is nowhere above the noise.

        Raises:
            InputError: It is below the noise floor everywhere.
        """
        for part in range(self._parts):
            if any(read.asked for place in PLACES for read in self.reads(key, place, part)):
                return
        raise InputError(
            f"{name} is below the noise floor everywhere.",
            f"at no position does it differ from the base by more than {self.floor:.1e} of the norm, as the base does "
            "from itself in another batch",
            "name a fine-tune whose weights differ from the base's, or look at the adapter's training",
        )

    @property
    def _parts(self) -> int:
        return -(-len(self.contexts[PROMPTS]) // PART)

    def all_of(self, keys: Sequence[str]) -> dict[str, dict[str, Asked]]:
        """Every fine-tune at every place."""
        total, found = len(keys) * len(PLACES) * self._parts, {}
        for i, key in enumerate(keys):
            found[key] = {}
            for j, place in enumerate(PLACES):
                blocks = []
                for part in range(self._parts):
                    blocks.append(self._block(key, place, part))
                    self.tell("asking", (i * len(PLACES) + j) * self._parts + part + 1, total)
                found[key][place] = _joined(blocks)
        return found

    def _block(self, key: str, place: str, part: int) -> Block:
        reads: list[Reads] = []

        def lazily() -> list[Reads]:
            if not reads:
                reads.extend(self.reads(key, place, part))
            return reads

        own = self.kept(f"{key}-{place}", part, lambda: self._own(lazily()))
        # The base's own words about a prompt are the same beside each fine-tune, where nothing is left out.
        shared = place != ANSWER and not own["left_out"]
        name = f"{BASE}-{place}" if shared else f"{BASE}-of-{key}-{place}"
        plain = self.kept(name, part, lambda: self._margins([read.base for read in lazily()]))
        return {**own, "base": plain["margins"]}

    def _own(self, reads: Sequence[Reads]) -> Block:
        tuned = self._margins([read.tuned for read in reads])
        difference = self._margins([read.difference for read in reads])
        work = Work(**tuned["work"])
        work.add(Work(**difference["work"]))
        return {
            "tuned": tuned["margins"],
            "difference": difference["margins"],
            "norms": norms_of(reads),
            "positions": sum(read.asked for read in reads),
            "left_out": sum(read.left_out for read in reads),
            "work": asdict(work),
        }

    def _margins(self, read: Sequence[Activations | None]) -> Block:
        before = Work(**asdict(self.asker.work))
        found = self.asker.margins(read)
        return {"margins": listed(found), "work": since(before, self.asker.work)}

    def kept(self, name: str, part: int, make: Callable[[], Block]) -> Block:
        """A block that was made before, or now."""
        return kept_in(self.folder)(name, part, make)

    def controls(self) -> Mapping[str, Floats]:
        """What the oracle says of each concept without these activations, at the width of each place."""
        found = {}
        for place in PLACES:
            count = max(
                len(context.places[place]) for contexts in self.contexts.values() for context in contexts
                if place in context.places
            )  # fmt: skip
            block = self.kept(f"controls-{count}", 0, lambda count=count: self._controls(count))
            found |= {f"none {place}": arrayed(block["none"]), f"shuffled {place}": arrayed(block["shuffled"])}
        return found

    def _controls(self, count: int) -> Block:
        before = Work(**asdict(self.asker.work))
        none, shuffled = listed(self.asker.none(count)), listed(self.asker.shuffled(count))
        return {"none": none, "shuffled": shuffled, "work": since(before, self.asker.work)}

    def base_again(self) -> tuple[Floats, Floats]:
        """What the oracle says of the base, captured twice, at the prompts' ends: `[prompts, concepts]` each."""
        again, plain = [], []
        for part, contexts in enumerate(parts(self.contexts[PROMPTS])):
            again += self.kept(f"{AGAIN}-{END}", part, lambda part=part, own=contexts: self._again(own, part))[
                "margins"
            ]
            plain += self.kept(f"{BASE}-{END}", part, lambda part=part, own=contexts: self._again(own, part, BASE))[
                "margins"
            ]
        return arrayed(again), arrayed(plain)

    def _again(self, contexts: Sequence[Context], part: int, reader: str = AGAIN) -> Block:
        found = []
        for context, acts in zip(contexts, self.captures.read(reader, PROMPTS, part), strict=True):
            found.append(acts.at_layers(self.asker.layers)[context.rows_of(END)])
        return self._margins(found)

    def work(self) -> Work:
        """What was run for all that is kept."""
        total = Work()
        for path in sorted(self.folder.glob("*.json")):
            total.add(Work(**json.loads(path.read_text(encoding="utf-8"))["work"]))
        return total


def since(before: Work, after: Work) -> dict[str, int]:
    """What was run in between."""
    return {name: value - asdict(before)[name] for name, value in asdict(after).items()}


def listed(values: Floats) -> list[Any]:
    """As JSON-ready numbers; None for NaN."""
    rows = np.atleast_2d(np.round(values, DIGITS)).tolist()
    found = [[None if math.isnan(value) else value for value in row] for row in rows]
    return found if values.ndim > 1 else found[0]


def arrayed(values: Sequence[Any]) -> Floats:
    """What `listed` made, as an array."""
    return np.array(values, dtype=float)


def _joined(blocks: Sequence[Block]) -> Asked:
    found = (
        np.concatenate([arrayed(block[name]) for block in blocks]) for name in ("tuned", "base", "difference", "norms")
    )
    tuned, base, difference, norms = found
    counts = (sum(block[name] for block in blocks) for name in ("positions", "left_out"))
    return Asked(tuned, base, difference, norms, *counts)


def norms_of(reads: Sequence[Reads]) -> list[float | None]:
    """How far each read prompt's activations moved, JSON-ready."""
    return listed(np.array([np.nan if read.norm is None else read.norm for read in reads]))


def sizes(asked: Mapping[str, Asked], prompts: Sequence[int] | None = None) -> Floats:
    """How far a fine-tune moved what is read, `[reads]`: 1 for the difference, which is injected at full norm."""
    chosen = slice(None) if prompts is None else list(prompts)
    norms = {place: one.norms[chosen] for place, one in asked.items()}
    by_place = {place: 1.0 if np.isnan(found).all() else float(np.nanmean(found)) for place, found in norms.items()}
    return np.array([by_place[place] if kind == TUNED else 1.0 for kind, place in READS])


def moved_by(asked: Mapping[str, Asked], controls: Mapping[str, Floats], prompts: Sequence[int] | None = None) -> Moved:
    """How far a fine-tune moved the oracle, in all prompts or in some."""
    found = changes(asked, controls)
    return Moved(figures(found if prompts is None else found[:, list(prompts)]), sizes(asked, prompts))


def changes(asked: Mapping[str, Asked], controls: Mapping[str, Floats]) -> Floats:
    """How far a fine-tune moved the oracle: `[reads, prompts, concepts]`, in the order of `READS`.

    On the fine-tune's activations against the base's; on the difference against neutral contexts.
    """
    by_kind = {
        TUNED: lambda place: asked[place].tuned - asked[place].base,
        DIFFERENCE: lambda place: asked[place].difference - controls[f"shuffled {place}"],
    }
    return np.stack([by_kind[kind](place) for kind, place in READS])


def norm_map(gatherer: Gatherer, key: str) -> dict[str, Any]:
    """`||difference|| / ||base||`, the mean over prompts, by layer and position: where the two part.

    Of the prompt's end positions are counted from its last token, elsewhere from the first.
    """
    found: dict[str, Any] = {}
    for place in PLACES:
        rows = [read.norms.numpy() for part in range(gatherer._parts) for read in gatherer.reads(key, place, part)]
        width = max(row.shape[1] for row in rows)
        filled = np.full((len(rows), rows[0].shape[0], width), np.nan)
        for i, row in enumerate(rows):
            where = slice(width - row.shape[1], width) if place == END else slice(0, row.shape[1])
            filled[i, :, where] = row
        found[place] = np.round(np.nanmean(filled, 0), DIGITS).tolist()
    return found
