"""The regression distance of the Transferred Discrepancy (Feng et al., arXiv 2007.12446).

For predictions u, v of two heads on n examples, all centred by the training mean of the target:

    cosine   || u/||u|| - v/||v|| ||^2 = 2 - 2 cos(u, v)          in [0, 4]; 2 for independent ones
    mean     ||u - v||^2 / ( (||u||^2 + ||v||^2) / 2 )            in [0, 4]; 2 for independent ones
    none     ||u - v||^2 / n                                      in [0, inf); target units squared

All are functions of sums over examples: the squared gap ||u - v||^2 and the sizes ||u||^2, ||v||^2.
For `cosine` the rows have length one to begin with, but not when some examples are left out:

    2 - 2 cos(u, v) = ( ||u - v||^2 - ( ||u|| - ||v|| )^2 ) / ( ||u|| ||v|| )
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from td_ray.errors import InputError
from td_ray.measures import counts
from td_ray.measures.directions import Values, has_direction
from td_ray.measures.outputs import Examples, Outputs, one_block
from td_ray.measures.sums import Statistic, Sums, evaluate, summed
from td_ray.registry import closest

__all__ = ["DISTANCES", "STATISTICS", "VALUES", "has_direction", "value_distance"]

DISTANCES = ("cosine", "mean", "none")
# Below this share of the squared norms, ||u||^2 + ||v||^2 - 2 u.v has lost six digits or more.
CANCELS = 1e-6
PAIRS_AT_ONCE = 32


def value_distance(values_a: Values, values_b: Values, kind: str = "cosine") -> Values:
    """Distance of every pair of rows of centred predictions.

    Args:
        values_a: (A, n) predictions, each less the training mean of the target.
        values_b: (B, n) predictions of other heads for the same n examples.
        kind: "cosine", "mean" or "none".

    Returns:
        (A, B) float64. NaN where a row is not finite; for `cosine`, where either row has no
        direction (see `has_direction`); for `mean`, where neither has one.

    Raises:
        InputError: unknown kind, or not two matrices over the same, non-empty examples.
    """
    if kind not in DISTANCES:
        raise InputError(f"unknown regression distance '{kind}': {closest(kind, DISTANCES)}")
    if values_a.ndim != 2 or values_b.ndim != 2 or values_a.shape[1] != values_b.shape[1]:
        raise InputError(
            "predictions must be matrices (heads, examples) over the same examples, "
            f"not {values_a.shape} and {values_b.shape}"
        )
    if values_a.shape[1] == 0:
        raise InputError("predictions must cover at least one example")
    examples = Examples(one_block(values_a.shape[1]))
    a, b = Outputs(values_a, examples), Outputs(values_b, examples)
    return evaluate(STATISTICS[kind], VALUES[kind], a, b)


def _cosine(gap: Values, size_a: Values, size_b: Values) -> Values:
    lengths = np.sqrt(size_a), np.sqrt(size_b)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (gap - np.square(lengths[0] - lengths[1])) / (lengths[0] * lengths[1])
    return np.where(np.isfinite(found), np.clip(found, 0.0, 4.0), np.nan)


def _mean(gap: Values, size_a: Values, size_b: Values) -> Values:
    size = (size_a + size_b) / 2
    return np.asarray(np.minimum(gap / np.where(size > 0, size, 1.0), 4.0))


def _none(gap: Values, n: Values) -> Values:
    return np.asarray(gap / n)


def _rows(outputs: Outputs, kind: str) -> Values:
    """(H, n) what is compared, block by block."""
    return outputs.directions if kind == "cosine" else outputs.values


def _gap(a: Outputs, b: Outputs, kind: str) -> Sums:
    """Squared distances: one matrix product for each block, and pair by pair where it cancels."""
    rows_a, rows_b = _rows(a, kind), _rows(b, kind)
    sizes_a, sizes_b = _squares(a, kind), _squares(b, kind)
    gap = sizes_a[:, None] + sizes_b[None]
    small = CANCELS * gap.sum(axis=2)
    for number, block in enumerate(_slices(a)):
        gap[..., number] -= 2 * (rows_a[:, block] @ rows_b[:, block].T)
    left, right = np.nonzero(gap.sum(axis=2) < small)
    for start in range(0, len(left), PAIRS_AT_ONCE):
        i, j = (each[start : start + PAIRS_AT_ONCE] for each in (left, right))
        exact = np.square(rows_a[i] - rows_b[j])
        gap[i, j] = np.stack([exact[:, block].sum(axis=1) for block in _slices(a)], axis=1)
    gap[~_valid(a, b, kind)] = np.nan
    return summed(gap)


def _valid(a: Outputs, b: Outputs, kind: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """(A, B) which pairs can be compared."""
    finite = a.finite[:, None] & b.finite[None]
    if kind == "cosine":
        return finite & a.directed[:, None] & b.directed[None]
    return finite & (a.directed[:, None] | b.directed[None]) if kind == "mean" else finite


def _size_a(a: Outputs, b: Outputs, kind: str) -> Sums:
    return summed(_squares(a, kind)[:, None])


def _size_b(a: Outputs, b: Outputs, kind: str) -> Sums:
    return summed(_squares(b, kind)[None])


def _squares(outputs: Outputs, kind: str) -> Values:
    """(H, blocks) squared lengths."""
    rows = _rows(outputs, kind)
    blocks = (rows[:, block] for block in _slices(outputs))
    return np.stack([np.einsum("hn,hn->h", block, block) for block in blocks], axis=1)


def _slices(outputs: Outputs) -> list[slice]:
    ends = np.cumsum(outputs.examples.blocks.sizes).tolist()
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


VALUES: dict[str, Callable[..., Values]] = {"cosine": _cosine, "mean": _mean, "none": _none}
STATISTICS: dict[str, tuple[Statistic, ...]] = {
    "cosine": tuple(partial(each, kind="cosine") for each in (_gap, _size_a, _size_b)),
    "mean": tuple(partial(each, kind="mean") for each in (_gap, _size_a, _size_b)),
    "none": (partial(_gap, kind="none"), counts.examples),
}
