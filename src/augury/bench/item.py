"""What a task asks about: items, each one reading with what is true of it; and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from augury.contract import ModelIdentity
from augury.errors import ContractError, FormatError, NotFoundError
from augury.files import replacing

SCHEMA = 1


@dataclass(frozen=True)
class State:
    """What the target is while it reads.

    Attributes:
        organism: The name of its adapter; None: the plain model.
        planted: A concept whose direction is added to its residual stream below the layer that is read.
        strength: Of the direction, as a share of the residual norm at each position.
    """

    organism: str | None = None
    planted: str | None = None
    strength: float = 0.0


PLAIN = State()


@dataclass(frozen=True)
class Item:
    """One reading and what is true of it.

    Attributes:
        id: Its name, once in its set.
        problem: What it shares with items that are not independent of it: intervals are over problems, and donors are
            of another.
        token_ids: The context, up to the last token that is read or further.
        positions: The widest window that is read, rising; a narrower one is the last of these.
        facts: What is known of it, by name: the true answers, and what fills in the questions.
        choices: What may be answered, where that differs from item to item.
        state: Of the target.
        spans: `(role, start, stop)` of its turns, for those who look at it.
        cluster: What intervals are over where it is not the problem: what a reader may do well or ill by luck as a
            whole, such as one organism, whatever it reads.
    """

    id: str
    problem: str
    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    facts: dict[str, str]
    choices: tuple[str, ...] = ()
    state: State = PLAIN
    spans: tuple[tuple[str, int, int], ...] = ()
    cluster: str = ""

    @property
    def counted_by(self) -> str:
        """What intervals are over."""
        return self.cluster or self.problem

    def window(self, width: int) -> tuple[int, ...]:
        """The last `width` positions; all of them for 0, or where there are fewer."""
        return self.positions[-width:] if width else self.positions


class Manifest(BaseModel):
    """What a set of items is.

    Attributes:
        name: The set's name.
        model: Whose facts its labels are.
        origin: Where its texts come from.
        licence: Theirs.
        made: The settings it was made with.
        counts: What there was and what was left of it, by name.
        organisms: The adapters that its labels are facts about: their names, and what `fingerprint_of` gives.
        unmeasurable: Why no task can be measured with it on this model; None: it can.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=SCHEMA, le=SCHEMA)
    name: str
    model: ModelIdentity
    origin: str
    licence: str
    made: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    organisms: dict[str, str] = Field(default_factory=dict)
    unmeasurable: str | None = None


@dataclass(frozen=True)
class ItemSet:
    """Items with what they are."""

    manifest: Manifest
    items: tuple[Item, ...] = field(repr=False)

    def of_problems(self, most: int) -> tuple[Item, ...]:
        """The first items, `most` at most, in the set's own order, which any beginning of is balanced."""
        return self.items[:most]


def write_items(path: Path, found: ItemSet) -> None:
    """One JSON object a line: the manifest, then every context once, then the items."""
    places: dict[tuple[int, ...], int] = {}
    contexts: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for item in found.items:
        if item.token_ids not in places:
            places[item.token_ids] = len(places)
            contexts.append({"context": places[item.token_ids], "token_ids": item.token_ids, "spans": item.spans})
        lines.append(_line(item, places[item.token_ids]))
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as out:
        for line in ({"manifest": found.manifest.model_dump(mode="json")}, *contexts, *lines):
            out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


def _line(item: Item, context: int) -> dict[str, Any]:
    line: dict[str, Any] = {"item": item.id, "problem": item.problem, "of": context}
    first, last = item.positions[0], item.positions[-1] + 1
    line["positions"] = [first, last] if item.positions == tuple(range(first, last)) else list(item.positions)
    line["whole"] = item.positions == tuple(range(first, last))
    line["facts"] = item.facts
    if item.cluster:
        line["cluster"] = item.cluster
    if item.choices:
        line["choices"] = item.choices
    if item.state != PLAIN:
        line["state"] = {name: value for name, value in asdict(item.state).items() if value}
    return line


def read_items(path: Path) -> ItemSet:
    """What `write_items` wrote.

    Raises:
        NotFoundError: There is no such file.
        FormatError: A line is not in this form, or the file ends early.
    """
    if not path.is_file():
        raise NotFoundError(f"There are no items at {path}.", "the file does not exist", "run `augury bench build`")
    contexts: list[Mapping[str, Any]] = []
    items: list[Item] = []
    manifest: Manifest | None = None
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                if "manifest" in row:
                    manifest = Manifest.model_validate(row["manifest"])
                elif "context" in row:
                    contexts.append(row)
                else:
                    items.append(_item(row, contexts))
            except (ValueError, KeyError, TypeError, IndexError, ValidationError) as error:
                why = f"line {number}: {' '.join(str(error).split())[:200]}"
                raise FormatError(f"{path} holds no items.", why, "make it again with `augury bench build`") from error
    if manifest is None or not (items or manifest.unmeasurable):
        why = "its first line is no manifest" if manifest is None else "no item follows its contexts"
        raise FormatError(f"{path} is not whole.", why, "make it again with `augury bench build`")
    return ItemSet(manifest, tuple(items))


def read_manifest(path: Path) -> Manifest:
    """The first line of what `write_items` wrote.

    Raises:
        FormatError: It is no manifest.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return Manifest.model_validate(json.loads(lines.readline())["manifest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"its first line is no manifest: {' '.join(str(error).split())[:200]}"
        raise FormatError(f"{path} holds no items.", why, "make it again with `augury bench build`") from error


def _item(row: Mapping[str, Any], contexts: Sequence[Mapping[str, Any]]) -> Item:
    context = contexts[row["of"]]
    places = range(*row["positions"]) if row["whole"] else row["positions"]
    return Item(
        id=row["item"],
        problem=row["problem"],
        token_ids=tuple(context["token_ids"]),
        positions=tuple(places),
        facts=dict(row["facts"]),
        choices=tuple(row.get("choices", ())),
        state=State(**row.get("state", {})),
        spans=tuple((role, start, stop) for role, start, stop in context["spans"]),
        cluster=row.get("cluster", ""),
    )


def check_model(found: ItemSet, known: ModelIdentity) -> None:
    """Refuse items whose labels are facts about another model.

    Raises:
        ContractError: They were made for another model.
    """
    own = found.manifest.model
    if own.weights_fingerprint is None and _last(own.name) != _last(known.name):  # nothing but its name says who it is
        raise ContractError(
            f"The items {found.manifest.name} are about another model.",
            f"they were made for {own.name} and this is {known.name}",
            f"make them for this model: `augury bench build {found.manifest.name} --model ...`",
        )
    for name in ("weights_fingerprint", "tokenizer_hash", "d_model", "n_layers"):
        stated, mine = getattr(own, name), getattr(known, name)
        if stated is not None and mine is not None and stated != mine:
            raise ContractError(
                f"The items {found.manifest.name} are about another model.",
                f"they were made for {own.name} and this is {known.name} ({name} differs)",
                f"make them for this model: `augury bench build {found.manifest.name} --model ...`",
            )


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].casefold()


def facts_of(items: Iterable[Item], name: str) -> list[str]:
    """One fact of every item."""
    return [item.facts[name] for item in items]
