"""The regression distance of the Transferred Discrepancy (Feng et al., arXiv 2007.12446).

For predictions u, v of two heads on n examples, all centred by the training mean of the target:

    cosine   || u/||u|| - v/||v|| ||^2 = 2 - 2 cos(u, v)          in [0, 4]; 2 for independent ones
    mean     ||u - v||^2 / ( (||u||^2 + ||v||^2) / 2 )            in [0, 4]; 2 for independent ones
    none     ||u - v||^2 / n                                      in [0, inf); target units squared
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.registry import closest

DISTANCES = ("cosine", "mean", "none")
# Rows whose range is below this share of their largest value are a constant and rounding errors.
CONSTANT = 1e-12
# Below this share of the squared norms, ||u||^2 + ||v||^2 - 2 u.v has lost six digits or more.
CANCELS = 1e-6

Values = NDArray[np.float64]


def has_direction(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(A,) bool: rows of (A, n) that are finite and not constant.

    A head that predicts a constant (zero after centring, or a half's mean less the whole's) says
    nothing about the examples, and the direction of its rounding errors is noise. Constant means a
    range within 1e-12 of the row's largest value.
    """
    finite = np.isfinite(values).all(axis=1)
    safe = np.where(finite[:, None], values, 0.0)
    largest = np.abs(safe).max(axis=1)
    return np.asarray(finite & (safe.max(axis=1) - safe.min(axis=1) > CONSTANT * largest))


def value_distance(values_a: Values, values_b: Values, kind: str = "cosine") -> Values:
    """Distance of every pair of rows of centred predictions.

    Args:
        values_a: (A, n) predictions, each less the training mean of the target.
        values_b: (B, n) predictions of other heads for the same n examples.
        kind: "cosine", "mean" or "none".

    Returns:
        (A, B) float64. NaN where a row is not finite; for `cosine`, where either row has no
        direction (see `has_direction`); for `mean`, where neither has one.

    Raises:
        InputError: unknown kind, or not two matrices over the same, non-empty examples.
    """
    if kind not in DISTANCES:
        raise InputError(f"unknown regression distance '{kind}': {closest(kind, DISTANCES)}")
    if values_a.ndim != 2 or values_b.ndim != 2 or values_a.shape[1] != values_b.shape[1]:
        raise InputError(
            "predictions must be matrices (heads, examples) over the same examples, "
            f"not {values_a.shape} and {values_b.shape}"
        )
    if values_a.shape[1] == 0:
        raise InputError("predictions must cover at least one example")
    directed = has_direction(values_a)[:, None], has_direction(values_b)[None, :]
    finite_a, finite_b = _finite(values_a)[:, None], _finite(values_b)[None, :]
    a, b = np.where(finite_a, values_a, 0.0), np.where(finite_b.T, values_b, 0.0)
    if kind == "cosine":
        valid = directed[0] & directed[1]
        distance = _squared_gap(_unit(a), _unit(b))
    elif kind == "mean":
        valid = directed[0] | directed[1]
        size = (np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None, :]) / 2
        distance = _squared_gap(a, b) / np.where(size > 0, size, 1.0)
    else:
        valid = np.ones((len(a), len(b)), dtype=np.bool_)
        distance = _squared_gap(a, b) / a.shape[1]
    return np.where(valid & finite_a & finite_b, distance, np.nan)


def _finite(values: Values) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(values).all(axis=1))


def _unit(values: Values) -> Values:
    """Rows of length one; rows of zeros stay."""
    largest = np.abs(values).max(axis=1, keepdims=True)
    # So that squares neither over- nor underflow.
    values = values / np.where(largest > 0, largest, 1.0)
    norm = np.sqrt(np.square(values).sum(axis=1, keepdims=True))
    return np.asarray(values / np.where(norm > 0, norm, 1.0))


def _squared_gap(a: Values, b: Values) -> Values:
    """(A, B) squared distances: one matrix product, and row by row where it cancels."""
    size = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None, :]
    gap = size - 2 * (a @ b.T)
    for i, j in np.argwhere(gap < CANCELS * size):
        gap[i, j] = np.square(a[i] - b[j]).sum()
    return np.asarray(gap)
