"""Feature matrices made ready: centred, scaled, and no wider than they have rows.

Features come rounded to the type that they were computed or stored in, and are computed with in
float64. What is smaller than the rounding of that type, whose `eps` (the gap between 1 and the next
number) goes with them, says nothing about a model: float32 features of rank 16 have rank 64 in
float64, if they are 64 wide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError

# A column whose range is below this share of its largest value is a constant and rounding errors;
# as is one whose range is below this many eps.
CONSTANT = 1e-12
CONSTANT_EPS = 8

DOUBLE, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))

Matrix = NDArray[Any]  # of float64


def eps_of(dtype: np.dtype[Any]) -> float:
    """The eps of a type of number; whole numbers are exact, and have that of float64."""
    return max(float(np.finfo(dtype).eps), DOUBLE) if dtype.kind == "f" else DOUBLE


def centred(features: Matrix, eps: float) -> Matrix:
    """(n, d') features with columns of mean zero, all scaled to a Frobenius norm of one.

    Columns that are constant are left out: the direction of their rounding errors is noise.

    Raises:
        InputError: all columns are constant.
    """
    return centred_with_noise(features, eps)[0]


def centred_with_noise(features: Matrix, eps: float) -> tuple[Matrix, float]:
    """As ``centred``, with the largest singular value that rounding errors may have in them."""
    low, high = features.min(axis=0), features.max(axis=0)
    largest = np.maximum(-low, high)
    varies = high - low > max(CONSTANT, CONSTANT_EPS * eps) * largest
    if not varies.any():
        raise InputError("the features are constant: every example has the same")
    kept = features if varies.all() else features[:, varies]
    found = kept / largest[varies].max()  # so that squares neither over- nor underflow
    noise = _noise(found, eps)
    found -= found.mean(axis=0)
    norm = float(np.linalg.norm(found))
    found /= norm
    return np.asarray(found), noise / norm


def _noise(features: Matrix, eps: float) -> float:
    """The largest singular value of the rounding errors in (n, d) features, about.

    Each number is rounded by itself when it is stored: a random matrix, as in whitening for heads.
    Before that, errors add up along the sums of the layer that gives the features. A layer that is
    wider than its rank r has sums of r terms, and r <= min(n, d): then these errors are below
    eps times the norm of the features. Half precision is summed in single.
    """
    columns = np.linalg.norm(features, axis=0)
    stored = eps * columns.max() * (1 + np.sqrt(features.shape[1] / len(features)))
    summed = min(eps, SINGLE) * np.linalg.norm(columns)
    return float(max(stored, summed))


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
