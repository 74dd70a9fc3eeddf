"""The models of an audit: which there are, that they belong together, and how they come into memory and go."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from augury.contract import ModelIdentity
from augury.errors import ContractError, InputError, NotFoundError
from augury.files import expanded
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_config, load_target_adapter, remove_adapter
from augury.oracle import Oracle

BASE, TARGET = "base", "target"
# What an adapter's configuration says of where it was made rather than of what it does.
_WHENCE = ("base_model_name_or_path", "revision", "auto_mapping", "inference_mode", "peft_version", "task_type")


@dataclass(frozen=True)
class Subject:
    """A fine-tune that is read.

    Attributes:
        key: What it is called in the run: `target`, or `peer-` with the beginning of its digest.
        model: Alias, hub id or folder of the weights; the base's own where it is an adapter of it.
        adapter: A folder; None: the weights are the fine-tune.
        of_base: Whether the weights are the base's own.
    """

    key: str
    model: str
    adapter: Path | None = None
    of_base: bool = False

    @property
    def name(self) -> str:
        """What the user called it."""
        if self.adapter is None or self.of_base:
            return self.model if self.adapter is None else str(self.adapter)
        return f"{self.model} with {self.adapter}"

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 over its tensors' files and how its adapter is put on; None for a name on the hub, which is no
        folder here."""
        folders = [] if self.of_base else [expanded(self.model)]
        folders += [] if self.adapter is None else [self.adapter]
        files = [sorted(folder.glob("*.safetensors")) for folder in folders]
        if not files or not all(files):
            return None
        found = hashlib.sha256()
        for path in chain(*files):
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        if self.adapter is not None:
            config = adapter_config(self.adapter)
            put_on = {name: value for name, value in config.items() if name not in _WHENCE}
            found.update(json.dumps(put_on, sort_keys=True).encode())
        return found.hexdigest()


def subject_of(key: str, name: str, base: str, adapter: Path | None = None) -> Subject:
    """What a name on the command line stands for: a folder with an adapter of the base, or a model.

    Raises:
        InputError: An adapter on an adapter.
        NotFoundError: The adapter is none, or there is no such folder.
        FormatError: The adapter's configuration cannot be read, or its weights are a pickle.
    """
    place = expanded(name)
    if _is_path(name) and not place.exists():  # told before anything is trained or captured
        why, instead = "there is no such folder", "name the folder of an adapter or of a model, or a name on the hub"
        raise NotFoundError(f"There is no fine-tune {name}.", why, instead)
    own = (place / "adapter_config.json").is_file()
    if own and adapter is not None:
        why = f"{name} is an adapter of {base} by itself"
        raise InputError("Two adapters were named for one fine-tune.", why, "name one, or merge them")
    folder = place if own else adapter
    put_on = None if folder is None else expanded(folder)
    if put_on is not None:
        adapter_config(put_on)
    return Subject(key, base if own else name, put_on, own or name == base)


def _is_path(name: str) -> bool:
    """A name on the hub may have a slash as well, but hardly the name of a folder here before it."""
    return name.startswith((".", "/", "~")) or ("/" in name and expanded(name).parent.is_dir())


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
    if found:
        raise ContractError(
            f"{other.name} is no fine-tune of {base.name}.", "; ".join(found), "name the base that it was made from"
        )
    if base.tokenizer_hash != other.tokenizer_hash:
        raise ContractError(
            f"{other.name} reads other token ids than {base.name}.",
            "it has no tokenizer, or another one",
            "copy the base's tokenizer files into its folder if it was saved without; otherwise name another --base",
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
        if subject.of_base and subject.adapter is not None:
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
