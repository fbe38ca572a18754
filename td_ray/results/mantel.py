"""Whether two measures see the same differences: Spearman's correlation, with a permutation test.

Pairs share models, so the usual p-value of a correlation does not hold for them. Mantel's test (N.
Mantel, Cancer Research 27, 1967) permutes the representations of one matrix, rows and columns
alike, and asks how often chance does as well:

    p = ( 1 + #{ permuted rho >= rho } ) / ( 1 + permutations )

Where both matrices share a structure of groups (within an architecture everything is alike), free
permutations break it up, and reject although nothing else is shared. With ``by``, representations
are permuted within groups alone; one that lacks the key is alike to no other, and stays in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.results.td_matrix import TDMatrix, check_matrix


@dataclass(frozen=True)
class MatrixComparison:
    """How well two matrices agree.

    Attributes:
        spearman: rank correlation over pairs, both as differences (similarities are turned round).
        p: one-sided; that representations matched at random agree as well.
        pairs: that were compared.
        permutations: that were drawn.
        left_out: representations that lack a pair in one of the two matrices.
    """

    spearman: float
    p: float
    pairs: int
    permutations: int
    left_out: tuple[str, ...]


def compare_matrices(
    a: TDMatrix, b: TDMatrix, *, by: str | None = None, permutations: int = 999, seed: int = 0
) -> MatrixComparison:
    """Compare two matrices of the same representations.

    Args:
        a: one matrix.
        b: the other, of other values: another measure, task or head.
        by: a metadata key; representations are permuted within its groups, and those without it
            not at all.
        permutations: how many are drawn.
        seed: of the draws.

    Raises:
        InputError: no matrices, other representations, too few of them, or nothing to permute.
    """
    check_matrix(a)
    check_matrix(b)
    _check_whole("permutations", permutations, least=1)
    _check_whole("seed", seed, least=0)
    if sorted(a.names) != sorted(b.names):
        odd = sorted(set(a.names) ^ set(b.names))
        raise InputError(f"the matrices are not of the same representations: {odd[:5]}")
    place = {name: number for number, name in enumerate(b.names)}
    b = b.take([place[name] for name in a.names])
    a, b, left_out = _complete(a, b)
    if len(a) < 3:
        raise InputError(f"{len(a)} representations have all pairs in both matrices; 3 are needed")
    groups = _groups(a, by)
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    rows, columns = _pairs(a, b)
    drawn = _permutations(len(a), groups, permutations, np.random.default_rng(seed))
    first = ranks_a[rows, columns]
    rho = _correlation(first, ranks_b[rows, columns])
    # what floating point alone sets apart is a tie
    as_well = sum(
        _correlation(first, ranks_b[order[rows], order[columns]]) >= rho - 1e-12 for order in drawn
    )
    p = (1 + int(as_well)) / (1 + permutations)
    return MatrixComparison(rho, p, len(rows), permutations, left_out)


def _check_whole(name: str, value: int, least: int) -> None:
    if not isinstance(value, Integral) or value < least:
        raise InputError(f"'{name}' is a whole number, at least {least}, not {value!r}")


def _complete(a: TDMatrix, b: TDMatrix) -> tuple[TDMatrix, TDMatrix, tuple[str, ...]]:
    """Both without representations that lack a pair in either."""
    kept = set(a.complete().names)
    both = [number for number, name in enumerate(a.names) if name in kept]
    kept &= set(b.take(both).complete().names)
    places = [number for number, name in enumerate(a.names) if name in kept]
    left_out = tuple(name for name in a.names if name not in kept)
    return a.take(places), b.take(places), left_out


def _groups(matrix: TDMatrix, by: str | None) -> list[NDArray[np.intp]]:
    """Places that are permuted among each other, a group at a time."""
    if by is None:
        return [np.arange(len(matrix))]
    names = np.array(matrix.groups(by))
    # to lack a key is not to share a value
    places = np.flatnonzero(matrix.models[by].notna())
    groups = [places[names[places] == name] for name in np.unique(names[places])]
    if all(len(group) < 2 for group in groups):
        raise InputError(f"no two representations share '{by}', so nothing can be permuted")
    return groups


def _pairs(a: TDMatrix, b: TDMatrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Each pair once, or both its directions where a measure has them."""
    return a.pairs if not a.scale.is_symmetric else b.pairs


def _ranks(matrix: TDMatrix) -> NDArray[np.float64]:
    """(N, N) ranks of the differences; a permutation of representations only moves them."""
    from scipy.stats import rankdata

    sign = -1.0 if matrix.scale.is_similarity else 1.0
    rows, columns = matrix.pairs
    ranks = np.zeros_like(matrix.values)
    ranks[rows, columns] = rankdata(sign * matrix.values[rows, columns])
    if matrix.scale.is_symmetric:
        ranks[columns, rows] = ranks[rows, columns]
    return ranks


def _permutations(
    size: int, groups: Sequence[NDArray[np.intp]], count: int, random: np.random.Generator
) -> list[NDArray[np.intp]]:
    found = []
    for _ in range(count):
        order = np.arange(size)
        for group in groups:
            order[group] = random.permutation(group)
        found.append(order)
    return found


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    if norm == 0:
        raise InputError("one of the matrices has the same value for all pairs: it has no order")
    return float(a @ b / norm)
