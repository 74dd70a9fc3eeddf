"""What all tests share: fixed places, and the rule that nothing is skipped silently where it counts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests import shapes

# Shapes written in the signatures of these modules are checked at every call of the tests.
SHAPED = (
    "augury.activations.capture",
    "augury.lm.generate",
    "augury.lm.logprobs",
    "augury.oracle.choices",
    "augury.oracle.inject",
    "augury.oracle.passes",
)
install_import_hook(list(SHAPED), f"{shapes.__name__}.{shapes.checked.__name__}")

ROOT = Path(__file__).resolve().parent.parent

# How long an example takes says more about the machine than about the code.
settings.register_profile("augury", deadline=None)
settings.load_profile("augury")


def require(condition: object, reason: str) -> None:
    """Skip the test where `condition` is false, saying why; under `CI=true` fail instead.

    For what a machine may lack: a system package, or the bundled model.
    """
    if condition:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"required in CI: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(name="require", scope="session")
def _require() -> Callable[[object, str], None]:
    """`require` as a fixture, for modules that do not import it."""
    return require


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden cases: part of the repository, so their absence is always a failure."""
    folder = ROOT / "tests" / "golden"
    assert (folder / "SHA256SUMS").is_file(), f"{folder} is incomplete"
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """The bundled model, loaded once per worker."""
    import augury

    try:
        return augury.load_model("smollm2")
    except augury.NetworkError as error:
        require(False, f"the bundled model could not be fetched: {error}")


@pytest.fixture(autouse=True)
def _hub_not_given_up() -> None:
    """What one test found out about the hub is not the next one's business."""
    module: Any = sys.modules.get("augury.lm.hub")
    if module is not None:
        module.forget()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One torch thread per worker, set once torch is loaded and never by loading it."""
    _limit_threads()
    yield
    _limit_threads()  # the test itself may have been the first to import torch


def _limit_threads() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
