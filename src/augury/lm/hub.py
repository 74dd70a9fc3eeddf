"""The model hub: whether it answers, found within seconds, and what it and transformers raise as refusals."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import torch

from augury.errors import AuguryError, FormatError, ModelError, NetworkError, NotFoundError

log = logging.getLogger(__name__)

TIMEOUT_S = 6.0  # of one address for connecting, and again for the answer: a name may have many addresses
PATIENCE_S = 6.0  # until a try is joined by another
WAITS_S = (0.5, 1.0)  # between the tries
DEADLINE_S = 20.0  # for all tries together
GIVEN_UP_S = 60.0  # for which a hub that did not answer is not asked again, under whatever name
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

# By name: which HTTP library the hub's client uses changes between its releases.
UNREACHABLE = {"TransportError", "ConnectionError", "ConnectError", "TimeoutException", "OfflineModeIsEnabled"}
_UNKNOWN = {"RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError"}


@dataclass(frozen=True)
class HubAnswer:
    """What the hub said when it was asked for a repository.

    Attributes:
        commit: The commit that the revision stands for, where the hub knows the repository.
        unreachable: Why there was no answer, and how often it was asked; None where there was one, also a refusal.
    """

    commit: str | None = None
    unreachable: str | None = None


@dataclass
class _Silence:
    """Until when the hub is not asked, and why: a base, its target and its oracle have one hub."""

    until: float = 0.0
    why: str = ""


_silence = _Silence()


def forget() -> None:
    """Ask the hub again, whatever it did before."""
    _silence.until = 0.0


def ask_hub(repository: str, revision: str | None = None) -> HubAnswer:
    """Ask the hub for a repository, several times where it does not answer, for at most about 20 s in all.

    A hub that did not answer is not asked again for a minute: all that a command names is told within half of one.

    To be called before the hub's own client downloads: that one tries again for minutes, for every file anew. Each
    try runs in a thread of its own, since nothing bounds how long a name is looked up and the client's timeout holds
    for each of its addresses anew. A try that still hangs is left behind, and its answer taken if it comes after all.
    """
    if time.monotonic() < _silence.until:
        return HubAnswer(unreachable=_silence.why)
    answer = _asked(repository, revision)
    if answer.unreachable is not None:
        _silence.until, _silence.why = time.monotonic() + GIVEN_UP_S, answer.unreachable
    return answer


def _asked(repository: str, revision: str | None) -> HubAnswer:
    from huggingface_hub import HfApi

    began, replies = time.monotonic(), SimpleQueue[HubAnswer | Exception]()
    why, tries = "no answer", len(WAITS_S) + 1
    for tried in range(1, tries + 1):
        Thread(target=_ask, args=(HfApi(), repository, revision, replies), daemon=True).start()
        left = began + DEADLINE_S - time.monotonic()
        reply = _reply(replies, left if tried == tries else min(PATIENCE_S, left))
        if isinstance(reply, HubAnswer):
            return reply
        why = first_line(reply) if reply is not None else f"no answer after {time.monotonic() - began:.0f} s"
        if reply is not None and "OfflineModeIsEnabled" in kinds(reply):
            return HubAnswer(unreachable="HF_HUB_OFFLINE is set")
        if tried < tries:
            log.warning("the hub does not answer (%s); trying again", why)
            time.sleep(WAITS_S[tried - 1])
    return HubAnswer(unreachable=f"{why} (tried {tries} times in {time.monotonic() - began:.0f} s)")


def _ask(api: Any, repository: str, revision: str | None, replies: SimpleQueue[HubAnswer | Exception]) -> None:
    try:
        replies.put(HubAnswer(api.model_info(repository, revision=revision, timeout=TIMEOUT_S).sha))
    except Exception as error:  # the client raises its own, its HTTP library's and the system's errors
        replies.put(error if _no_answer(error) else HubAnswer())


def _reply(replies: SimpleQueue[HubAnswer | Exception], seconds: float) -> HubAnswer | Exception | None:
    try:
        return replies.get(timeout=max(0.0, seconds))
    except Empty:
        return None


def cached_commit(repository: str, revision: str | None = None) -> str | None:
    """The commit of a model that the cache on this machine has under this revision."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def _no_answer(error: BaseException) -> bool:
    return bool(kinds(error) & UNREACHABLE) or status_of(error) >= 500


def status_of(error: BaseException) -> int:
    """The HTTP status that an error of the hub's client carries; 0 for one that is about no answer."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def kinds(error: BaseException) -> set[str]:
    """The names of the error's classes and of those that caused it."""
    return {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@contextmanager
def loading(source: str, unreachable: str | None = None) -> Iterator[None]:
    """Turn what transformers and the hub raise into refusals that say what to do.

    Args:
        source: The folder or the repository that is read.
        unreachable: Why the hub does not answer, where only its cache on this machine is read.
    """
    try:
        yield
    except AuguryError:
        raise
    except Exception as error:  # a broken folder raises anything from KeyError to safetensors' own error
        if _no_memory(error):  # which says nothing about the files
            raise
        raise translate(source, error, unreachable) from error


def _no_memory(error: Exception) -> bool:
    """Torch has a class of its own for a full GPU, and none for a full machine."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def translate(source: str, error: BaseException, unreachable: str | None = None) -> AuguryError:
    """The refusal for an error raised while a model was loaded."""
    folder, text = Path(source), " | ".join(str(cause) for cause in causes(error))
    found = kinds(error)
    if "SafetensorError" in found or "not a valid JSON file" in text:
        return FormatError(f"{source} has a broken file.", first_line(error), "fetch or save the model again")
    if "no file named model.safetensors" in text or "have a file named model.safetensors" in text:
        return _no_weights(source, folder)
    if folder.is_dir():
        return _failed(source, error)
    if unreachable is not None or found & UNREACHABLE:
        reason = unreachable or f"{first_line(error)} (tried again several times)"
        return NetworkError(
            f"The model hub could not be reached for '{source}'.",
            f"{reason}; the cache on this machine does not have it",
            "check the network and run it again, name a local folder, or use the bundled `smollm2`",
        )
    if found & _UNKNOWN or "is not a valid model identifier" in text:
        return NotFoundError(
            f"There is no model '{source}'.",
            "it is no folder here, and the hub does not know it or wants an account",
            "check the spelling, log in with `hf auth login`, or use the bundled `smollm2`",
        )
    return _failed(source, error)


def _no_weights(source: str, folder: Path) -> AuguryError:
    if folder.is_dir() and not any(path.suffix in PICKLES for path in folder.iterdir()):
        return NotFoundError(f"{source} has no weights.", "no safetensors file lies in it", "name the folder that has")
    return FormatError(
        f"{source} has no safetensors weights.",
        "pickled weights can run code when they are read, so they never are",
        "convert it: `model.save_pretrained(folder)` writes safetensors",
    )


def _failed(source: str, error: BaseException) -> AuguryError:
    return ModelError(f"'{source}' could not be loaded.", first_line(error), "see the reason; try another model")
