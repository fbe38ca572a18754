"""Rows of predicted values: which have a direction, and rows of length one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Rows whose range is below this share of their largest value are a constant and rounding errors.
CONSTANT = 1e-12

Values = NDArray[np.float64]


def is_finite(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(A,) bool: rows of (A, n) without NaN and infinity."""
    return np.asarray(np.isfinite(values).all(axis=1))


def has_direction(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(A,) bool: rows of (A, n) that are finite and not constant.

    A head that predicts a constant (zero after centring, or a half's mean less the whole's) says
    nothing about the examples, and the direction of its rounding errors is noise. Constant means a
    range within 1e-12 of the row's largest value.
    """
    finite = is_finite(values)
    safe = np.where(finite[:, None], values, 0.0)
    low, high = safe.min(axis=1), safe.max(axis=1)
    return np.asarray(finite & (high - low > CONSTANT * np.maximum(high, -low)))


def unit_rows(values: Values) -> Values:
    """Rows of length one; rows of zeros stay."""
    largest = np.abs(values).max(axis=1, keepdims=True)
    # So that squares neither over- nor underflow.
    values = values / np.where(largest > 0, largest, 1.0)
    norm = np.sqrt(np.square(values).sum(axis=1, keepdims=True))
    return np.asarray(values / np.where(norm > 0, norm, 1.0))
