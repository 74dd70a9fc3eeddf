"""What of an oracle is published: its own files and no others, checked before anything is sent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from augury.contract import Contract
from augury.contract.formats import ADAPTER_FILE
from augury.errors import FormatError, NotFoundError
from augury.files import expanded, storing
from augury.lm.adapter_files import check_adapter_files
from augury.oracle.front_matter import addressed, check_front_matter, front_matter
from augury.oracle.hub import EXTRAS, FILES, check_repository
from augury.oracle.publishable import CARD, SAVE_AGAIN, check_no_token, publishable_contract

TENSORS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Item:
    """One file as it is sent.

    Attributes:
        name: In the repository.
        source: Where it lies, or its content.
        size: In bytes.
        sha256: Of its content, when it was checked.
    """

    name: str
    source: Path | bytes
    size: int
    sha256: str


@dataclass(frozen=True)
class Parcel:
    """An oracle that may be published.

    Attributes:
        folder: The oracle's.
        repository: The `owner/name` that its card names.
        contract: The oracle's.
        items: All files that are sent.
        tensors: How many the adapter has.
        parameters: How many numbers these hold.
        notes: What a user should know before it is sent.
    """

    folder: Path
    repository: str
    contract: Contract
    items: tuple[Item, ...]
    tensors: int
    parameters: int
    notes: tuple[str, ...] = ()

    @property
    def base(self) -> str:
        """The base that the contract names."""
        return self.contract.base_model or ""

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(item.size for item in self.items)


def pack(source: str | Path, repository: str, license: str | None = None) -> Parcel:
    """Check a run or an oracle, and list what of it is published. Nothing is sent, and no file is changed.

    Args:
        source: A run's folder (its `oracle/` and its report and recipe are taken), or an oracle's.
        repository: The `owner/name` that it is meant for; the sent model card names it.
        license: The hub's id of the oracle's licence, where its model card states none.

    Raises:
        InputError: No repository's name, or a licence that is none.
        NotFoundError: No oracle, or no model card, lies there.
        ContractError: A contract without a base that others can fetch, or a kind of adapter that is never loaded.
        FormatError: A file that cannot be used, or files that contradict each other or hold a token.
        ModelError: The adapter changes nothing.
    """
    check_repository(repository)
    folder, run = _folders(source)
    files = check_adapter_files(folder)
    contract = publishable_contract(folder, files.config)
    with storing(folder, "check the rights of its files"):
        found = _found(folder, run)
        card = addressed(_text(found, CARD), repository, license)
        items = [_item(name, card.encode() if name == CARD else path) for name, path in found.items()]
    check_front_matter(front_matter(card), contract.base_model or "")
    for item in items:
        if isinstance(item.source, bytes):
            check_no_token(item.name, item.source)
    return Parcel(folder, repository, contract, tuple(items), files.tensors, files.parameters, _notes(contract, items))


def _folders(source: str | Path) -> tuple[Path, Path | None]:
    """The oracle's folder, and its run's where `source` is a run."""
    folder = expanded(source)
    if (folder / "oracle" / ADAPTER_FILE).is_file():
        return folder / "oracle", folder
    if (folder / ADAPTER_FILE).is_file():
        return folder, None
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {source}.", "a run or an oracle on disk is sent", "check the path")
    if (folder / "recipe.json").is_file():
        why = "the run is not finished: it has no oracle/ yet"
        raise NotFoundError(f"There is no oracle in {source}.", why, f"run `augury train --resume {source}`")
    why = f"neither it nor oracle/ in it has {ADAPTER_FILE}"
    raise NotFoundError(f"There is no oracle in {source}.", why, "name a run's folder, or an oracle's")


def _found(folder: Path, run: Path | None) -> dict[str, Path]:
    """Every file that is sent, by its name."""
    own = {name: folder / name for name in (*FILES, *EXTRAS)}
    beside = {name: run / name for name in EXTRAS} if run is not None else {}
    places = {name: path if path.is_file() else beside.get(name, path) for name, path in own.items()}
    found = {name: path for name, path in places.items() if path.is_file()}
    if CARD not in found:
        raise NotFoundError(f"{folder} has no model card.", f"there is no {CARD}", SAVE_AGAIN)
    return found


def _text(found: dict[str, Path], name: str) -> str:
    try:
        return found[name].read_bytes().decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{found[name]} is no text.", str(error), SAVE_AGAIN) from error


def _item(name: str, source: Path | bytes) -> Item:
    """Texts are read now, so that what was checked is what is sent; tensors are compared afterwards."""
    if isinstance(source, Path) and name != TENSORS:
        source = source.read_bytes()
    if isinstance(source, bytes):
        return Item(name, source, len(source), hashlib.sha256(source).hexdigest())
    with source.open("rb") as file:
        return Item(name, source, source.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _notes(contract: Contract, items: list[Item]) -> tuple[str, ...]:
    hashes = ("weights_fingerprint", "tokenizer_hash", "chat_template_hash")
    stated = contract.model_dump()
    notes = [
        f"the contract states no {name}, so nobody's base is checked for it" for name in hashes if not stated[name]
    ]
    if not contract.evaluation:
        notes.append("no figures were measured, and the model card says so")
    home = str(Path.home()).encode()
    telling = [item.name for item in items if isinstance(item.source, bytes) and len(home) > 1 and home in item.source]
    return (*notes, *(f"{name} names folders of this machine" for name in telling))
