"""`import augury` is light, and its lazy names are the ones it announces."""

from __future__ import annotations

import subprocess
import sys

import pytest

import augury
from tests.conftest import require

HEAVY = ("torch", "transformers", "peft", "numpy", "typer")


def test_import_loads_nothing_heavy() -> None:
    code = f"import augury, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_errors_need_no_torch() -> None:
    code = "import augury, sys; augury.InputError('a', 'b', 'c'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'steering_vector'"):
        _ = augury.steering_vector  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", augury.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(augury, name) is not None
    assert name in dir(augury)


def test_version_is_the_packages() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("augury")
    except PackageNotFoundError:
        require(False, "augury is run from its sources, not installed")
    assert augury.__version__ == installed
