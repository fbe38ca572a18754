"""Mutual nearest neighbours: how many of the k examples nearest to one are the same for two models.

    knn = (1/n) sum_i | N(i) & N'(i) | / k                                     in [0, 1]

where N(i) are the k examples other than i whose rows, each scaled to length one, have the largest
inner product with that of i (Huh, Cheung, Wang, Isola 2024, arXiv 2405.07987). Columns are not
centred. Two unrelated models share k / (n - 1) by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from td_ray.measures.features.matrices import Matrix, unit_rows
from td_ray.measures.features.measure import SIMILAR, FeatureMeasure
from td_ray.registry import MEASURES

ROWS_AT_ONCE = 256

Neighbours = NDArray[np.int32]


@dataclass(frozen=True)
class KNN(FeatureMeasure[Neighbours]):
    """Overlap of nearest neighbours.

    Attributes:
        k: how many neighbours each example has.
    """

    k: int = 10

    name: ClassVar[str] = "knn"
    direction: ClassVar[str] = SIMILAR
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    source: ClassVar[str] = "Huh, Cheung, Wang, Isola 2024, arXiv 2405.07987"

    def __post_init__(self) -> None:
        self.check_count("k")

    @property
    def least_rows(self) -> int:
        """Each example needs k others."""
        return self.k + 1

    def _prepare(self, features: Matrix, eps: float) -> Neighbours:
        unit = unit_rows(features, self.name)
        found = np.empty((len(unit), self.k), dtype=np.int32)
        for start in range(0, len(unit), ROWS_AT_ONCE):
            rows = slice(start, min(start + ROWS_AT_ONCE, len(unit)))
            distance = -(unit[rows] @ unit.T)
            own = np.arange(rows.start, rows.stop)
            distance[own - start, own] = np.inf
            found[rows] = np.argpartition(distance, self.k - 1, axis=1)[:, : self.k]
        return found

    def _compare(self, a: Sequence[Neighbours], b: Sequence[Neighbours]) -> Matrix:
        n = len(a[0])
        shared = np.zeros((len(a), len(b)), dtype=np.int64)
        for start in range(0, n, ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            others = np.stack([each[rows] for each in b])  # (B, rows, k)
            example = np.arange(others.shape[1])[:, None]
            is_near = np.zeros((len(example), n), dtype=np.bool_)
            for i, one in enumerate(a):
                is_near[example, one[rows]] = True
                first = i if a is b else 0
                shared[i, first:] += is_near[example, others[first:]].sum(axis=(1, 2))
                is_near[example, one[rows]] = False
        if a is b:
            shared = np.triu(shared) + np.triu(shared, 1).T
        return shared / (n * self.k)


MEASURES.register(KNN.name)(KNN())
