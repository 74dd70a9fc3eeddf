"""The tasks, one file each; importing this makes them known."""

from augury.bench.tasks import arithmetic, lens, missing_info, planted, same_window

__all__ = ["arithmetic", "lens", "missing_info", "planted", "same_window"]
