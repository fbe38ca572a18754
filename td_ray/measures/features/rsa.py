"""Representational similarity analysis: do two models find the same examples alike?

Each model has a dissimilarity of every pair of examples, from their rows x_i as they are:

    correlation    1 - Pearson correlation of x_i and x_j, over features
    cosine         1 - cosine of x_i and x_j
    euclidean      || x_i - x_j ||

and rsa is the correlation of the n (n - 1) / 2 dissimilarities of two models, of their ranks
(`spearman`; ties have their mean) or of themselves (`pearson`), in [-1, 1] (Kriegeskorte, Mur,
Bandettini 2008, doi 10.3389/neuro.06.004.2008). Columns are not centred, unless for `euclidean`,
which does not see it.

Dissimilarities that are equal in exact arithmetic differ by rounding errors, and would be ranked by
these. So they are rounded before they are ranked: to 2^-36 of the largest for float64 features and
whole numbers, to 2^-20 for others. Half precision would ask for coarser steps, which tie much of
what does differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.measures.features.matrices import SINGLE, Matrix, centred, unit_rows
from td_ray.measures.features.measure import SIMILAR, FeatureMeasure
from td_ray.registry import MEASURES

DISSIMILARITIES, CORRELATIONS = ("correlation", "cosine", "euclidean"), ("spearman", "pearson")

# What dissimilarities are rounded to, as shares of the largest; and at least, because all of them
# are rounding errors of 1 - 1 where all examples are alike.
FINE, COARSE = 2.0**-36, 8 * SINGLE
LEAST = 1e-14

ROWS_AT_ONCE = 256
ENTRIES_AT_ONCE = 2**16


@dataclass(frozen=True, eq=False)
class Dissimilarities:
    """What is correlated.

    Attributes:
        values: (n (n - 1) / 2,) dissimilarities, or twice their ranks, which are whole numbers.
        mean: of the values.
        norm: of the values less their mean.
    """

    values: NDArray[Any]
    mean: float
    norm: float

    @property
    def nbytes(self) -> int:
        """What they take."""
        return self.values.nbytes

    def part(self, start: int) -> Matrix:
        """Some of the values, of a vector with mean zero and length one."""
        return np.asarray((self.values[start : start + ENTRIES_AT_ONCE] - self.mean) / self.norm)


@dataclass(frozen=True)
class RSA(FeatureMeasure[Dissimilarities]):
    """Representational similarity.

    Attributes:
        dissimilarity: of two examples: "correlation", "cosine" or "euclidean".
        correlation: of two models' dissimilarities: "spearman" or "pearson".
    """

    dissimilarity: str = "correlation"
    correlation: str = "spearman"

    name: ClassVar[str] = "rsa"
    direction: ClassVar[str] = SIMILAR
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    source: ClassVar[str] = "Kriegeskorte, Mur, Bandettini 2008, doi 10.3389/neuro.06.004.2008"

    def __post_init__(self) -> None:
        self.check_word("dissimilarity", DISSIMILARITIES)
        self.check_word("correlation", CORRELATIONS)

    @property
    def least_rows(self) -> int:
        """Two dissimilarities are needed to correlate any."""
        return 3

    def _prepare(self, features: Matrix, eps: float) -> Dissimilarities:
        values: NDArray[Any] = np.concatenate(list(self._dissimilarities(features, eps)))
        largest = values.max()
        step = max(LEAST, largest * np.clip(8 * eps, FINE, COARSE))
        if largest - values.min() <= step:
            raise InputError("measure 'rsa': all examples are equally far from each other")
        if self.correlation == "spearman":
            values /= step
            values = doubled_ranks(np.rint(values, out=values))
        mean = float(values.mean())
        return Dissimilarities(values, mean, float(np.linalg.norm(values - mean)))

    def _dissimilarities(self, features: Matrix, eps: float) -> Iterator[Matrix]:
        """Of each example and those after it, some examples at a time."""
        if self.dissimilarity == "euclidean":
            from scipy.spatial.distance import pdist

            yield pdist(centred(features, eps))
            return
        if self.dissimilarity == "correlation":
            features = features - features.mean(axis=1, keepdims=True)
        unit = unit_rows(features, self.name)
        for start in range(0, len(unit), ROWS_AT_ONCE):
            block = 1 - unit[start : start + ROWS_AT_ONCE] @ unit[start:].T
            yield block[~np.tri(*block.shape, dtype=np.bool_)]

    def _compare(self, a: Sequence[Dissimilarities], b: Sequence[Dissimilarities]) -> Matrix:
        found = np.zeros((len(a), len(b)))
        for start in range(0, len(a[0].values), ENTRIES_AT_ONCE):
            one = np.stack([each.part(start) for each in a])
            found += one @ (one if a is b else np.stack([each.part(start) for each in b])).T
        return found


def doubled_ranks(values: Matrix) -> NDArray[np.integer[Any]]:
    """(m,) twice the ranks of values, from 2 on; equal values share the mean of their ranks."""
    order = np.argsort(values)
    ascending = values[order]
    starts = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))
    counts = np.diff(np.append(starts, len(values)))
    kind = np.int32 if len(values) < 2**30 else np.int64
    ranks: NDArray[np.integer[Any]] = np.empty(len(values), dtype=kind)
    ranks[order] = np.repeat(2 * starts + counts + 1, counts)
    return ranks


MEASURES.register(RSA.name)(RSA())
