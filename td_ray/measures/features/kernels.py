"""Kernel matrices K = U U' of models, and their inner products for all pairs at once.

    <K, L> = sum_ij K_ij L_ij = || U'V ||_F^2       for K = U U', L = V V'

The first form costs n^2 a pair, once each model's K is there; the second n r r' a pair. With many
models the first is the cheaper by far, with many examples the second, and whichever is cheaper is
used. K is made a block at a time, for all models together, so that it never takes room as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from td_ray.measures.features.matrices import Matrix

BLOCK = 256
"""Examples on each side of a block of a kernel matrix."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A symmetric (n, n) matrix, as a factor or, where that takes less room, as its lower half.

    Attributes:
        n: the number of examples.
        factor: (n, r) matrix U with K = U U'; None where the blocks are kept.
        blocks: of the lower half, in the order of `_places`.
    """

    n: int
    factor: Matrix | None
    blocks: tuple[Matrix, ...] = ()

    @classmethod
    def of(cls, factor: Matrix) -> Kernel:
        """The kernel matrix of a factor (n, r)."""
        n, rank = factor.shape
        if 2 * rank <= n:
            return cls(n, factor)
        return cls(n, None, tuple(factor[rows] @ factor[columns].T for rows, columns in _places(n)))

    @property
    def nbytes(self) -> int:
        """What it takes."""
        held = self.blocks if self.factor is None else (self.factor,)
        return sum(array.nbytes for array in held)

    @cached_property
    def squared_norm(self) -> float:
        """<K, K>."""
        if self.factor is not None:
            return _squares(self.factor.T @ self.factor)
        return sum(
            _times(rows, columns) * _squares(block)
            for (rows, columns), block in zip(_places(self.n), self.blocks, strict=True)
        )

    @cached_property
    def diagonal(self) -> Matrix:
        """(n,) entries K_ii."""
        if self.factor is not None:
            return np.asarray(np.square(self.factor).sum(axis=1))
        places = zip(_places(self.n), self.blocks, strict=True)
        return np.concatenate([b.diagonal() for (rows, columns), b in places if rows == columns])

    def block(self, number: int, rows: slice, columns: slice) -> Matrix:
        """One block of K, flat."""
        if self.factor is None:
            return self.blocks[number].ravel()
        return np.asarray(self.factor[rows] @ self.factor[columns].T).ravel()


def inner_products(a: Sequence[Kernel], b: Sequence[Kernel]) -> tuple[Matrix, Matrix, Matrix]:
    """Inner products of every kernel of one list with every kernel of another.

    Args:
        a: A kernels on n examples.
        b: B kernels on the same; if it is the same list, half of the pairs is computed.

    Returns:
        (A, B) <K, L>, with (A, 1) <K, K> and (1, B) <L, L>.
    """
    found = _by_factors(a, b) if _factors_are_cheaper(a, b) else _by_blocks(a, b)
    if a is b:
        norms = found.diagonal().copy()
        return found, norms[:, None], norms[None, :]
    return found, _norms(a)[:, None], _norms(b)[None, :]


def _norms(kernels: Sequence[Kernel]) -> Matrix:
    return np.array([kernel.squared_norm for kernel in kernels])


def _factors_are_cheaper(a: Sequence[Kernel], b: Sequence[Kernel]) -> bool:
    """Whether products of factors take fewer operations than kernels do, counted in n."""
    ranks = [[0 if k.factor is None else k.factor.shape[1] for k in side] for side in (a, b)]
    if 0 in ranks[0] or 0 in ranks[1]:
        return False
    n = a[0].n
    half = 2 if a is b else 1
    products = 2 * sum(ranks[0]) * sum(ranks[1]) / half
    made = n * sum(ranks[0]) + (0 if a is b else n * sum(ranks[1]))
    return products < made + n * len(a) * len(b) / half


def _by_factors(a: Sequence[Kernel], b: Sequence[Kernel]) -> Matrix:
    found = np.empty((len(a), len(b)))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            if a is b and j < i:
                found[i, j] = found[j, i]
            elif one.factor is not None and other.factor is not None:
                found[i, j] = _squares(one.factor.T @ other.factor)
    return found


def _by_blocks(a: Sequence[Kernel], b: Sequence[Kernel]) -> Matrix:
    found = np.zeros((len(a), len(b)))
    for number, (rows, columns) in enumerate(_places(a[0].n)):
        one = np.stack([kernel.block(number, rows, columns) for kernel in a])
        other = one
        if a is not b:
            other = np.stack([kernel.block(number, rows, columns) for kernel in b])
        found += _times(rows, columns) * (one @ other.T)
    return found


def _places(n: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the blocks that cover the lower half of an (n, n) matrix."""
    for top in range(0, n, BLOCK):
        for left in range(0, top + 1, BLOCK):
            yield slice(top, min(top + BLOCK, n)), slice(left, min(left + BLOCK, n))


def _times(rows: slice, columns: slice) -> int:
    """How often a block is in the whole matrix."""
    return 1 if rows == columns else 2


def _squares(matrix: Matrix) -> float:
    return float(np.vdot(matrix, matrix))
