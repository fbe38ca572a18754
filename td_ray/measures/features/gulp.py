"""GULP: how far apart the ridge predictions of two models can be, over all targets.

For centred features X (n, d), scaled to a mean squared norm of one, S = X'X / n, Z = (S + l I)^-1,
the same with ' for the other model, and C = X'X' / n of both,

    gulp = tr(Z S Z S) + tr(Z' S' Z' S') - 2 tr(Z C Z' C^T) = || K - K' ||^2       in [0, inf)

with K = X Z X^T / n. It is the square of the distance in Boix-Adsera, Lawrence, Stepaniants,
Rigollet 2022, arXiv 2210.06545, as their code returns it. For small l it does not see invertible
maps, as canonical correlations do not; for large l it orders models as linear CKA does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from td_ray.errors import InputError
from td_ray.measures.features.kernels import Kernel, inner_products
from td_ray.measures.features.matrices import Matrix, centred, narrow
from td_ray.measures.features.measure import DIFFERENT, FeatureMeasure
from td_ray.registry import MEASURES


@dataclass(frozen=True)
class GULP(FeatureMeasure[Kernel]):
    """The squared GULP distance.

    Attributes:
        l: penalty of the ridge predictions, > 0, for features of mean squared norm one.
    """

    l: float = 1e-2  # noqa: E741  # the penalty's usual letter

    name: ClassVar[str] = "gulp"
    direction: ClassVar[str] = DIFFERENT
    range: ClassVar[tuple[float, float]] = (0.0, math.inf)
    squared: ClassVar[bool] = True
    source: ClassVar[str] = "Boix-Adsera, Lawrence, Stepaniants, Rigollet 2022, arXiv 2210.06545"

    def __post_init__(self) -> None:
        self.check_number("l", 0.0, included=False)

    def _prepare(self, features: Matrix, eps: float) -> Kernel:
        from scipy.linalg import solve_triangular

        matrix = narrow(centred(features, eps))  # of norm one, so that S is X'X
        covariance = matrix.T @ matrix
        covariance.flat[:: len(covariance) + 1] += self.l
        try:
            lower = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            raise InputError(
                f"measure 'gulp': a penalty of l = {self.l:g} is lost in rounding; use a larger one"
            ) from None
        return Kernel.of(solve_triangular(lower, matrix.T, lower=True).T)

    def _compare(self, a: Sequence[Kernel], b: Sequence[Kernel]) -> Matrix:
        products, norms_a, norms_b = inner_products(a, b)
        return np.asarray(norms_a + norms_b - 2 * products)


MEASURES.register(GULP.name)(GULP())
