"""Label codes as bit planes, and exact counts of the examples on which rows of codes differ.

Plane p of a row holds bit p of each of its codes, 64 examples to a word. Two codes differ where any
of their bits does:

    differs(a, b) = popcount( (a_0 ^ b_0) | (a_1 ^ b_1) | ... )

so a pair of rows takes ceil(log2 C) operations for 64 examples, and not 64 comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD = 64
# Rows of either side that are compared at once: with 10,000 examples of 100 classes, one megabyte.
ROWS_AT_ONCE = 64

Planes = NDArray[np.uint64]


def pack(codes: NDArray[np.integer]) -> Planes:
    """(rows, planes, words) bits of non-negative codes (rows, n); bits behind the last are zero."""
    rows, n = codes.shape
    planes = max(1, int(codes.max()).bit_length()) if codes.size else 1
    packed = np.zeros((rows, planes, 8 * -(-n // WORD)), dtype=np.uint8)
    for first in range(0, rows, ROWS_AT_ONCE):
        here = slice(first, first + ROWS_AT_ONCE)
        for plane in range(planes):
            if plane % 8 == 0:  # numpy packs bytes several times faster than wider integers
                octet = (codes[here] >> plane).astype(np.uint8)
            bits = np.packbits(octet & np.uint8(1 << plane % 8), axis=1, bitorder="little")
            packed[here, plane, : bits.shape[1]] = bits
    return packed.view(np.uint64)


def count_differences(a: Planes, b: Planes, threads: int = 1) -> NDArray[np.int32]:
    """Examples on which rows differ, for every pair.

    Args:
        a: (A, planes, words), from `pack`.
        b: (B, planes, words) for the same examples; if it is `a`, half of the pairs is counted.
        threads: that share the work.

    Returns:
        (A, B) exact counts.
    """
    from td_ray.measures.bit_kernels import count_kernel

    return _all_pairs(a, b, count_kernel(_planes(a, b)), (), threads)


def count_block_differences(
    a: Planes, b: Planes, blocks: int, threads: int = 1
) -> NDArray[np.int32]:
    """Examples of each block on which rows differ, for every pair; their sum is the whole's.

    Args:
        a: (A, planes, words), from `pack` of codes that `ExampleBlocks.deal` put in place.
        b: (B, planes, words) of the same blocks; if it is `a`, half of the pairs is counted.
        blocks: how many there are.
        threads: that share the work.

    Returns:
        (A, B, blocks) exact counts.

    Raises:
        ValueError: the words are not those of so many blocks.
    """
    from td_ray.measures.bit_kernels import block_kernel

    if blocks == 1:
        return count_differences(a, b, threads)[..., None]
    if a.shape[2] % blocks or a.shape[2] != b.shape[2]:
        raise ValueError(f"{a.shape[2]} and {b.shape[2]} words are not those of {blocks} blocks")
    return _all_pairs(a, b, block_kernel(_planes(a, b), blocks), (blocks,), threads)


def _planes(a: Planes, b: Planes) -> int:
    return int(max(a.shape[1], b.shape[1]))


def _all_pairs(
    a: Planes, b: Planes, kernel: Callable[..., None], inner: tuple[int, ...], threads: int
) -> NDArray[np.int32]:
    """(A, B, *inner) counts by a kernel, tile by tile."""
    from td_ray.measures.bit_kernels import ROWS_TOGETHER

    is_same, height, width, planes = a is b, len(a), len(b), _planes(a, b)
    a = _padded(a, -(-height // ROWS_TOGETHER) * ROWS_TOGETHER, planes)
    b = a[:width] if is_same else _padded(b, width, planes)
    counts = np.zeros((len(a), width, *inner), dtype=np.int32)

    def fill(tile: tuple[slice, slice]) -> None:
        rows, columns = tile
        found = np.zeros((len(a[rows]), len(b[columns]), *inner), dtype=np.int32)
        kernel(a[rows], b[columns], found)
        counts[rows, columns] = found
        if is_same:
            mirrored = np.swapaxes(found[: height - rows.start], 0, 1)
            counts[columns, rows] = mirrored[:, : width - rows.start]

    tiles = list(_tiles(len(a), width, is_same=is_same))
    if threads == 1 or len(tiles) == 1:
        for tile in tiles:
            fill(tile)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, tiles))
    return counts[:height]


def _tiles(height: int, width: int, *, is_same: bool) -> Iterator[tuple[slice, slice]]:
    for top in range(0, height, ROWS_AT_ONCE):
        for left in range(top if is_same else 0, width, ROWS_AT_ONCE):
            rows = slice(top, min(top + ROWS_AT_ONCE, height))
            yield rows, slice(left, min(left + ROWS_AT_ONCE, width))


def _padded(packed: Planes, rows: int, planes: int) -> Planes:
    """With empty rows and planes behind, where there are too few."""
    if packed.shape[:2] == (rows, planes):
        return np.ascontiguousarray(packed)
    padded: NDArray[Any] = np.zeros((rows, planes, packed.shape[2]), dtype=np.uint64)
    padded[: len(packed), : packed.shape[1]] = packed
    return padded
