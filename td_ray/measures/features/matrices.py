"""Feature matrices made ready: centred, scaled, and no wider than they have rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError

# A column whose range is below this share of its largest value is a constant and rounding errors.
CONSTANT = 1e-12

Matrix = NDArray[Any]  # of float64


def centred(features: Matrix) -> Matrix:
    """(n, d') features with columns of mean zero, all scaled to a Frobenius norm of one.

    Columns that are constant are left out: the direction of their rounding errors is noise.

    Raises:
        InputError: all columns are constant.
    """
    low, high = features.min(axis=0), features.max(axis=0)
    largest = np.maximum(-low, high)
    varies = high - low > CONSTANT * largest
    if not varies.any():
        raise InputError("the features are constant: every example has the same")
    kept = features if varies.all() else features[:, varies]
    found = kept / largest[varies].max()  # so that squares neither over- nor underflow
    found -= found.mean(axis=0)
    found /= np.linalg.norm(found)
    return np.asarray(found)


def narrow(matrix: Matrix) -> Matrix:
    """(n, min(n, d)) with the same products of rows: features wider than long are rotated."""
    n, d = matrix.shape
    if d <= n:
        return matrix
    upper: Matrix = np.asarray(np.linalg.qr(matrix.T, mode="r"))
    return np.ascontiguousarray(upper.T)


def unit_rows(features: Matrix, measure: str) -> Matrix:
    """(n, d) features with rows of length one.

    Raises:
        InputError: a row that is zero up to rounding, and has no direction.
    """
    scaled = features / max(np.abs(features).max(), np.finfo(np.float64).tiny)
    norms = np.linalg.norm(scaled, axis=1)
    flat = norms <= CONSTANT * norms.max()
    if flat.any():
        raise InputError(
            f"measure '{measure}': {flat.sum()} examples have features without a direction (all "
            f"zero, or all alike), the first in row {flat.argmax()}"
        )
    return np.asarray(scaled / norms[:, None])
