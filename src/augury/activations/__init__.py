"""Activations: capture, select, store, subtract."""

from augury.activations.capture import capture, capture_bytes, capture_vectors
from augury.activations.positions import resolve, resolve_layers, role, text
from augury.activations.types import Activations, Provenance

__all__ = [
    "Activations",
    "Provenance",
    "capture",
    "capture_bytes",
    "capture_vectors",
    "resolve",
    "resolve_layers",
    "role",
    "text",
]
