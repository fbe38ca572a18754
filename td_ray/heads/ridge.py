"""Exact ridge regression: many weights, penalties and targets on one matrix, in float64.

For every weight vector w (normalised to sum to one), penalty l2 and target y, this minimises

    f(v, b) = sum_i w_i (v . x_i + b - y_i)^2  +  l2 ||v||^2,        b not penalised

With X and y centred by their weighted means and rows multiplied by sqrt(w_i), the solution is

    v = (X'X + l2 I)^-1 X'y = X' (XX' + l2 I)^-1 y

so one eigendecomposition per weight vector, of the smaller of the two Gram matrices, serves every
penalty and every target. l2 = 0 gives the least-squares solution of smallest norm, in which axes
whose variance is below rounding (the larger side times 2.2e-16 of the largest) count as null.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from td_ray.errors import InputError


@dataclass(frozen=True)
class RidgeHeads:
    """Heads for K weight vectors, P penalties and m targets on d features; float64.

    Attributes:
        weight: (K, P, m, d).
        intercept: (K, P, m).
        loss: (K, P, m) penalised weighted mean squared error.
        gradient_norm: (K, P, m) max |gradient| of that loss over weight and intercept, recomputed
            from the solution; rounding is all that is left in it.
    """

    weight: Tensor
    intercept: Tensor
    loss: Tensor
    gradient_norm: Tensor


def fit_ridge(features: Tensor, targets: Tensor, weights: Tensor, l2: Tensor) -> RidgeHeads:
    """Fit ridge regressions exactly.

    Args:
        features: (n, d) floating point, already scaled.
        targets: (n, m) floating point.
        weights: (K, n) sample weights >= 0; each row is normalised to sum to one.
        l2: (P,) penalties >= 0; zero means least squares of smallest norm.

    Returns:
        The heads, on the features' device. A target that is constant over the rows with weight is
        predicted by exactly that constant.

    Raises:
        InputError: shapes, values or types are wrong.
    """
    _check(features, targets, weights, l2)
    features, targets, weights = (x.to(torch.float64) for x in (features, targets, weights))
    heads = [_fit(features, targets, row / row.sum(), l2.to(features)) for row in weights]
    return RidgeHeads(
        weight=torch.stack([head.weight for head in heads]),
        intercept=torch.stack([head.intercept for head in heads]),
        loss=torch.stack([head.loss for head in heads]),
        gradient_norm=torch.stack([head.gradient_norm for head in heads]),
    )


def _check(features: Tensor, targets: Tensor, weights: Tensor, l2: Tensor) -> None:
    for name, values in (("features", features), ("targets", targets)):
        if values.ndim != 2 or 0 in values.shape or not values.is_floating_point():
            raise InputError(
                f"{name} must be a non-empty floating-point matrix with a row per sample, "
                f"not {tuple(values.shape)} {values.dtype}"
            )
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"{name} contain NaN or infinity; remove or impute these rows")
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


def _fit(features: Tensor, targets: Tensor, weights: Tensor, l2: Tensor) -> RidgeHeads:
    """The heads of one weight vector, without the leading K."""
    used = weights > 0  # a half of the rows costs half as much
    features, targets, weights = features[used], targets[used], weights[used, None]
    mean, level = (weights * features).sum(0), (weights * targets).sum(0)
    constant = targets.amax(0) == targets.amin(0)
    level = torch.where(constant, targets[0], level)  # the weighted mean is off by rounding
    rows, columns = weights.sqrt() * (features - mean), weights.sqrt() * (targets - level)
    weight = _solve(rows, columns, l2)
    residual = weight @ rows.T - columns.T
    slope = 2 * (residual @ rows + l2[:, None, None] * weight)
    offset = 2 * (residual @ weights.sqrt()).squeeze(2)
    # In the given coordinates the intercept's gradient moves along the mean as well.
    gradient = slope + offset[:, :, None] * mean
    return RidgeHeads(
        weight=weight,
        intercept=level - weight @ mean,
        loss=residual.square().sum(2) + l2[:, None] * weight.square().sum(2),
        gradient_norm=torch.maximum(gradient.abs().amax(2), offset.abs()),
    )


def _solve(rows: Tensor, columns: Tensor, l2: Tensor) -> Tensor:
    """(P, m, d) solutions for centred rows (n, d) and targets (n, m)."""
    wide = rows.shape[0] < rows.shape[1]
    gram = rows @ rows.T if wide else rows.T @ rows
    variance, axes = torch.linalg.eigh(gram)
    null = variance <= variance[-1] * max(rows.shape) * torch.finfo(torch.float64).eps
    damped = variance.clamp(min=0) + l2[:, None]
    inverse = torch.where(null & (l2[:, None] == 0), 0.0, 1 / damped)
    right = columns if wide else rows.T @ columns
    solution: Tensor = axes @ (inverse[:, :, None] * (axes.T @ right))
    if wide:
        solution = rows.T @ solution
    return solution.transpose(1, 2)
