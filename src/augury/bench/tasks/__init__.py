"""The tasks, one file each; importing this makes them known."""

from augury.bench.task import REGISTRY
from augury.bench.tasks import (
    arithmetic,
    classification,
    lens,
    missing_info,
    multiple_choice,
    organisms,
    planted,
    reasoning,
    same_window,
    system_prompts,
    topics,
)

__all__ = [
    "REGISTRY",
    "arithmetic",
    "classification",
    "lens",
    "missing_info",
    "multiple_choice",
    "organisms",
    "planted",
    "reasoning",
    "same_window",
    "system_prompts",
    "topics",
]
