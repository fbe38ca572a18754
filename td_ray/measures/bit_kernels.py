"""Compiled loops over bit planes; imported when pairs are counted, since numba takes a while.

A kernel is compiled for one number of planes, so that its innermost loop is straight-line code:
exclusive-or of two words, or over the planes, population count. LLVM makes vector instructions of
it. The first process on a machine compiles a kernel in about a second and leaves it in numba's
cache, beside this file or, where that folder is read-only, in the user's own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

# Rows of the first side that share each load of the other side's words.
ROWS_TOGETHER = 4
# Words of these rows, over all planes, that are worked through at once: they stay in L1.
WORDS_AT_ONCE = 800

Kernel = Callable[..., None]


def _popcount(context: Any, word: Any) -> Any:
    """Number of bits set in a uint64, by LLVM's `ctpop`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


popcount: Any = intrinsic(_popcount)


@cache
def count_kernel(planes: int) -> Kernel:
    """The kernel that counts differing examples of all pairs.

    Args:
        planes: bits of a code.

    Returns:
        A function of a (A, planes, words) uint64, A a multiple of ROWS_TOGETHER, b (B, planes,
        words) uint64 and counts (A, B) int32, to which it adds. It holds no interpreter lock.
    """
    step = max(1, WORDS_AT_ONCE // planes)

    def count(a, b, counts):  # type: ignore[no-untyped-def]
        words = a.shape[2]
        for start in range(0, words, step):
            here = min(step, words - start)
            for i in range(0, a.shape[0], 4):
                for j in range(b.shape[0]):
                    n0 = n1 = n2 = n3 = np.uint64(0)
                    for k in range(here):
                        # Unsigned: a signed index might count from the end, and is looked at.
                        w = np.uint64(start) + np.uint64(k)
                        d0 = d1 = d2 = d3 = np.uint64(0)
                        for p in range(planes):
                            word = b[j, p, w]
                            d0 |= a[i, p, w] ^ word
                            d1 |= a[i + 1, p, w] ^ word
                            d2 |= a[i + 2, p, w] ^ word
                            d3 |= a[i + 3, p, w] ^ word
                        n0 += popcount(d0)
                        n1 += popcount(d1)
                        n2 += popcount(d2)
                        n3 += popcount(d3)
                    counts[i, j] += np.int32(n0)
                    counts[i + 1, j] += np.int32(n1)
                    counts[i + 2, j] += np.int32(n2)
                    counts[i + 3, j] += np.int32(n3)

    return compiled(count)


@cache
def block_kernel(planes: int, blocks: int) -> Kernel:
    """The kernel that counts differing examples of all pairs, block by block.

    Args:
        planes: bits of a code.
        blocks: of examples; word w * blocks + b belongs to block b, so that one vector
            instruction works on several blocks and nothing is summed across its lanes.

    Returns:
        A function of a and b as for `count_kernel`, and counts (A, B, blocks) int32, to which it
        adds. It holds no interpreter lock.
    """
    step = max(1, WORDS_AT_ONCE // (planes * blocks)) * blocks

    def count(a, b, counts):  # type: ignore[no-untyped-def]
        words = a.shape[2]
        for start in range(0, words, step):
            stop = min(start + step, words)
            # Two rows: with more loads and stores, LLVM gives up to prove them independent.
            for i in range(0, a.shape[0], 2):
                for j in range(b.shape[0]):
                    for first in range(start, stop, blocks):
                        for k in range(blocks):
                            w = np.uint64(first) + np.uint64(k)
                            d0 = d1 = np.uint64(0)
                            for p in range(planes):
                                word = b[j, p, w]
                                d0 |= a[i, p, w] ^ word
                                d1 |= a[i + 1, p, w] ^ word
                            counts[i, j, k] += np.int32(popcount(d0))
                            counts[i + 1, j, k] += np.int32(popcount(d1))

    return compiled(count)


def compiled(function: Callable[..., None]) -> Kernel:
    """A loop without interpreter lock, kept in numba's cache where there is one."""
    try:
        kernel: Kernel = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to write a cache: this process compiles for itself
        kernel = njit(nogil=True)(function)
    return kernel
