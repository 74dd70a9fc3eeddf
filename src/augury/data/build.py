"""Building a data set: contexts, then examples, streamed to disk a file at a time; an interrupted build goes on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from augury._version import __version__
from augury.activations import resolve_layers
from augury.data.annotate import annotate
from augury.data.bank import Split
from augury.data.contexts import RolloutSettings, TextSettings, prompts_of, text_contexts
from augury.data.example import Context, Example, LeftOut
from augury.data.index import Indexed
from augury.data.recipe import DataRecipe, check_files, files_of
from augury.data.requests import HOW
from augury.data.rollouts import sample_rollouts
from augury.data.served import sample_served
from augury.data.sources.base import Made, Source, SourceSettings, unit
from augury.data.sources.classification import ClassificationSettings, ClassificationSource, classification_contexts
from augury.data.sources.conversation import ConversationSettings, ConversationSource
from augury.data.sources.custom import CustomSettings, CustomSource, custom_contexts
from augury.data.sources.lens import LensSettings, LensSource
from augury.data.sources.questions import QuestionSettings, QuestionSource
from augury.data.sources.system import SystemSettings, SystemSource, system_contexts
from augury.data.store import Shards, Table
from augury.errors import InputError
from augury.files import locked, write_text
from augury.lm import LanguageModel, Sampling, load_model
from augury.lm.chat import needs_tokenizer
from augury.lm.pretrained import parse_dtype

log = logging.getLogger(__name__)
SPLITS: tuple[Split, ...] = get_args(Split)
BANK = Path(__file__).with_name("bank")
AT_ONCE = 2048  # rows of a file, about
_SOURCES: dict[type[SourceSettings], Callable[[Any, Made], Source]] = {
    LensSettings: LensSource,
    QuestionSettings: QuestionSource,
    ClassificationSettings: ClassificationSource,
    SystemSettings: SystemSource,
    CustomSettings: CustomSource,
    ConversationSettings: ConversationSource,
}
_READERS: dict[type, Callable[[LanguageModel, Any, Split], Iterator[Context | LeftOut]]] = {
    TextSettings: text_contexts,
    ClassificationSettings: classification_contexts,
    SystemSettings: system_contexts,
    CustomSettings: custom_contexts,
}
# How many there are, how they are made and where files lie; of an endpoint, how it is reached.
_NOT_MADE_FROM: dict[str, Any] = {
    **dict.fromkeys(("train", "heldout", "most", "batch_size", "path", "prompts"), True),
    "endpoint": set(HOW),
}
Told = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Built:
    """A data set on disk.

    Attributes:
        contexts: The rows of each set and split.
        examples: The rows of each source and split.
        fingerprint: SHA-256 over what it is made from.
        dropped: What could not be used of a set and split, by reason, where that is counted.
    """

    contexts: dict[tuple[str, Split], Table[Context]]
    examples: dict[tuple[str, Split], Table[Example]]
    fingerprint: str
    dropped: dict[tuple[str, Split], dict[str, int]]


def build(
    lm: LanguageModel,
    recipe: DataRecipe,
    folder: Path,
    counts: Mapping[str, int] | None = None,
    told: Told = lambda what, done, total: None,
    alone: bool = True,
    contexts_in: Path | None = None,
) -> Built:
    """Make every set of contexts and then every source's examples, or what is missing of them.

    Args:
        lm: The target.
        recipe: What to make.
        folder: Where.
        counts: Training examples of the sources whose settings leave that open.
        told: Called with what is being made, how much of it is there, and of how much (None: not known yet).
        contexts_in: Where the sets of contexts lie, where they are not in the folder.
        alone: Whether to take the folder's lock; not for the processes of a run that find what its first has made.

    Raises:
        InputError: The folder holds another data set, or another process works there; a source can make no example.
        NotFoundError: A file of the recipe is not there.
        FormatError: Rows of a file cannot be used.
        StorageError: The disk is full; what is written is whole, and a later call goes on from it.
    """
    check_files(recipe)
    with _alone(folder) if alone else nullcontext():
        made = _made(lm, recipe)
        contexts: dict[tuple[str, Split], Table[Context]] = {}
        examples: dict[tuple[str, Split], Table[Example]] = {}
        dropped: dict[tuple[str, Split], dict[str, int]] = {}
        for name, settings in _sets(recipe).items():
            for split in SPLITS:
                shards = Shards(contexts_in or folder, name, split, Context, made[name])
                _contexts(lm, recipe, settings, contexts, shards, folder, told)
                contexts[name, split], dropped[name, split] = shards.table(), shards.dropped
                _tell(f"{name} ({split})", shards.dropped)
        for name in recipe.sources:
            for split in SPLITS:
                made_from = made[f"examples {name}"]
                examples[name, split] = _examples(
                    lm, recipe, name, split, contexts, folder, made_from, counts or {}, told
                )
        fingerprint = _hash(made)
        lost = {f"{name} ({split})": reasons for (name, split), reasons in dropped.items() if reasons}
        if alone:
            model = lm.identity.model_dump(mode="json")
            found = {"fingerprint": fingerprint, "recipe": recipe.name, "model": model, "made": made, "dropped": lost}
            write_text(folder / "data.json", json.dumps(found, indent=1) + "\n")
    return Built(contexts, examples, fingerprint, dropped)


def _tell(what: str, lost: Mapping[str, int]) -> None:
    if lost:
        log.warning("%s: left out %s", what, "; ".join(f"{count} since {why}" for why, count in lost.items()))


def _sets(recipe: DataRecipe) -> dict[str, Any]:
    """Every set of contexts: the recipe's own, then those that sources make from files and from these."""
    return {**recipe.contexts, **{name: s for name, s in recipe.sources.items() if s.makes_contexts}}


