"""Figures with their uncertainty: arrays in, numbers out. No torch, no models."""

from augury.stats.auc import roc_auc, roc_auc_by_group
from augury.stats.calibration import ReliabilityBin, ece, reliability
from augury.stats.intervals import Interval, auc_interval, bootstrap_interval, wilson
from augury.stats.probe import probe_auc

__all__ = [
    "Interval",
    "ReliabilityBin",
    "auc_interval",
    "bootstrap_interval",
    "ece",
    "probe_auc",
    "reliability",
    "roc_auc",
    "roc_auc_by_group",
    "wilson",
]
