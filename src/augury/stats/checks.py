"""Arrays as they come in: converted once, and refused where a figure made from them would mean nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from augury.errors import InputError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.intp]


def as_scores(scores: ArrayLike, name: str = "scores") -> Floats:
    """A vector `[n]` of numbers without NaN (infinities rank well enough)."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{name} cannot be used", f"the shape is {array.shape}", "pass a non-empty vector [n]")
    if np.isnan(array).any():
        why = f"{int(np.isnan(array).sum())} of {array.size} values are NaN"
        raise InputError(f"{name} cannot be used", why, "find out what made them, or leave those items out by name")
    return array


def as_labels(labels: ArrayLike, n: int, name: str = "labels") -> Bools:
    """A vector `[n]` of yes and no, given as booleans or as 0 and 1."""
    array = same_length(np.asarray(labels), n, name)
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise InputError(f"{name} cannot be used", "there are values other than 0 and 1", "pass booleans, or 0 and 1")
    return array.astype(np.bool_)


def as_codes(groups: ArrayLike | None, n: int, name: str = "groups") -> Codes:
    """Group names of any kind as integers `0 .. n_groups - 1`; without groups each item is its own."""
    if groups is None:
        return np.arange(n)
    return np.unique(same_length(np.asarray(groups), n, name), return_inverse=True)[1]


def same_length(array: NDArray[Any], n: int, name: str) -> NDArray[Any]:
    """The array itself where it is `[n]`."""
    if array.shape != (n,):
        why = f"{name} have shape {array.shape}, the items are {n}"
        raise InputError(f"{name} do not fit", why, "pass one per item")
    return array


def in_unit_interval(values: ArrayLike, name: str) -> Floats:
    """A vector `[n]` of numbers from 0 to 1."""
    array = as_scores(values, name)
    if array.min() < 0 or array.max() > 1:
        why = f"the values run from {array.min():.4g} to {array.max():.4g}"
        raise InputError(f"{name} cannot be used", why, "pass probabilities from 0 to 1")
    return array
