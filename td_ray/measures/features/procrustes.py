"""Orthogonal Procrustes distance: what is left after the best rotation.

For centred features X and Y of Frobenius norm one (the narrower one padded with zeros),

    procrustes = min over orthogonal Q of || X - Y Q ||^2 = 2 - 2 ||X'Y||_*       in [0, 2]

with the nuclear norm, the sum of the singular values s_i (Schönemann 1966; for representations,
Ding, Denain, Steinhardt 2021, arXiv 2108.01661). It is squared; its square root is a metric.

The s_i are the roots of the eigenvalues of C C' for C = X'Y, which are found in half the time.
These may be wrong by e = 16 eps s_1^2, and their roots by min(sqrt(e), e / s_i): where that could
add up to more than 1e-6 (what it did add up to was below 1e-12), the s_i themselves are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from td_ray.measures.features.matrices import Matrix, centred, narrow
from td_ray.measures.features.measure import DIFFERENT, FeatureMeasure
from td_ray.registry import MEASURES

TOLERANCE = 1e-6
ROUNDING = 16 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Procrustes(FeatureMeasure[Matrix]):
    """The squared orthogonal Procrustes distance."""

    name: ClassVar[str] = "procrustes"
    direction: ClassVar[str] = DIFFERENT
    range: ClassVar[tuple[float, float]] = (0.0, 2.0)
    squared: ClassVar[bool] = True
    source: ClassVar[str] = "Ding, Denain, Steinhardt 2021, arXiv 2108.01661"

    def _prepare(self, features: Matrix, eps: float) -> Matrix:
        return narrow(centred(features, eps))

    def _compare(self, a: Sequence[Matrix], b: Sequence[Matrix]) -> Matrix:
        found = np.zeros((len(a), len(b)))
        for i, one in enumerate(a):
            for j, other in enumerate(b):
                if a is b and j < i:
                    found[i, j] = found[j, i]
                elif one is not other:
                    found[i, j] = 2 - 2 * nuclear_norm(one.T @ other)
        return found


def nuclear_norm(matrix: Matrix) -> float:
    """The sum of singular values, to 1e-6 at worst."""
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    eigenvalues = np.maximum(np.linalg.eigvalsh(matrix @ matrix.T), 0)
    wrong = ROUNDING * eigenvalues[-1]
    values = np.sqrt(eigenvalues)
    if (wrong / np.maximum(values, np.sqrt(wrong))).sum() <= TOLERANCE:
        return float(values.sum())
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


MEASURES.register(Procrustes.name)(Procrustes())
