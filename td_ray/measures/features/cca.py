"""Mean squared canonical correlation.

For centred features X (n, d) of rank r, scaled to a mean squared norm of one, and S = X'X / n,

    P = X (S + ridge I)^-1 X' / n,     cca = tr(P P') / min(r, r') = mean_i rho_i^2       in [0, 1]

for the rho_i of both models, which with ridge = 0 are the canonical correlations, and P projects on
the span of the columns (mean of R^2_CCA in Kornblith et al. 2019, arXiv 1905.00414; with a ridge,
Vinod 1976). It cannot tell apart an invertible map of the features from the features themselves.
Directions count towards r if their singular value is above what rounding to the features' own type
(float16, float32, float64) may have put there: see `matrices`. One bound holds for all columns: in
float16, a column that is a thousand times larger than the others hides them.
A model that spans all of the examples (n <= d) has a correlation of 1 with any other. With a ridge
directions of little variance count less, and a model's value with itself is below 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from td_ray.errors import InputError
from td_ray.measures.features.kernels import Kernel, inner_products
from td_ray.measures.features.matrices import DOUBLE, Matrix, centred_with_noise, narrow
from td_ray.measures.features.measure import SIMILAR, FeatureMeasure
from td_ray.registry import MEASURES


@dataclass(frozen=True)
class Spanned:
    """What a model's columns span.

    Attributes:
        kernel: P.
        rank: r.
    """

    kernel: Kernel
    rank: int

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return self.kernel.nbytes


@dataclass(frozen=True)
class CCA(FeatureMeasure[Spanned]):
    """Mean squared canonical correlation.

    Attributes:
        ridge: as in the formula, >= 0.
    """

    ridge: float = 0.0

    name: ClassVar[str] = "cca"
    direction: ClassVar[str] = SIMILAR
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    source: ClassVar[str] = "Kornblith, Norouzi, Lee, Hinton 2019, arXiv 1905.00414"

    def __post_init__(self) -> None:
        self.check_number("ridge", 0.0, included=True)

    @property
    def itself(self) -> float | None:
        """Less than one with a ridge."""
        return None if self.ridge else 1.0

    def _prepare(self, features: Matrix, eps: float) -> Spanned:
        matrix, noise = centred_with_noise(features, eps)
        left, singular, _ = np.linalg.svd(narrow(matrix), full_matrices=False)
        least = max(noise, singular[0] * max(matrix.shape) * DOUBLE)  # of the input, of the svd
        rank = int((singular > least).sum())
        if rank == 0:
            raise InputError("the features are constant: they vary by no more than rounding does")
        variance = np.square(singular[:rank])
        factor = left[:, :rank] * np.sqrt(variance / (variance + self.ridge))
        return Spanned(Kernel.of(factor), rank)

    def _compare(self, a: Sequence[Spanned], b: Sequence[Spanned]) -> Matrix:
        one = [each.kernel for each in a]
        products, _, _ = inner_products(one, one if a is b else [each.kernel for each in b])
        ranks = [np.array([each.rank for each in side]) for side in (a, b)]
        return np.asarray(products / np.minimum.outer(*ranks))


MEASURES.register(CCA.name)(CCA())