def _made(lm: LanguageModel, recipe: DataRecipe) -> dict[str, str]:
    """What each part follows from, as a digest: the model, its settings, what its files and the bank say, this version.

    How many rows there are and where files lie is no part of it, so that a set can be prolonged and moved.
    """
    identity = lm.identity
    model = [identity.weights_fingerprint, identity.tokenizer_hash, identity.chat_template_hash]
    model += [__version__, *_contents(BANK)]
    found: dict[str, str] = {}
    for name, settings in _sets(recipe).items():
        said = settings.model_dump(mode="json", exclude=_NOT_MADE_FROM)
        if isinstance(settings, RolloutSettings) and not files_of(settings):  # a file counts by what it says
            said["prompts"] = settings.prompts
        of = [found[settings.contexts]] if isinstance(settings, ConversationSettings) else []
        found[name] = _hash([model, said, [_contents(path) for path in files_of(settings)], *of])
    for name, settings in recipe.sources.items():
        said = settings.model_dump(mode="json", exclude=_NOT_MADE_FROM)
        found[f"examples {name}"] = _hash([said, found[settings.reads(name)], recipe.layers, recipe.data_seed])
    return found


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _contents(path: Path) -> list[str]:
    """Names and SHA-256 of a file, or of each file of a folder."""
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    return [f"{found.name} {_digest(found)}" for found in paths if found.is_file()]


