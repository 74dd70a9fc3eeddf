"""What a machine lacks is a skip with its reason, and in CI a failure."""

from __future__ import annotations

import pytest

from tests.conftest import require


def test_what_is_there_is_required_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    require(True, "never told")


def test_a_skip_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no teapot"):
        require(False, "no teapot")


@pytest.mark.parametrize("value", ["true", "True"])
def test_in_ci_a_skip_is_a_failure(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CI", value)
    with pytest.raises(pytest.fail.Exception, match="required in CI: no teapot"):
        require(False, "no teapot")
