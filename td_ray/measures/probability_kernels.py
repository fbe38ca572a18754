"""Compiled loops over predicted probabilities; imported when they are compared."""

from __future__ import annotations

import numpy as np

from td_ray.measures.bit_kernels import Kernel, compiled


def _count(p, q, truth, block, counts):  # type: ignore[no-untyped-def]
    heads, n, classes = p.shape
    for i in range(heads):
        for j in range(q.shape[0]):
            for k in range(n):
                best, place = np.float64(-1.0), 0
                for c in range(classes):
                    both = np.float64(p[i, k, c]) + np.float64(q[j, k, c])
                    if both > best:
                        best, place = both, c
                if place == truth[k]:
                    counts[i, j, block[k]] += 1


ensemble_kernel: Kernel = compiled(_count)
"""Adds to counts (A, B, blocks) int32 the examples whose largest mean of probabilities p (A, n, C)
and q (B, n, C) is of the true class; of equal ones the first counts, as in every argmax. `block`
(n,) says which block an example is in."""
