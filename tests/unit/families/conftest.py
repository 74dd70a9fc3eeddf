"""The models that a test is run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from augury.lm import LanguageModel
from augury.lm.adapters import remove_adapter
from tests.families import FAMILIES, add_random_adapter
from tests.plain_paths import ALL, model


@pytest.fixture(params=ALL)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return model(request.param)


@pytest.fixture(params=list(FAMILIES))
def decoding(request: pytest.FixtureRequest) -> LanguageModel:
    return model(request.param)


@pytest.fixture(params=list(FAMILIES))
def adapted(request: pytest.FixtureRequest) -> Iterator[LanguageModel]:
    """A model with a random LoRA `oracle` on it, taken off afterwards."""
    found = model(request.param)
    add_random_adapter(found)
    try:
        yield found
    finally:
        remove_adapter(found, "oracle")
