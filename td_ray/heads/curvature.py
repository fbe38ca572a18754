"""What all heads on one feature matrix share: its principal axes.

Boehning (1992) bounds the Hessian of the softmax loss by (class part) x (Gram matrix of the
features). Here the class part is the head's own, sum_i w_i (diag(p_i) - p_i p_i'), a C x C matrix:
the Hessian with the features' part averaged out. In the eigenbasis of both factors

    Hessian  ~  class part (x) Gram matrix  +  l2 I

is diagonal, so one decomposition of the Gram matrix preconditions every head, whatever its
weights, its targets and its penalty; each head adds a C x C decomposition, now and then.

Source: Boehning, "Multinomial logistic regression algorithm", Ann. Inst. Statist. Math. 44 (1992).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from td_ray.heads.rows import Features, blocks
from td_ray.heads.softmax_loss import Stack, block_rows

# Arrays of the size of the axes that are alive while they are computed.
COPIES = 4
# Relative to the largest: eigenvalues of a class part that are smaller may be rounding.
SMALLEST = 1e-4


@dataclass(frozen=True)
class Axes:
    """Orthonormal axes of the centred features, along which heads move.

    A direction (k, C, q + 1) holds changes of the weights along the axes, and of the intercept at
    the features' mean.

    Attributes:
        mean: (d,).
        axes: (d, q); None stands for the columns themselves, q = d.
        variance: (q + 1,) of the features along each axis, and 1 for the intercept.
    """

    mean: Tensor
    axes: Tensor | None
    variance: Tensor

    def move(self, direction: Tensor) -> Tensor:
        """The change (k, C, d + 1) of weight and intercept along directions (k, C, q + 1)."""
        weight = direction[:, :, :-1]
        if self.axes is not None:
            weight = weight @ self.axes.T
        intercept = direction[:, :, -1] - weight @ self.mean
        return torch.cat([weight, intercept[:, :, None]], 2)

    def inside(self, points: Tensor) -> Tensor:
        """Points (k, C, d + 1) less what no axis reaches, and what no row sees, when n < d."""
        weight, mean = points[:, :, :-1], points[:, :, :-1] @ self.mean + points[:, :, -1]
        along = weight if self.axes is None else weight @ self.axes
        return self.move(torch.cat([along, mean[:, :, None]], 2))

    def gradient(self, weight: Tensor, intercept: Tensor) -> Tensor:
        """The gradient (k, C, q + 1) in these coordinates; `move` transposed."""
        along = weight - intercept[:, :, None] * self.mean
        if self.axes is not None:
            along = along @ self.axes
        return torch.cat([along, intercept[:, :, None]], 2)


def principal_axes(features: Features, dtype: torch.dtype, memory_bytes: int) -> Axes:
    """The principal axes of the centred features, from the smaller of its two Gram matrices.

    Where they do not fit in `memory_bytes`, the columns stand in for them: heads then take more
    iterations to the same optimum.
    """
    rows, width = features.shape
    sums = [
        block.to(torch.float64).sum(0)
        for _, block in blocks(features, block_rows(features.shape[1]))
    ]
    mean = (torch.stack(sums).sum(0) / rows).to(dtype)
    if COPIES * width * min(rows, width) * mean.element_size() > memory_bytes:
        variance, axes = _column_variances(features, mean), None
    elif rows < width:
        variance, axes = _axes_of_few_rows(features, mean)
    else:
        variance, axes = torch.linalg.eigh(_gram(features, mean))
    return Axes(mean, axes, torch.cat([variance.clamp(min=0), variance.new_ones(1)]))


def _column_variances(features: Features, mean: Tensor) -> Tensor:
    total = torch.zeros_like(mean)
    for _, block in blocks(features, block_rows(features.shape[1])):
        total += (block.to(mean) - mean).square().sum(0)
    return total / len(features)


def _gram(features: Features, mean: Tensor) -> Tensor:
    gram = mean.new_zeros(len(mean), len(mean))
    for _, block in blocks(features, block_rows(features.shape[1])):
        centred = block.to(mean) - mean
        gram.addmm_(centred.T, centred, alpha=1 / len(features))
    return gram


def _axes_of_few_rows(features: Features, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Fewer rows than columns: rotated by a QR, never divided by a small singular value."""
    centred = features[0 : len(features)].to(mean) - mean
    basis = torch.linalg.qr(centred.T)[0]
    inside = centred @ basis
    variance, rotation = torch.linalg.eigh(inside.T @ inside / len(features))
    return variance, basis @ rotation


@dataclass(frozen=True)
class Curvature:
    """An approximate Hessian of k heads, in the coordinates of the axes.

    Attributes:
        turn: (k, C, C) eigenvectors of the class parts, in columns.
        diagonal: (k, C, q + 1) > 0; the Hessian along them and the axes.
        group: (k,) of each head.
        factors: Cholesky factors (C r, C r) of groups whose Hessian along the last r axes is known
            (`leading`); it stands in for the rest there.
    """

    turn: Tensor
    diagonal: Tensor
    group: Tensor
    factors: dict[int, Tensor]

    def keep(self, heads: Tensor) -> Curvature:
        """The same for a subset of the heads."""
        return replace(
            self, turn=self.turn[heads], diagonal=self.diagonal[heads], group=self.group[heads]
        )

    def solve(self, gradient: Tensor) -> Tensor:
        """The inverse times gradients (k, C, q + 1)."""
        solution = self.turn @ ((self.turn.mT @ gradient) / self.diagonal)
        for group, factor in self.factors.items():
            heads = torch.nonzero(self.group == group).squeeze(1)
            if len(heads):
                count = len(factor) // gradient.shape[1]
                leading = gradient[heads, :, -count:]
                solved = torch.cholesky_solve(leading.flatten(1).T, factor).T
                solution[heads, :, -count:] = solved.view_as(leading)
        return solution


def curvature(axes: Axes, classes: Tensor, stack: Stack, factors: dict[int, Tensor]) -> Curvature:
    """The approximation for a stack with class parts (k, C, C), and what `leading` knows.

    A softmax does not move along the common shift of its classes, so its gradient there is rounding
    alone. The shift gets an average curvature, and so do absent classes, lest it be blown up.
    """
    present = (~stack.absent).to(classes.dtype)
    count = present.sum(1)
    level = classes.diagonal(dim1=1, dim2=2).sum(1) / count
    shift = present[:, :, None] * present[:, None, :] / count[:, None, None]
    idle = shift + torch.diag_embed(1 - present)
    strength, turn = torch.linalg.eigh(classes + level[:, None, None] * idle)
    strength = torch.maximum(strength, SMALLEST * strength[:, -1:]).clamp(min=1e-12)
    diagonal = strength[:, :, None] * axes.variance
    diagonal[:, :, :-1] += stack.l2[:, None, None]
    return Curvature(turn, diagonal, stack.group, dict(factors))
