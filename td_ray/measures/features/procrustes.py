"""Orthogonal Procrustes distance: what is left after the best rotation.

For centred features X and Y of Frobenius norm one (the narrower one padded with zeros),

    procrustes = min over orthogonal Q of || X - Y Q ||^2 = 2 - 2 ||X'Y||_*       in [0, 2]

with the nuclear norm, the sum of singular values (Schönemann 1966; for representations, Ding,
Denain, Steinhardt 2021, arXiv 2108.01661). It is squared; its square root is a metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from td_ray.measures.features.matrices import Matrix, centred, narrow
from td_ray.measures.features.measure import DIFFERENT, FeatureMeasure
from td_ray.registry import MEASURES


@dataclass(frozen=True)
class Procrustes(FeatureMeasure[Matrix]):
    """The squared orthogonal Procrustes distance."""

    name: ClassVar[str] = "procrustes"
    direction: ClassVar[str] = DIFFERENT
    range: ClassVar[tuple[float, float]] = (0.0, 2.0)
    squared: ClassVar[bool] = True
    source: ClassVar[str] = "Ding, Denain, Steinhardt 2021, arXiv 2108.01661"

    def _prepare(self, features: Matrix) -> Matrix:
        return narrow(centred(features))

    def _compare(self, a: Sequence[Matrix], b: Sequence[Matrix]) -> Matrix:
        found = np.zeros((len(a), len(b)))
        for i, one in enumerate(a):
            for j, other in enumerate(b):
                if a is b and j < i:
                    found[i, j] = found[j, i]
                elif one is not other:
                    values = np.linalg.svd(one.T @ other, compute_uv=False)
                    found[i, j] = 2 - 2 * values.sum()
        return found


MEASURES.register(Procrustes.name)(Procrustes())
