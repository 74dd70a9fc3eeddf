"""The bench's tiny model with a random oracle on it."""

from tests.unit.bench.conftest import lm, oracle

__all__ = ["lm", "oracle"]
