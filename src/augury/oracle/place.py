"""What a repository on the hub holds before an oracle is put there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from augury.contract.formats import ADAPTER_FILE, ORACLE_FILE
from augury.lm.hub import kinds

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

TIMEOUT_S = 20.0
_BARE = frozenset(
    (".gitattributes", ".gitignore", "README.md", "LICENSE")
)  # what a repository without a model may have


@dataclass(frozen=True)
class Place:
    """A repository as it was found.

    Attributes:
        exists: Whether this user sees it.
        private: Whether only its owner sees it; None where the hub does not say.
        commit: Of the branch; None where there is no such branch yet.
        files: All names in it.
        holds: What lies there, in words; None where there is no model.
        base: The base of the adapter that lies there.
        settings: The page on which its owner changes it.
    """

    exists: bool = False
    private: bool | None = None
    commit: str | None = None
    files: frozenset[str] = frozenset()
    holds: str | None = None
    base: str | None = None
    settings: str = ""


def look(api: HfApi, repository: str, branch: str | None) -> Place:
    """Ask the hub what a repository holds; what its client raises passes, but for that there is none."""
    main = _info(api, repository, None)
    if main is None:
        return Place()
    there = main if branch is None else _info(api, repository, branch)
    info = there or main  # a new branch begins as a copy of the main one
    files = frozenset(sibling.rfilename for sibling in info.siblings or ())
    base = _base(api, repository, info.sha, files)
    return Place(
        exists=True,
        private=main.private,
        commit=there.sha if there is not None else None,
        files=files,
        holds=_holds(files, base),
        base=base,
        settings=f"{api.endpoint}/{repository}/settings",
    )


def _info(api: HfApi, repository: str, revision: str | None) -> ModelInfo | None:
    absent = "RepositoryNotFoundError" if revision is None else "RevisionNotFoundError"
    try:
        return api.model_info(repository, revision=revision, timeout=TIMEOUT_S)
    except Exception as error:
        if absent in kinds(error) and "GatedRepoError" not in kinds(error):
            return None
        raise


def _base(api: HfApi, repository: str, commit: str | None, files: frozenset[str]) -> str | None:
    """The base that the contract there names, or else the adapter; None where neither says."""
    for name, field in ((ORACLE_FILE, "base_model"), (ADAPTER_FILE, "base_model_name_or_path")):
        if name in files:
            path = api.hf_hub_download(repository, name, revision=commit)
            try:
                told = json.loads(Path(path).read_bytes())
            except ValueError:
                return None
            value = told.get(field) if isinstance(told, dict) else None
            return value if isinstance(value, str) else None
    return None


def _holds(files: frozenset[str], base: str | None) -> str | None:
    if ORACLE_FILE in files or ADAPTER_FILE in files:
        kind = "an oracle" if ORACLE_FILE in files else "an adapter"
        return f"{kind} for {base}" if base else f"{kind} whose base cannot be read"
    others = sorted(files - _BARE)
    return f"files that are no oracle's ({', '.join(others[:3])})" if others else None