def _digest(path: Path) -> str:
    """SHA-256 of a file, a piece at a time."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _contexts(
    lm: LanguageModel,
    recipe: DataRecipe,
    settings: Any,
    others: Mapping[tuple[str, Split], Table[Context]],
    shards: Shards[Context],
    folder: Path,
    told: Told,
) -> None:
    """Make what is missing of one set and split; `others` are the sets that are there."""
    split, what = shards.split, f"{shards.name} ({shards.split})"
    if isinstance(settings, RolloutSettings):
        _sample(lm, recipe, settings, shards, folder, lambda done: told(what, done, settings.count(split)))
    elif isinstance(settings, ConversationSettings):
        if split == "train" or settings.heldout:  # calls cost, so none for what is not asked for
            answers, decode = others[settings.contexts, split], needs_tokenizer(lm).decode
            annotate(
                settings, answers, shards, decode, _replies(folder, shards), lambda done: told(what, done, len(answers))
            )
    else:
        _read(_READERS[type(settings)](lm, settings, split), shards, lambda done: told(what, done, None))


def _replies(folder: Path, shards: Shards[Context]) -> Path:
    return folder / "replies" / f"{shards.name}.jsonl"


def _sample(
    lm: LanguageModel,
    recipe: DataRecipe,
    settings: RolloutSettings,
    shards: Shards[Context],
    folder: Path,
    done: Callable[[int], None],
) -> None:
    split = shards.split
    if shards.units >= settings.count(split):
        return
    seed = settings.seed + (1_000_000 if split == "train" else 0)
    sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, seed)
    prompts, size = prompts_of(settings, split), settings.batch_size
    if settings.endpoint is not None:
        replies = _replies(folder, shards)
        sample_served(
            lm, prompts, shards, sampling, settings.endpoint, replies,
            thinking=settings.thinking, batch_size=size, progress=done,
        )  # fmt: skip
        return
    sampler = lm if lm.dtype == parse_dtype(settings.dtype) else load_model(recipe.model, dtype=settings.dtype)
    sample_rollouts(
        sampler, prompts, shards, sampling, thinking=settings.thinking, batch_size=size, progress=done
    )  # fmt: skip


def _read(found: Iterator[Context | LeftOut], shards: Shards[Context], done: Callable[[int], None]) -> None:
    """Write what is not there yet; the source is gone through from its beginning, since its bad rows are told."""
    rest = islice(found, shards.units, None)
    while part := list(islice(rest, AT_ONCE)):
        kept = [item for item in part if isinstance(item, Context)]
        shards.append(kept, len(part), Counter(item.reason for item in part if isinstance(item, LeftOut)))
        done(shards.units)


def _examples(
    lm: LanguageModel,
    recipe: DataRecipe,
    name: str,
    split: Split,
    contexts: Mapping[tuple[str, Split], Table[Context]],
    folder: Path,
    made: str,
    counts: Mapping[str, int],
    told: Told,
) -> Table[Example]:
    settings = recipe.sources[name]
    table = contexts[settings.reads(name), split]
    wanted = _wanted(name, settings, split, table, counts)
    shards = Shards(folder / "examples", name, split, Example, made)
    if shards.rows < wanted:
        layers = tuple(tuple(resolve_layers(lm.n_layers, list(group))) for group in recipe.layers)
        decode = needs_tokenizer(lm).decode
        about = Made(name, split, Indexed(table), layers, recipe.data_seed, decode)
        source = _SOURCES[type(settings)](settings, about)
        while shards.rows < wanted:
            first, rows = shards.units, []
            number = first
            while len(rows) < min(AT_ONCE, wanted - shards.rows):
                rows.extend(unit(source, settings, about, number))
                number += 1
            shards.append(rows, number - first)
            told(f"examples: {name} ({split})", min(shards.rows, wanted), wanted)
    return _made_for(shards.table(), wanted)


def _made_for(table: Table[Example], wanted: int) -> Table[Example]:
    """What this recipe made, or would have, where another one has made more in the same folder: whole units."""
    if len(table) <= wanted:
        return table
    units = table.column("unit")
    while wanted and wanted < len(units) and units[wanted] == units[wanted - 1]:
        wanted += 1
    return table.first(wanted)


def _wanted(name: str, settings: SourceSettings, split: Split, table: Table[Context], counts: Mapping[str, int]) -> int:
    """How many examples to make: what the recipe says, what training draws, or one for each row of a user's file."""
    if split == "heldout":
        wanted = settings.heldout if table else 0
    elif settings.train is not None:
        wanted = settings.train
    else:
        wanted = counts.get(name, len(table))
    if isinstance(settings, CustomSettings):
        wanted = len(table)  # a file in any order is drawn from as a whole
    if wanted and not len(table):
        raise InputError(
            f"The source {name} has no {split} contexts.",
            f"{settings.reads(name)} holds none",
            "give it more, or another heldout_share",
        )
    return wanted


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process builds in a folder."""
    why, instead = "another process holds its lock", "wait for it, or choose another -o"
    with locked(folder.resolve() / ".lock", InputError(f"{folder} is being worked on already.", why, instead)):
        yield
