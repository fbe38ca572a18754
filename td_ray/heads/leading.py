"""The Hessian along the leading principal axes, from one head for all that resemble it.

`curvature` averages the features' part of the Hessian over the rows. Real features separate most
rows: those have next to no curvature, and the average misleads. But few axes carry most of the
features' variance, and along these the Hessian of one head,

    H = sum_i w_i (diag(p_i) - p_i p_i') (x) z_i z_i'  +  l2 I,

is affordable as it is; z_i holds the coordinates of row i along these axes, and 1 for the
intercept. It serves all heads with the same target and penalty, such as the halves of a training
split: their own differ little from it there.
"""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from td_ray.heads.rows import Features, blocks
from td_ray.heads.softmax_loss import Stack, block_rows

# A block costs as much as so many iterations of the heads that it serves.
ITERATIONS = 1.0
# Outputs times axes: the side of a block. Fewer axes than the least tell nothing.
LARGEST_SIDE = 1024
LEAST_AXES = 4
# Refreshes before the first block (evaluations 1, 2 and 4): the optimum is far, a block misleads.
EARLY = 3
# Relative to the largest entry of the diagonal: what rounding may make of a zero.
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-14}


def leading_axes(heads: int, classes: int, width: int) -> int:
    """How many axes, the intercept among them, a block for that many heads may have.

    A block costs 2 n (C r)^2 operations, an iteration 4 n d C per head.
    """
    affordable = math.isqrt(int(ITERATIONS * 2 * width * heads / classes))
    return min(affordable, LARGEST_SIDE // classes, width + 1)


class LeadingBlocks:
    """The blocks of a call, by groups of heads with the same target, penalty and absent classes.

    The first head of a group that comes along leads it: its block, renewed as it advances, is that
    of the group, and stays when it has left.

    Attributes:
        factors: of each group that has a block, its lower Cholesky factor (C r, C r), ordered as a
            flattened (C, r).
    """

    def __init__(self, sizes: dict[int, int]) -> None:
        """For groups with these numbers, of these sizes."""
        self.factors: dict[int, Tensor] = {}
        self._sizes = sizes
        self._leaders: dict[int, int] = {}
        self._refreshes: Counter[int] = Counter()

    def refresh(
        self, features: Features, mean: Tensor, axes: Tensor, stack: Stack, points: Tensor
    ) -> None:
        """Renew the blocks of those groups whose leader is in the stack, at points (k, C, d + 1).

        Args:
            features: (n, d), on which the stack is fitted.
            mean: (d,) that is subtracted from them.
            axes: (d, q) in columns, the leading ones last.
            stack: of k heads.
            points: (k, C, d + 1) weight and intercept.
        """
        pairs = zip(stack.group.tolist(), stack.number.tolist(), strict=True)
        for place, (group, number) in enumerate(pairs):
            if self._leaders.setdefault(group, number) != number:
                continue
            self._refreshes[group] += 1
            count = leading_axes(self._sizes[group], points.shape[1], axes.shape[1])
            if self._refreshes[group] > EARLY and count >= LEAST_AXES:
                head = stack.keep(torch.tensor([place], device=points.device))
                span = axes[:, axes.shape[1] - count + 1 :]
                factor = _factor(features, mean, span, head, points[place])
                if factor is not None:
                    self.factors[group] = factor


def _factor(
    features: Features, mean: Tensor, axes: Tensor, head: Stack, point: Tensor
) -> Tensor | None:
    """The Cholesky factor of a head's Hessian along axes (d, r - 1) and the intercept.

    None where rounding leaves no positive definite one.
    """
    classes, count = len(point), axes.shape[1] + 1
    side = classes * count
    absent = head.absent[0]
    offset = point[:, -1].masked_fill(absent, -torch.inf)
    between = point.new_zeros(side, side)
    for rows, stored in blocks(features, min(block_rows(features.shape[1]), block_rows(side))):
        seen = stored.to(point.dtype)
        probabilities = torch.softmax(seen @ point[:, :-1].T + offset, 1)
        along = torch.cat([(seen - mean) @ axes, seen.new_ones(len(seen), 1)], 1)
        along *= head.weights[0, rows].sqrt()[:, None]
        both = (probabilities[:, :, None] * along[:, None, :]).view(len(seen), side)
        between.addmm_(both.T, both, alpha=-1)
    hessian = between.to(torch.float64).view(classes, count, classes, count)
    # A class's own part is what it shares with all others, since a softmax does not see the common
    # shift of its classes. Computed as p - p p it would be rounding alone where p is close to one.
    every = torch.arange(classes, device=point.device)
    hessian[every, :, every, :] = 0.0
    hessian[every, :, every, :] = -hessian.sum(2)
    _stiffen_shift(hessian, ~absent)
    hessian = hessian.view(side, side)
    diagonal = hessian.diagonal().view(classes, count)
    diagonal[:, :-1] += head.l2
    diagonal += ROUNDING[point.dtype] * float(diagonal.amax())
    factor, failed = torch.linalg.cholesky_ex(hessian)
    return None if bool(failed) else factor.to(point.dtype)


def _stiffen_shift(hessian: Tensor, present: Tensor) -> None:
    """Give the common shift of the present classes (C,) an average curvature; see `curvature`."""
    own = hessian.diagonal(dim1=0, dim2=2).diagonal(dim1=0, dim2=1)  # (C, r)
    level = own.sum(0) / present.sum() ** 2
    pairs = (present[:, None] & present[None, :]).to(level)
    every = torch.arange(len(level), device=level.device)
    hessian[:, every, :, every] += level[:, None, None] * pairs
