"""The models of an audit: which there are, that they belong together, and how they come into memory and go."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from augury.contract import ModelIdentity
from augury.errors import ContractError, InputError, NotFoundError
from augury.files import expanded
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_config, load_target_adapter, remove_adapter
from augury.oracle import Oracle

BASE, TARGET = "base", "target"


@dataclass(frozen=True)
class Subject:
    """A fine-tune that is read.

    Attributes:
        key: What it is called in the run: `target`, or `peer-` with the beginning of its digest.
        model: Alias, hub id or folder of the weights; the base's own where it is an adapter of it.
        adapter: A folder; None: the weights are the fine-tune.
    """

    key: str
    model: str
    adapter: Path | None = None

    @property
    def name(self) -> str:
        """What the user called it."""
        return self.model if self.adapter is None else str(self.adapter)

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 over its tensors' files; None for a name on the hub, which is no folder here."""
        folder = self.adapter or expanded(self.model)
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        found = hashlib.sha256()
        for path in files:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest() if files else None


def subject_of(key: str, name: str, base: str, adapter: Path | None = None) -> Subject:
    """What a name on the command line stands for: a folder with an adapter of the base, or a model.

    Raises:
        InputError: An adapter on an adapter.
        NotFoundError: The adapter is none, or there is no such folder.
    """
    if name.startswith((".", "/", "~")) and not expanded(name).exists():  # told before anything is trained or captured
        why, instead = "nothing lies there", "name the folder of an adapter or of a model, or a name on the hub"
        raise NotFoundError(f"There is no fine-tune {name}.", why, instead)
    if (expanded(name) / "adapter_config.json").is_file():
        if adapter is not None:
            why = f"{name} is an adapter of {base} by itself"
            raise InputError("Two adapters were named for one fine-tune.", why, "name one, or merge them")
        return Subject(key, base, expanded(name))
    if adapter is not None:
        adapter_config(expanded(adapter))
    return Subject(key, name, None if adapter is None else expanded(adapter))


def peer_of(name: str, base: str) -> Subject:
    """A peer by its name on the command line. Its key follows from its weights, whatever other peers there are."""
    found = subject_of("peer", name, base)
    return replace(found, key=f"peer-{(found.digest or hashlib.sha256(name.encode()).hexdigest())[:8]}")


def check_apart(subjects: Sequence[Subject]) -> None:
    """Refuse one fine-tune under two names: two equal peers would make any difference look large.

    Raises:
        InputError: Two have the same tensors.
    """
    seen: dict[str, Subject] = {}
    for subject in subjects:
        digest = subject.digest or subject.name
        if digest in seen:
            why = f"{seen[digest].name} ({seen[digest].key}) and {subject.name} ({subject.key}) are the same"
            raise InputError("A fine-tune was named twice.", why, "name each once")
        seen[digest] = subject


def check_alike(base: ModelIdentity, other: ModelIdentity) -> None:
    """Refuse what is no fine-tune of the base.

    Raises:
        ContractError: Another width, depth, vocabulary or tokenizer.
    """
    pairs = {
        "width": (base.d_model, other.d_model),
        "depth": (base.n_layers, other.n_layers),
        "vocabulary": (base.vocab_size, other.vocab_size),
    }
    found = [f"its {word} is {have}, the base's {want}" for word, (want, have) in pairs.items() if want != have]
    if base.tokenizer_hash != other.tokenizer_hash:
        found.append("its tokenizer is another, so that token ids mean something else")
    if found:
        raise ContractError(
            f"{other.name} is no fine-tune of {base.name}.",
            "; ".join(found),
            "name the base that it was made from",
        )


class Shelf:
    """Holds the base with its oracle, and opens one fine-tune at a time.

    An adapter is put on the base and taken off again. A model with weights of its own is loaded alone: the base leaves
    the memory before, and comes back when it is asked for.

    Args:
        base: Alias, hub id or folder.
        load: Loads a model by its name.
        load_oracle: Loads the oracle on the base.
    """

    def __init__(
        self, base: str, load: Callable[[str], LanguageModel], load_oracle: Callable[[LanguageModel], Oracle]
    ) -> None:
        self.name, self._load, self._load_oracle = base, load, load_oracle
        self._oracle: Oracle | None = None

    def oracle(self) -> Oracle:
        """The oracle on the base."""
        if self._oracle is None:
            self._oracle = self._load_oracle(self._load(self.name))
        return self._oracle

    def base(self) -> LanguageModel:
        """The plain base."""
        return self.oracle().base

    @contextmanager
    def opened(self, subject: Subject) -> Iterator[LanguageModel]:
        """The fine-tune, as long as the block lasts."""
        if subject.model == self.name and subject.adapter is not None:
            lm = load_target_adapter(self.base(), subject.adapter)
            try:
                yield lm
            finally:
                remove_adapter(lm, lm.target_adapters[-1])
            return
        self._oracle = None
        gc.collect()  # a model's modules hold each other
        lm = self._load(subject.model)
        yield lm if subject.adapter is None else load_target_adapter(lm, subject.adapter)
        del lm
        gc.collect()
