"""Centred kernel alignment with linear kernels, and its debiased form.

For centred features X (n, d), K = X X', and the same for the other model, L:

    cka = <K, L> / ( ||K|| ||L|| ) = ||X'Y||^2 / ( ||X'X|| ||Y'Y|| )          in [0, 1]

(Kornblith, Norouzi, Lee, Hinton 2019, arXiv 1905.00414). With few examples and wide features it is
near 1 for any two models. The debiased form is the same ratio of unbiased estimates of HSIC (Song,
Smola, Gretton, Bedo, Borgwardt 2012; in CKA, Nguyen, Raghu, Kornblith 2021, arXiv 2010.15327),

    n (n - 3) hsic(K, L) = <K~, L~> + sum(K~) sum(L~) / ( (n-1)(n-2) ) - 2 sum(K~ L~) / (n-2)

where ~ puts zeros on the diagonal. The rows of K sum to zero, so that those of K~ sum to -K_ii:

    n (n - 3) hsic(K, L) = <K, L> - n / (n-2) sum_i K_ii L_ii + tr K tr L / ( (n-1)(n-2) )

It is about 0 for unrelated features, and below it by chance: in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from td_ray.errors import InputError
from td_ray.measures.features.kernels import Kernel, inner_products
from td_ray.measures.features.matrices import Matrix, centred, narrow
from td_ray.measures.features.measure import SIMILAR, FeatureMeasure
from td_ray.registry import MEASURES

# An estimate below this share of what it is the difference of is made of rounding errors.
ROUNDING = 1e-12


@dataclass(frozen=True)
class CKA(FeatureMeasure[Kernel]):
    """Linear CKA."""

    name: ClassVar[str] = "cka"
    direction: ClassVar[str] = SIMILAR
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    source: ClassVar[str] = "Kornblith, Norouzi, Lee, Hinton 2019, arXiv 1905.00414"

    def _prepare(self, features: Matrix, eps: float) -> Kernel:
        return Kernel.of(narrow(centred(features, eps)))

    def _compare(self, a: Sequence[Kernel], b: Sequence[Kernel]) -> Matrix:
        products, norms_a, norms_b = inner_products(a, b)
        return np.asarray(products / np.sqrt(norms_a * norms_b))


@dataclass(frozen=True)
class DebiasedCKA(FeatureMeasure[Kernel]):
    """Linear CKA from unbiased estimates."""

    name: ClassVar[str] = "cka_debiased"
    direction: ClassVar[str] = SIMILAR
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    source: ClassVar[str] = "Nguyen, Raghu, Kornblith 2021, arXiv 2010.15327"

    @property
    def least_rows(self) -> int:
        """The estimate divides by n - 3."""
        return 4

    def _prepare(self, features: Matrix, eps: float) -> Kernel:
        kernel = Kernel.of(narrow(centred(features, eps)))
        norm, diagonal = kernel.squared_norm, kernel.diagonal
        if _estimate(norm, diagonal @ diagonal, kernel.n) <= ROUNDING * norm:
            raise InputError(
                "measure 'cka_debiased': these features leave nothing beyond their own bias, as "
                "where all examples are equally far from each other"
            )
        return kernel

    def _compare(self, a: Sequence[Kernel], b: Sequence[Kernel]) -> Matrix:
        n = a[0].n
        products, norms_a, norms_b = inner_products(a, b)
        one, other = (np.stack([kernel.diagonal for kernel in side]) for side in (a, b))
        own_a = _estimate(norms_a, np.square(one).sum(axis=1)[:, None], n)
        own_b = _estimate(norms_b, np.square(other).sum(axis=1)[None, :], n)
        return np.asarray(_estimate(products, one @ other.T, n) / np.sqrt(own_a * own_b))


def _estimate(products: Any, of_diagonals: Any, n: int) -> Any:
    """N (n - 3) hsic from <K, L> and sum_i K_ii L_ii; features of norm one have tr K = 1."""
    return products - n / (n - 2) * of_diagonals + 1 / ((n - 1) * (n - 2))


MEASURES.register(CKA.name)(CKA())
MEASURES.register(DebiasedCKA.name)(DebiasedCKA())
