"""Disagreement: the share of examples on which two classifiers predict different classes.

    td(h, h') = (1/n) sum_i 1{ h(x_i) != h'(x_i) }

The classification distance of the Transferred Discrepancy (Feng et al., arXiv 2007.12446).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError

# Bytes of comparisons that are held at once; small enough to stay in a core's cache.
BLOCK_BYTES = 2**20


def disagreement(codes_a: NDArray[np.integer], codes_b: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of differing columns for every pair of rows.

    Args:
        codes_a: (A, n) predicted classes; any integer type, compared as it is, without copies.
        codes_b: (B, n) predicted classes of other heads for the same n examples.

    Returns:
        (A, B) float64 in [0, 1]; the counts are exact.

    Raises:
        InputError: not two integer matrices over the same, non-empty examples.
    """
    for name, codes in (("codes_a", codes_a), ("codes_b", codes_b)):
        if codes.ndim != 2 or codes.dtype.kind not in "iu":
            raise InputError(
                f"{name} must be integers (heads, examples), not {codes.shape} {codes.dtype}"
            )
    examples = codes_a.shape[1]
    if examples == 0 or codes_b.shape[1] != examples:
        raise InputError(
            "predictions must cover the same examples, at least one; "
            f"found {examples} and {codes_b.shape[1]}"
        )
    counts = np.zeros((len(codes_a), len(codes_b)), dtype=np.int64)
    heads = max(1, BLOCK_BYTES // examples)
    for first in range(0, len(codes_b), heads):
        block = codes_b[first : first + heads]
        for row, codes in zip(counts, codes_a, strict=True):
            # Row by row: numpy counts a contiguous mask far faster than it sums along an axis.
            differs = block != codes
            row[first : first + heads] = [np.count_nonzero(mask) for mask in differs]
    return np.asarray(counts / examples)
