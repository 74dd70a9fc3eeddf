"""The hub asked for a repository: within half a minute whatever it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

from augury.cli.common import as_refusal
from augury.errors import NetworkError, NotFoundError
from augury.lm import hub, load_model
from augury.lm.hub import HubAnswer, ask_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Put a stand-in for the hub in its place; the times of the calls are returned."""

    def use(reply: Callable[[int], str]) -> list[float]:
        calls: list[float] = []

        def model_info(*_: Any, **__: Any) -> Any:
            calls.append(time.monotonic())
            return SimpleNamespace(sha=reply(len(calls)))

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
        return calls

    return use


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE_S", 0.3)
    monkeypatch.setattr(hub, "DEADLINE_S", 1.2)
    monkeypatch.setattr(hub, "WAITS_S", (0.05, 0.1))


def test_the_limits_end_within_half_a_minute() -> None:
    assert hub.DEADLINE_S <= 20
    assert sum(hub.WAITS_S) + len(hub.WAITS_S) * hub.PATIENCE_S + hub.PATIENCE_S <= hub.DEADLINE_S


def test_a_hub_that_stalls_is_given_up(
    asked: Any, release: threading.Event, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: Any
) -> None:
    """Nothing returns, as where a name is never resolved or each of many addresses swallows what is sent."""
    quick(monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    calls = asked(lambda _: str(release.wait(60)))
    began = time.monotonic()
    with pytest.raises(NetworkError, match="could not be reached") as refusal:
        load_model("nobody/nothing")
    assert len(calls) == 3 and time.monotonic() - began < 20
    assert "tried 3 times" in refusal.value.why and "no answer" in refusal.value.why and refusal.value.instead
    assert "trying again" in caplog.text


def test_an_answer_that_comes_late_counts(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(hub, "DEADLINE_S", 30.0)

    def reply(call: int) -> str:
        time.sleep(0.6 if call == 1 else 30)
        return COMMIT

    calls = asked(reply)
    assert ask_hub("owner/name") == HubAnswer(COMMIT) and 2 <= len(calls) <= 3


def test_what_is_refused_at_once_is_tried_again(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)

    def reply(call: int) -> str:
        if call < 3:
            raise ConnectionError("refused")
        return COMMIT

    calls = asked(reply)
    assert ask_hub("owner/name") == HubAnswer(COMMIT) and len(calls) == 3


def test_a_refusal_is_an_answer(asked: Any) -> None:
    def reply(_: int) -> str:
        raise ValueError("no such repository")

    calls = asked(reply)
    assert ask_hub("owner/name") == HubAnswer() and len(calls) == 1


def test_offline_is_not_tried_again(asked: Any) -> None:
    def reply(_: int) -> str:
        raise huggingface_hub.errors.OfflineModeIsEnabled("offline")

    calls = asked(reply)
    found = ask_hub("owner/name")
    assert found.unreachable is not None and "HF_HUB_OFFLINE" in found.unreachable and len(calls) == 1


def test_what_does_not_answer_is_not_asked_under_another_name(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)

    def reply(_: int) -> str:
        raise ConnectionError("refused")

    calls = asked(reply)
    first, second = ask_hub("owner/model"), ask_hub("owner/oracle")
    assert len(calls) == 3 and first == second and first.unreachable is not None
    monkeypatch.setattr(hub, "GIVEN_UP_S", 0.0)
    hub.forget()
    assert ask_hub("owner/model").unreachable and ask_hub("owner/oracle").unreachable and len(calls) == 9


FULL = [MemoryError("full"), torch.OutOfMemoryError("full"), RuntimeError("CPUAllocator: can't allocate memory: 9 B")]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_too_little_memory_is_told_as_that(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, hub.loading("model"):
        raise error
    assert raised.value is error and as_refusal(error).what == "There is not enough memory."


@pytest.mark.parametrize("kind", ["RepositoryNotFoundError", "RevisionNotFoundError"])
def test_a_model_that_the_hub_does_not_know(asked: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    import transformers

    def reply(_: int) -> str:
        raise ValueError("404")

    def unknown(*_: Any, **__: Any) -> Any:
        raise OSError("not listed") from type(kind, (Exception,), {})("404")

    asked(reply)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unknown)
    with pytest.raises(NotFoundError, match="no model 'nobody/nothing'") as refusal:
        load_model("nobody/nothing")
    assert refusal.value.why and "smollm2" in refusal.value.instead
