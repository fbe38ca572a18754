"""The penalised softmax loss of a stack of heads, and its gradient, in one pass over the rows.

The rows are read in blocks: two matrix products per block serve the whole stack, and what lies
between them stays in the processor's cache. No array of the size (heads, classes, rows) is kept,
so the features may be larger than the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from td_ray.heads.rows import Features, blocks

# Entries of a block's probabilities (heads x classes x rows), so that they stay in cache, and of
# its features (rows x width), so that a streamed block is small beside the rest.
BLOCK_ENTRIES = 2**19
BLOCK_FEATURES = 2**21
LEAST_ROWS = 128


@dataclass(frozen=True)
class Stack:
    """The data of k heads on the same n rows; C classes."""

    codes: Tensor  # (k, n), or (1, n) where all heads have the same
    weights: Tensor  # (k, n), each row sums to one
    l2: Tensor  # (k,)
    absent: Tensor  # (k, C)
    number: Tensor  # (k,) of each head in the call
    group: Tensor  # (k,) the same for heads with the same target, penalty and absent classes

    def keep(self, heads: Tensor) -> Stack:
        """The same for a subset of the heads."""
        codes = self.codes if len(self.codes) == 1 else self.codes[heads]
        others = (self.weights, self.l2, self.absent, self.number, self.group)
        return Stack(codes, *(values[heads] for values in others))

    def on(self, rows: Tensor) -> Stack:
        """The same on some of the rows."""
        return replace(self, codes=self.codes[:, rows], weights=self.weights[:, rows])

    def to(self, dtype: torch.dtype) -> Stack:
        """The same in another precision."""
        return replace(self, weights=self.weights.to(dtype), l2=self.l2.to(dtype))

    def __len__(self) -> int:
        """The number of heads."""
        return len(self.l2)


@dataclass(frozen=True)
class Slope:
    """The gradient of k heads in the coordinates of the given features.

    Attributes:
        weight: (k, C, d), the penalty's part included.
        intercept: (k, C).
        classes: (k, C, C) sum_i w_i (diag(p_i) - p_i p_i'), the class part of the Hessian; None
            unless asked for.
    """

    weight: Tensor
    intercept: Tensor
    classes: Tensor | None

    @property
    def peak(self) -> Tensor:
        """(k,) the largest absolute entry."""
        return torch.maximum(self.weight.abs().amax((1, 2)), self.intercept.abs().amax(1))


def block_rows(width: int, outputs: int = 1) -> int:
    """How many rows a block has, for that many features and outputs (heads x classes) per row."""
    return min(max(LEAST_ROWS, BLOCK_ENTRIES // outputs), max(1, BLOCK_FEATURES // width))


def slope(
    features: Features,
    stack: Stack,
    weight: Tensor,
    intercept: Tensor,
    *,
    with_classes: bool = False,
) -> Slope:
    """The gradient of the stack's losses at weight (k, C, d) and intercept (k, C).

    Computed in the precision of the weight; the entries of absent classes are zero.
    """
    heads, classes, width = weight.shape
    flat = weight.reshape(heads * classes, width)
    offset = intercept.masked_fill(stack.absent, -torch.inf)[:, :, None]
    product, total = torch.zeros_like(flat), torch.zeros_like(intercept)
    curvature = weight.new_zeros(heads, classes, classes) if with_classes else None
    for rows, stored in blocks(features, block_rows(width, heads * classes)):
        block = stored.to(weight.dtype)
        weights = stack.weights[:, None, rows]
        logits = (flat @ block.T).view(heads, classes, len(block))
        probabilities = torch.softmax(logits.add_(offset), 1)
        residual = probabilities * weights
        if curvature is not None:
            curvature.baddbmm_(residual, probabilities.mT, alpha=-1)
            curvature.diagonal(dim1=1, dim2=2).add_(residual.sum(2))
        labels = stack.codes[:, None, rows].expand(heads, 1, -1)
        residual.scatter_add_(1, labels, -weights)
        total += residual.sum(2)
        product.addmm_(residual.view(heads * classes, -1), block)
    penalty = stack.l2[:, None, None] * weight
    return Slope(product.view_as(weight) + penalty, total, curvature)


def losses(features: Features, stack: Stack, weight: Tensor, intercept: Tensor) -> Tensor:
    """(k,) penalised losses at weight (k, C, d) and intercept (k, C)."""
    heads, classes, width = weight.shape
    flat = weight.reshape(heads * classes, width)
    offset = intercept.masked_fill(stack.absent, -torch.inf)[:, :, None]
    total = stack.l2 / 2 * weight.square().sum((1, 2))
    for rows, stored in blocks(features, block_rows(width, heads * classes)):
        block = stored.to(weight.dtype)
        logits = (flat @ block.T).view(heads, classes, len(block)).add_(offset)
        labels = stack.codes[:, None, rows].expand(heads, 1, -1)
        labelled = logits.gather(1, labels).squeeze(1)
        # A row of a class without weight has weight zero and an infinite loss.
        gap = (logits.logsumexp(1) - labelled).masked_fill(stack.weights[:, rows] == 0, 0.0)
        total = total + (stack.weights[:, rows] * gap).sum(1)
    return total
