"""Exact ridge regression: many weights, penalties and targets on one matrix, in float64.

For every weight vector w (normalised to sum to one), penalty l2 and target y, this minimises

    f(v, b) = sum_i w_i (v . x_i + b - y_i)^2  +  l2 ||v||^2,        b not penalised

With X and y centred by their weighted means and rows multiplied by sqrt(w_i), the solution is

    v = (X'X + l2 I)^-1 X'y = X' (XX' + l2 I)^-1 y

so one eigendecomposition per weight vector, of the smaller of the two Gram matrices, serves every
penalty and every target. The features are read in blocks: once for the means, once for the Gram
matrix, and, where XX' is the smaller, once more to go from its coordinates to X's.

Axes whose variance is below rounding (the larger side times 2.2e-16 of the largest) count as null
unless the penalty is above it: l2 = 0 gives the least-squares solution of smallest norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from td_ray.errors import InputError
from td_ray.heads.rows import Features, blocks, gather
from td_ray.memory import default_memory


@dataclass(frozen=True)
class RidgeHeads:
    """Heads for K weight vectors, P penalties and m targets on d features; float64.

    Attributes:
        weight: (K, P, m, d).
        intercept: (K, P, m).
        loss: (K, P, m) penalised weighted mean squared error, to rounding of the target's variance.
        gradient_norm: (K, P, m) max |gradient| of that loss over weight and intercept, recomputed
            from the solution; rounding is all that is left in it.
    """

    weight: Tensor
    intercept: Tensor
    loss: Tensor
    gradient_norm: Tensor


def fit_ridge(
    features: Features,
    targets: Tensor,
    weights: Tensor,
    l2: Tensor,
    *,
    memory_bytes: int | None = None,
) -> RidgeHeads:
    """Fit ridge regressions exactly.

    Args:
        features: (n, d) floating point, already scaled, in memory or streamed.
        targets: (n, m) floating point.
        weights: (K, n) sample weights >= 0; each row is normalised to sum to one.
        l2: (P,) penalties >= 0; zero means least squares of smallest norm.
        memory_bytes: bound on the temporaries, beside features and heads; by default
            `td_ray.memory.default_memory()`. The least that is needed is one block of rows and, for
            s the smaller of d and the rows with weight, four (s, s) and three (s, m) matrices.

    Returns:
        The heads, on the features' device. A target that is constant over the rows with weight is
        predicted by exactly that constant.

    Raises:
        InputError: shapes, values or types are wrong.
    """
    memory = default_memory() if memory_bytes is None else memory_bytes
    _check(features, targets, weights, l2)
    width, count = features.shape[1], targets.shape[1]
    size = max(1, memory // 16 // (8 * width))
    _check_finite(features, size)
    penalties = l2.to(features.device, torch.float64)
    shape = (len(weights), len(l2), count)
    weight = torch.empty(*shape, width, dtype=torch.float64, device=features.device)
    heads = RidgeHeads(weight, *(weight.new_empty(shape) for _ in range(3)))
    for number, row in enumerate(weights.to(torch.float64)):
        sample = _Centred(features, targets, row / row.sum(), size)
        fit = _fit_dual if len(sample) < width else _fit_primal
        fit(sample, penalties, memory, _of_weights(heads, number))
        heads.intercept[number] = sample.level - heads.weight[number] @ sample.mean
    return heads


def _check(features: Features, targets: Tensor, weights: Tensor, l2: Tensor) -> None:
    for name, values in (("features", features), ("targets", targets)):
        shape, dtype = tuple(values.shape), values.dtype
        if len(shape) != 2 or 0 in shape or not dtype.is_floating_point:
            raise InputError(
                f"{name} must be a non-empty floating-point matrix with a row per sample, "
                f"not {shape} {dtype}"
            )
    if not bool(torch.isfinite(targets).all()):
        raise InputError("targets contain NaN or infinity; remove or impute these rows")
    rows = len(features)
    if len(targets) != rows:
        raise InputError(f"targets have {len(targets)} rows but features have {rows}")
    if weights.ndim != 2 or 0 in weights.shape or weights.shape[1] != rows:
        raise InputError(f"weights must be (K, {rows}), not {tuple(weights.shape)}")
    finite = bool(torch.isfinite(weights).all())
    if not finite or bool((weights < 0).any()) or bool((weights.sum(1) <= 0).any()):
        raise InputError("weights must be finite and >= 0, with a positive one in every head")
    if l2.ndim != 1 or not len(l2):
        raise InputError(f"l2 must be a non-empty vector of penalties, not {tuple(l2.shape)}")
    if not bool(torch.isfinite(l2).all()) or bool((l2 < 0).any()):
        raise InputError("l2 must be finite and >= 0")


def _check_finite(features: Features, size: int) -> None:
    for _, block in blocks(features, size):
        if not bool(torch.isfinite(torch.stack(torch.aminmax(block))).all()):  # both keep NaN
            raise InputError("features contain NaN or infinity; remove or impute these rows")


class _Centred:
    """The rows with weight of one weight vector, centred and multiplied by sqrt(w), in blocks.

    Attributes:
        mean: (d,) weighted mean of the features.
        level: (m,) weighted mean of the targets.
    """

    def __init__(self, features: Features, targets: Tensor, weights: Tensor, size: int) -> None:
        self._features, self._targets, self._size = features, targets, size
        self._rows = weights.nonzero().squeeze(1)  # a half of the rows costs half as much
        self._weights = weights[self._rows, None]
        # Deviations from a row of the sample keep their precision under a large offset, and are
        # exactly zero in a constant column.
        first = self._rows[:1]
        self._origin = (
            gather(features, first)[0].to(torch.float64),
            targets[first][0].to(torch.float64),
        )
        mean, level = (torch.zeros_like(origin) for origin in self._origin)
        for _, block, columns, weight in self._deviations():
            mean += weight.squeeze(1) @ block
            level += weight.squeeze(1) @ columns
        self._centre = mean, level
        self.mean, self.level = self._origin[0] + mean, self._origin[1] + level

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Which b of the rows; their features (b, d), targets (b, m), and sqrt(w) (b,)."""
        mean, level = self._centre
        for here, block, columns, weight in self._deviations():
            root = weight.sqrt()
            yield here, block.sub_(mean).mul_(root), columns.sub_(level).mul_(root), root.squeeze(1)

    def _deviations(self) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        for here, rows in blocks(self._rows, self._size):
            # New tensors in float64, because the origin is.
            block = gather(self._features, rows) - self._origin[0]
            yield here, block, gather(self._targets, rows) - self._origin[1], self._weights[here]


