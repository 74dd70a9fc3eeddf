"""The tasks, one file each; importing this makes them known."""

from augury.bench.task import REGISTRY
from augury.bench.tasks import arithmetic, lens, missing_info, organisms, planted, same_window

__all__ = ["REGISTRY", "arithmetic", "lens", "missing_info", "organisms", "planted", "same_window"]
