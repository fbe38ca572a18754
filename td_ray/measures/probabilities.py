"""Statistics of predicted probabilities, some examples at a time, for every pair of heads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from td_ray.measures.outputs import Outputs
from td_ray.measures.sums import Sums, summed

# Probabilities of one head that are worked on at once, and of all pairs of one head with some.
OF_ONE_HEAD, OF_PAIRS = 2**12, 2**16

Floats = NDArray[np.float64]


def jensen_shannon(a: Outputs, b: Outputs) -> Sums:
    """Jensen-Shannon divergences of the examples, in natural units.

    JS(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2 with the entropy H(p) = -sum_c p_c log p_c. In
    float64: for equal p and q it is zero, and small ones keep their digits.
    """
    found = np.zeros((len(a), len(b), a.n_blocks))
    p, q = _probabilities(a), _probabilities(b)
    step = max(1, OF_ONE_HEAD // p.shape[2])
    for number, members in enumerate(a.examples.blocks.members):
        for start in range(0, len(members), step):
            here = members[start : start + step]
            sides = (np.take(each, here, axis=1).astype(np.float64) for each in (p, q))
            found[..., number] += _divergences(*(side.reshape(len(side), -1) for side in sides))
    return summed(found)


def ensemble_right(a: Outputs, b: Outputs) -> Sums:
    """Examples that the mean of both heads' probabilities gets right."""
    from td_ray.measures.probability_kernels import ensemble_kernel

    counts = np.zeros((len(a), len(b), a.n_blocks), dtype=np.int32)
    block, truth = a.examples.blocks.of_example, a.examples.truth
    ensemble_kernel(_probabilities(a), _probabilities(b), truth, block, counts)
    return summed(counts)


def _probabilities(outputs: Outputs) -> NDArray[np.float32]:
    if outputs.probabilities is None:
        raise ValueError("a measure of probabilities needs them")
    return outputs.probabilities


def _divergences(p: Floats, q: Floats) -> Floats:
    """(A, B) sums over examples and classes, from (A, m) and (B, m) probabilities."""
    found = np.empty((len(p), len(q)))
    halves = p / 2, q / 2
    own = _plogp(p).sum(axis=1)[:, None] / 2 + _plogp(q).sum(axis=1)[None] / 2
    together = max(1, OF_PAIRS // p.shape[1])
    for i, half in enumerate(halves[0]):
        for start in range(0, len(q), together):
            columns = slice(start, start + together)
            found[i, columns] = _plogp(half + halves[1][columns]).sum(axis=1)
    return np.asarray(np.maximum(own - found, 0.0))


def _plogp(p: Floats) -> Floats:
    """Return p log p, and 0 for p = 0; what is added is too small to change another p."""
    found = np.log(p + np.finfo(np.float64).tiny)
    found *= p
    return np.asarray(found)
