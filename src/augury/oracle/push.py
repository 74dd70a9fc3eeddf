"""Publish an oracle: one commit to a repository on the hub, looked at before and compared after."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from augury.errors import AccessError, ContractError, FormatError, InputError, NetworkError
from augury.lm.hub import ask_hub
from augury.oracle.card import headline
from augury.oracle.hub import EXTRAS, FILES
from augury.oracle.parcel import Item, Parcel
from augury.oracle.place import Place, look
from augury.oracle.refusals import LOGIN, talking

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi
    from huggingface_hub.hf_api import RepoFile

MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Pushed:
    """What was published, and where.

    Attributes:
        repository: `owner/name`.
        url: Of the repository.
        commit: The commit that holds it.
        branch: Where the commit is; None for the repository's main branch.
        private: Whether only its owner sees it; None where the hub does not say.
        created: Whether the repository was made for it.
        changed: Whether anything was new; else the commit is an older one.
    """

    repository: str
    url: str
    commit: str
    branch: str | None = None
    private: bool | None = None
    created: bool = False
    changed: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-ready."""
        return asdict(self)


def push(parcel: Parcel, *, private: bool | None = None, branch: str | None = None, replace: bool = False) -> Pushed:
    """Send an oracle's files to the hub, in one commit.

    The token is taken from where Hugging Face keeps it: `HF_TOKEN`, or the file that `hf auth login` writes.

    Args:
        parcel: What `pack` made.
        private: Whether only its owner sees the repository. A new one is private unless this is False; of one that
            is there, this must be what it is.
        branch: Made where it does not exist; the main branch without it.
        replace: Go on where the repository holds an oracle for another base, or something that is no oracle. Only
            files of an oracle are replaced or removed.

    Raises:
        InputError: A branch that is none, or a repository that is not as private as it was asked to be.
        AccessError: No token, one that the hub does not take, or one that may not write there.
        NotFoundError: There is no such owner.
        ContractError: The repository holds something else.
        FormatError: The hub does not take the model card, or did not keep what was sent.
        NetworkError: The hub cannot be reached, or the repository changed meanwhile.
    """
    _check_branch(branch)
    api = _logged_in(parcel.repository)
    answer = ask_hub(parcel.repository)
    if answer.unreachable is not None:
        instead = "check the network and run it again; nothing was sent"
        raise NetworkError(f"The hub could not be reached for {parcel.repository}.", answer.unreachable, instead)
    with talking(parcel.repository):
        place = look(api, parcel.repository, branch)
        _check_place(parcel, place, private, replace)
        hidden = _made(api, parcel.repository, place, private, branch)
        commit = api.create_commit(
            parcel.repository,
            _operations(parcel, place),
            commit_message=message(parcel),
            revision=branch,
            parent_commit=place.commit,
        )
        _check_arrived(api, parcel, commit)
    url = f"{api.endpoint}/{parcel.repository}"
    return Pushed(parcel.repository, url, commit.oid, branch, hidden, not place.exists, commit.oid != place.commit)


def message(parcel: Parcel) -> str:
    """The commit's message: whose oracle, and its first figures."""
    trained = parcel.contract.trained_on
    name = trained.recipe if trained is not None and trained.recipe else parcel.repository.split("/")[1]
    return f"Oracle {name} for {parcel.base}; {headline(parcel.contract)}"


def _check_branch(branch: str | None) -> None:
    if branch is not None and (not branch.strip() or branch.startswith("refs/") or _COMMIT.fullmatch(branch)):
        why = "a commit, a reference or an empty name is none"
        raise InputError(f"'{branch}' is no branch.", why, "name a branch, or leave it out for the main one")


def _logged_in(repository: str) -> HfApi:
    from huggingface_hub import HfApi, get_token

    with talking(repository):  # in a continuous integration, the token itself may come over the network
        token = get_token()
    if token is None:
        raise AccessError("Nobody is logged in to the hub.", "there is no token on this machine", LOGIN)
    return HfApi(token=token)


def _check_place(parcel: Parcel, place: Place, private: bool | None, replace: bool) -> None:
    if place.exists and private is not None and place.private is not None and private != place.private:
        is_now, asked = ("private", "public") if place.private else ("public", "private")
        why = f"it is there already, and is {is_now}; pushing does not change who sees it"
        instead = f"change it on its page ({place.settings}), or leave --{asked} out"
        raise InputError(f"{parcel.repository} is not {asked}.", why, instead)
    if place.holds is None or replace:
        return
    if place.base is None or place.base.casefold() != parcel.base.casefold():
        why = f"it holds {place.holds}, and this oracle's base is {parcel.base}"
        instead = "push to another repository, or pass --replace to put this oracle's files over those"
        raise ContractError(f"{parcel.repository} is not replaced.", why, instead)


def _made(api: HfApi, repository: str, place: Place, private: bool | None, branch: str | None) -> bool | None:
    """See to it that the repository and the branch are there; whether only its owner sees it."""
    hidden = place.private if place.exists else private is not False
    if not place.exists:
        api.create_repo(repository, private=hidden, repo_type="model", exist_ok=True)
    if branch not in (None, MAIN) and place.commit is None:
        api.create_branch(repository, branch=branch, exist_ok=True)
    return hidden


def _operations(parcel: Parcel, place: Place) -> list[Any]:
    """Every file by its name, and the removal of an older oracle's that this one has not.

    Not `upload_folder`: where hf_xet is installed it makes several commits, and between them nobody could use it.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    sent = {item.name for item in parcel.items}
    old = sorted(place.files.intersection((*FILES, *EXTRAS)) - sent)
    return [
        *(CommitOperationAdd(path_in_repo=item.name, path_or_fileobj=item.source) for item in parcel.items),
        *(CommitOperationDelete(path_in_repo=name) for name in old),
    ]


def _check_arrived(api: HfApi, parcel: Parcel, commit: CommitInfo) -> None:
    """Compare what the hub holds now: a repository's .gitignore, say, makes its client leave files out silently."""
    from huggingface_hub.hf_api import RepoFile

    names = [item.name for item in parcel.items]
    there = {file.path: file for file in api.get_paths_info(parcel.repository, names, revision=commit.oid)}
    wrong = []
    for item in parcel.items:
        file = there.get(item.name)
        if not isinstance(file, RepoFile) or not _same(item, file):
            wrong.append(item.name)
    if wrong:
        why = f"commit {commit.oid} lacks or differs in {', '.join(wrong)}"
        instead = "look for a .gitignore there, and let nothing write to the folder meanwhile; then push again"
        raise FormatError(f"{parcel.repository} does not hold what was sent.", why, instead)


def _same(item: Item, file: RepoFile) -> bool:
    """Large files have their SHA-256 on the hub, small ones git's own hash."""
    if file.lfs is not None:
        return (file.lfs.size, file.lfs.sha256) == (item.size, item.sha256)
    content = item.source if isinstance(item.source, bytes) else item.source.read_bytes()
    return file.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
