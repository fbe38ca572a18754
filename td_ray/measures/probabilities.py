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
            one, other = (_some(p, here), None if a is b else _some(q, here))
            found[..., number] += _divergences(one, other)
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


def _some(probabilities: NDArray[np.float32], members: NDArray[np.intp]) -> Floats:
    """(H, m) those of some examples, all classes side by side."""
    some = np.take(probabilities, members, axis=1).astype(np.float64)
    return some.reshape(len(some), -1)


def _divergences(p: Floats, other: Floats | None) -> Floats:
    """(A, B) sums over examples and classes, from (A, m) and (B, m) probabilities.

    Without others the rows of the first are compared with each other, each pair once.
    """
    q = p if other is None else other
    found = np.empty((len(p), len(q)))
    half_p, half_q = p / 2, q / 2
    own = _plogp(p).sum(axis=1)[:, None] / 2 + _plogp(q).sum(axis=1)[None] / 2
    together = max(1, OF_PAIRS // p.shape[1])
    for i, half in enumerate(half_p):
        for start in range(i if other is None else 0, len(q), together):
            columns = slice(start, start + together)
            found[i, columns] = _plogp(half + half_q[columns]).sum(axis=1)
        if other is None:
            found[i:, i] = found[i, i:]
    return np.asarray(np.maximum(own - found, 0.0))


def _plogp(p: Floats) -> Floats:
    """Return p log p, and 0 for p = 0; what is added is too small to change another p."""
    found = np.log(p + np.finfo(np.float64).tiny)
    found *= p
    return np.asarray(found)
