"""Activations: capture, select, store, subtract."""

from augury.activations.arithmetic import diff, noise_floor
from augury.activations.capture import capture, capture_bytes, capture_vectors
from augury.activations.positions import resolve, resolve_layers, role, text
from augury.activations.store import load, save
from augury.activations.types import Activations, Provenance

__all__ = [
    "Activations",
    "Provenance",
    "capture",
    "capture_bytes",
    "capture_vectors",
    "diff",
    "load",
    "noise_floor",
    "resolve",
    "resolve_layers",
    "role",
    "save",
    "text",
]