def _of_weights(heads: RidgeHeads, number: int) -> RidgeHeads:
    """Views of one weight vector's heads, P m of them, targets innermost."""
    parts = (heads.weight, heads.intercept, heads.loss, heads.gradient_norm)
    return RidgeHeads(*(part[number].flatten(0, 1) for part in parts))


class _Normal:
    """The systems (G + l2 I) s = r of all penalties and right sides: one eigendecomposition."""

    def __init__(self, gram: Tensor, right: Tensor, penalties: Tensor, longer: int) -> None:
        """Decompose G (s, s), for right sides (m, s); `longer` is the larger side of X."""
        self._gram, self._right, self._penalties = gram, right, penalties[:, None]
        variance, self._axes = torch.linalg.eigh(gram)
        rounding = variance[-1].clamp(min=0) * longer * torch.finfo(torch.float64).eps
        null = (variance <= rounding) & (self._penalties <= rounding)
        damped = variance.clamp(min=0) + self._penalties
        self._inverse = torch.where(null, 0.0, 1 / damped)
        self._coordinates = right @ self._axes

    def solve(self, heads: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For a run of heads p m + t: t (h,), l2 (h, 1), s (h, s), and G s + l2 s - r (h, s)."""
        count = len(self._right)
        numbers = torch.arange(heads.start, heads.stop, device=self._right.device)
        penalty, target = numbers // count, numbers % count
        l2 = self._penalties[penalty]
        solution = (self._inverse[penalty] * self._coordinates[target]) @ self._axes.T
        rest = (solution @ self._gram).sub_(self._right[target]).addcmul_(l2, solution)
        return target, l2, solution, rest


def _fit_primal(sample: _Centred, penalties: Tensor, memory: int, heads: RidgeHeads) -> None:
    """Fill in the heads of one weight vector from X'X: second moments say all there is to know."""
    width, count = len(sample.mean), len(sample.level)
    gram, cross = heads.weight.new_zeros(width, width), heads.weight.new_zeros(count, width)
    power, drift, target_drift = (
        torch.zeros_like(x) for x in (sample.level, sample.mean, sample.level)
    )
    for _, block, columns, root in sample:
        gram.addmm_(block.T, block)
        cross.addmm_(columns.T, block)
        power += columns.square().sum(0)
        drift += root @ block  # zero but for rounding, like the next
        target_drift += root @ columns
    system = _Normal(gram, cross, penalties, max(len(sample), width))
    for chunk in _chunks(heads, memory, 6 * width):
        target, _, weight, slope = system.solve(chunk)
        heads.weight[chunk] = weight
        heads.loss[chunk] = power[target] + (weight * (slope - cross[target])).sum(1)
        _record_gradient(heads, chunk, slope, weight @ drift - target_drift[target], sample.mean)
    heads.loss.clamp_(min=0)  # a perfect fit may come out below by rounding


def _fit_dual(sample: _Centred, penalties: Tensor, memory: int, heads: RidgeHeads) -> None:
    """Fill in the heads of one weight vector from XX', whose solutions X' takes to the weights."""
    rows, width, count = len(sample), len(sample.mean), len(sample.level)
    gram, right = heads.weight.new_empty(rows, rows), heads.weight.new_empty(count, rows)
    roots = heads.weight.new_empty(rows)
    for number, (here, block, columns, root) in enumerate(sample):
        right[:, here], roots[here] = columns.T, root
        gram[here, here] = block @ block.T
        for there, other, *_ in islice(sample, number):
            gram[here, there] = block @ other.T
            gram[there, here] = gram[here, there].T
    system = _Normal(gram, right, penalties, width)
    for chunk in _chunks(heads, memory, 6 * rows + 2 * width):
        _, l2, solution, rest = system.solve(chunk)
        weight, slope = heads.weight[chunk].zero_(), torch.zeros_like(heads.weight[chunk])
        for here, block, *_ in sample:
            weight.addmm_(solution[:, here], block)
            slope.addmm_(rest[:, here], block)
        residual = rest.addcmul_(l2, solution, value=-1)
        heads.loss[chunk] = residual.square().sum(1) + l2.squeeze(1) * weight.square().sum(1)
        _record_gradient(heads, chunk, slope, residual @ roots, sample.mean)


def _chunks(heads: RidgeHeads, memory: int, values_per_head: int) -> Iterator[slice]:
    """Runs of heads whose float64 temporaries fill a quarter of the memory; one head at least."""
    count, size = len(heads.loss), max(1, memory // 4 // (8 * values_per_head))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _record_gradient(
    heads: RidgeHeads, chunk: slice, slope: Tensor, offset: Tensor, mean: Tensor
) -> None:
    """From half the gradients in centred coordinates (h, d), which are overwritten, and (h,)."""
    # In the given coordinates the intercept's gradient moves along the mean as well.
    slope = slope.addr_(offset, mean).abs_().amax(1)
    heads.gradient_norm[chunk] = 2 * torch.maximum(slope, offset.abs())
