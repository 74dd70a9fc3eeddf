"""Where an oracle's files are: the shipped one, a folder, or a repository on the hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from augury.errors import AuguryError, InputError, NetworkError, NotFoundError, StorageError
from augury.files import expanded
from augury.lm.hub import UNREACHABLE, ask_hub, first_line, kinds

log = logging.getLogger(__name__)

SHIPPED = {"smollm2": Path(__file__).with_name("shipped") / "smollm2"}
FILES = ("adapter_config.json", "adapter_model.safetensors", "oracle.json", "ao_config.json", "README.md")
EXTRAS = ("report.json", "report.md", "recipe.json", "recipe.yaml")  # how it was made and measured; no reader needs it
TIMEOUT_S = 10

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def find_oracle(source: str | Path, revision: str | None = None) -> Path:
    """The folder of an oracle, fetched from the hub where need be.

    Only safetensors, JSON and the model card are ever fetched.

    Raises:
        InputError: No name, or a revision of what has none.
        NotFoundError: Neither shipped, nor a folder, nor on the hub.
        NetworkError: The hub cannot be reached, within 30 s.
    """
    name = str(source).strip()
    if not name:
        raise InputError("No oracle was named.", "the name is empty", 'name a folder, a hub id, or "smollm2"')
    if name in SHIPPED:
        _check_unrevised(name, revision)
        return _shipped(name)
    folder = expanded(name)
    if folder.is_dir():
        _check_unrevised(name, revision)
        return folder
    if repository_name(name) is None:
        known = ", ".join(SHIPPED)
        why = "no folder lies there, and it is no hub id (owner/name)"
        raise NotFoundError(f"There is no oracle {name}.", why, f"check the path; shipped with augury: {known}")
    return fetch(name, revision)


def repository_name(source: str | Path) -> str | None:
    """The `owner/name` on the hub that `source` stands for; None for a folder and for a shipped oracle."""
    name = str(source).strip()
    here = name in SHIPPED or expanded(name).is_dir()
    return None if here or not _HUB_ID.fullmatch(name) or name.startswith(".") else name


def check_repository(name: str) -> None:
    """Refuse what can be no repository of the hub.

    Raises:
        InputError: It is not of the form `owner/name`, or the hub allows no such name.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    instead = "name it owner/name; the owner is you, or an organisation of yours"
    if not _HUB_ID.fullmatch(name):
        raise InputError(f"'{name}' is no repository.", "a repository on the hub is named owner/name", instead)
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"'{name}' is no repository.", first_line(error), instead) from error


def _check_unrevised(name: str, revision: str | None) -> None:
    if revision is not None:
        raise InputError(
            f"There is no revision {revision} of {name}.",
            "it is here already, and only repositories on the hub have revisions",
            "leave revision= out, or name the repository",
        )


def _shipped(name: str) -> Path:
    folder = SHIPPED[name]
    if not (folder / "adapter_model.safetensors").is_file():
        raise NotFoundError(
            f"The oracle {name} is not in this installation.",
            f"{folder} has no adapter",
            "install a released augury, or train one with `augury train`",
        )
    return folder


def fetch(repository: str, revision: str | None = None, also: Sequence[str] = ()) -> Path:
    """The oracle's files from the hub, or from its cache where the hub cannot be reached.

    Args:
        repository: `owner/name`.
        revision: A branch, tag or commit; the repository's main branch without it.
        also: Names of further files, where the repository has them.

    Raises:
        NotFoundError: The hub does not know it, or it has no adapter.
        NetworkError: The hub cannot be reached and the cache does not have it.
        StorageError: The cache cannot be written.
    """
    try:
        folder = _snapshot(repository, revision, also)
    except AuguryError:
        raise
    except Exception as error:  # the hub's client raises its own, its HTTP library's and the system's errors
        raise _translated(repository, error) from error
    if not (folder / "adapter_config.json").is_file():
        why = "it has no adapter_config.json, so it is no PEFT adapter"
        raise NotFoundError(f"{repository} is no oracle.", why, "name the repository of the adapter, not of its base")
    return folder


def _snapshot(repository: str, revision: str | None, also: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"allow_patterns": [*FILES, *also], "etag_timeout": TIMEOUT_S}
    answer = ask_hub(repository, revision)
    if answer.unreachable is None:
        # By its branch, not by the commit: else the cache lacks the branch's entry, and is not found offline.
        return Path(snapshot_download(repository, revision=revision, **options))
    log.warning("the hub does not answer (%s); looking in the cache for %s", answer.unreachable, repository)
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True, **options))
    except Exception as error:
        raise NetworkError(
            f"The hub could not be reached for {repository}.",
            f"{answer.unreachable}; the cache on this machine does not have it",
            "check the network and run it again, name a folder, or take the shipped oracle smollm2",
        ) from error


def _translated(repository: str, error: Exception) -> AuguryError:
    reason, found = first_line(error), kinds(error)
    refused = "HfHubHTTPError" in found and any(status in reason for status in ("401", "403", "404"))
    if refused or found & {"RepositoryNotFoundError", "RevisionNotFoundError", "GatedRepoError", "HFValidationError"}:
        instead = "check the spelling, log in with `hf auth login`, or name a folder"
        return NotFoundError(f"There is no oracle {repository} on the hub.", reason, instead)
    if "HfHubHTTPError" in found or found & UNREACHABLE:
        instead = "check the network and run it again; what has come already is kept"
        return NetworkError(f"{repository} could not be fetched.", reason, instead)
    if isinstance(error, OSError):
        return StorageError(f"{repository} could not be stored.", reason, "free space, or set HF_HOME elsewhere")
    return NetworkError(f"{repository} could not be fetched.", reason, "run it again, or name a folder")
