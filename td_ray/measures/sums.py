"""Sums over blocks of examples, and what a measure makes of them: its value and standard error.

A measure is a function of sums over examples. Where the sums are kept apart for G blocks, leaving
out one block is a subtraction, and the delete-one-block jackknife costs G values of the function
and no further pass over the examples. For blocks of m_g of the n examples, h_g = n / m_g,

    theta_J = G theta - sum_g (1 - m_g / n) theta_(-g)
    se^2    = (1/G) sum_g ( h_g theta - (h_g - 1) theta_(-g) - theta_J )^2 / (h_g - 1)

(Busing, Meijer and van der Leeden 1999, "Delete-m jackknife for unequal m", Statistics and
Computing 9). With blocks of one size it is Tukey's (G-1)/G sum_g (theta_(-g) - mean)^2, and for a
mean of blocks their standard deviation over the root of G. It describes which examples happened
to be evaluated: not the training sets, for which there are seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.measures.outputs import Outputs

Array = NDArray[Any]
Floats = NDArray[np.float64]

ROWS_AT_ONCE = 16
"""Of a matrix whose standard errors are made: with 128 columns and 40 blocks, they stay in L2."""


@dataclass(frozen=True, eq=False)
class Sums:
    """A sum over examples for pairs of heads; axes that do not matter have length one.

    Attributes:
        total: (A, B) over all examples.
        of_block: (A, B, G) what the total loses when a block is left out.
    """

    total: Array
    of_block: Array

    def without_one(self, rows: slice) -> Floats:
        """(A, B, G) the totals without each of the blocks, of some rows."""
        total, of_block = (
            each if len(each) == 1 else each[rows] for each in (self.total, self.of_block)
        )
        return np.subtract(total[..., None], of_block, dtype=np.float64)


Statistic = Callable[[Outputs, Outputs], Sums]


def summed(of_block: Array) -> Sums:
    """Sums whose blocks (A, B, G) add up to the whole."""
    return Sums(of_block.sum(axis=-1), of_block)


def evaluate(
    statistics: tuple[Statistic, ...], value: Callable[..., Floats], a: Outputs, b: Outputs
) -> Floats:
    """(A, B) values of a function of statistics, for every pair of heads."""
    return _values(value, [statistic(a, b) for statistic in statistics], (len(a), len(b)))


def estimate(
    statistics: tuple[Statistic, ...], value: Callable[..., Floats], a: Outputs, b: Outputs
) -> tuple[Floats, Floats]:
    """(A, B) values of a function of statistics, and their (A, B) standard errors.

    A standard error is NaN where there is a single block, or where the function has no value
    without one of the blocks.
    """
    sums = [statistic(a, b) for statistic in statistics]
    found = _values(value, sums, (len(a), len(b)))
    errors = np.full(found.shape, np.nan)
    sizes = a.examples.blocks.sizes
    if len(sizes) > 1:
        for start in range(0, len(a), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            without = value(*(each.without_one(rows) for each in sums))
            errors[rows] = _jackknife(found[rows], without, sizes)
    return found, errors


def _values(value: Callable[..., Floats], sums: list[Sums], shape: tuple[int, int]) -> Floats:
    found = value(*(each.total.astype(np.float64) for each in sums))
    return np.array(np.broadcast_to(found, shape))


def _jackknife(value: Floats, without: Floats, sizes: NDArray[np.int64]) -> Floats:
    """(A, B) standard errors of values (A, B), from those without each block (A, B, G)."""
    others = sizes.sum() / sizes - 1
    change = without - value[..., None]
    shift = change @ (others / (others + 1))  # theta - theta_J
    change *= others
    change -= shift[..., None]
    return np.asarray(np.sqrt(np.square(change, out=change) @ (1 / others) / len(sizes)))
