"""Disagreement: the share of examples on which two classifiers predict different classes.

    td(h, h') = (1/n) sum_i 1{ h(x_i) != h'(x_i) }

The classification distance of the Transferred Discrepancy (Feng et al., arXiv 2007.12446).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.measures.bit_planes import count_differences, pack


def disagreement(
    codes_a: NDArray[np.integer],
    codes_b: NDArray[np.integer],
    threads: int = 1,
    device: str | None = None,
) -> NDArray[np.float64]:
    """Share of differing columns for every pair of rows.

    Args:
        codes_a: (A, n) predicted classes, from 0; any integer type.
        codes_b: (B, n) predicted classes of other heads for the same n examples. If it is the same
            array, half of the pairs is counted.
        threads: that share the work of the compiled kernel.
        device: "cuda", "mps" or "cpu" counts by matrix products there (`one_hot`); by default the
            compiled kernel counts.

    Returns:
        (A, B) float64 in [0, 1]; the counts are exact.

    Raises:
        InputError: not two matrices of codes over the same, non-empty examples; or a device that is
            unknown or not here.
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
    for name, codes in (("codes_a", codes_a), ("codes_b", codes_b)):
        if codes.size and codes.min() < 0:
            raise InputError(f"{name} holds {codes.min()}; codes of classes start at 0")
    if device is not None:
        from td_ray.measures import one_hot  # with torch, which the compiled kernel does without

        return np.asarray(one_hot.count_differences(codes_a, codes_b, device) / examples)
    a = pack(codes_a)
    b = a if codes_b is codes_a else pack(codes_b)
    return np.asarray(count_differences(a, b, threads) / examples)
