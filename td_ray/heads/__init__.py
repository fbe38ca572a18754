"""Heads: the best linear predictor on one representation. Tensors in, tensors out.

`fit_heads` fits K heads at once, one per vector of sample weights (the full training split,
halves), all with one penalty, given or chosen from a grid. Kinds of head by name: `logistic`,
`ridge`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from td_ray.errors import InputError
from td_ray.heads.kinds import ClassTarget, RawHeads, Target, ValueTarget, find_head_kind, head_kind
from td_ray.heads.penalty import Penalty, choose_penalty, require_convergence
from td_ray.heads.scaling import SCALINGS, Scaling, fit_scaling

__all__ = [
    "SCALINGS",
    "ClassTarget",
    "FittedHeads",
    "Scaling",
    "Target",
    "ValueTarget",
    "fit_heads",
    "fit_scaling",
    "head_kind",
]

# Predictions are made over blocks of rows, so that the scores of one block stay below this.
BLOCK_BYTES = 256 * 2**20


@dataclass(frozen=True)
class FittedHeads:
    """K converged heads with c scores each (C classes, or one value) on d features; float64.

    Attributes:
        weight: (K, c, d).
        intercept: (K, c); -inf for a class without training weight, which is never predicted.
        penalty: l2, the same for all heads.
        penalty_source: "fixed" or "grid".
        penalty_at_edge: chosen at the end of a grid of two or more.
        loss: (K,) penalised training loss.
        gradient_norm: (K,) max |gradient| of that loss.
        iterations: (K,) int64; zero for direct solvers.
        present: (K, C) bool classes with training weight; None for values.
    """

    weight: Tensor
    intercept: Tensor
    penalty: float
    penalty_source: str
    penalty_at_edge: bool
    loss: Tensor
    gradient_norm: Tensor
    iterations: Tensor
    present: Tensor | None

    def scores(self, features: Tensor) -> Tensor:
        """(K, n, c) float64 scores of scaled features (n, d): log odds up to a constant, or values.

        Raises:
            InputError: the features have another width than the training features.
        """
        if features.ndim != 2 or features.shape[1] != self.weight.shape[2]:
            raise InputError(
                f"the heads were fitted on {self.weight.shape[2]} features per row; "
                f"they cannot score {tuple(features.shape)}"
            )
        features = features.to(torch.float64)
        return (self.weight @ features.T + self.intercept[:, :, None]).mT

    def predict(self, features: Tensor) -> Tensor:
        """(K, n) predictions for scaled features (n, d): int64 class codes, or float64 values.

        Raises:
            InputError: as for `scores`.
        """
        rows = max(1, BLOCK_BYTES // (8 * self.intercept.numel()))
        blocks = [self.scores(block) for block in torch.split(features, rows)]
        if self.present is None:
            return torch.cat([block.squeeze(2) for block in blocks], 1)
        return torch.cat([block.argmax(2) for block in blocks], 1)


def fit_heads(
    kind: str,
    features: Tensor,
    target: Target,
    weights: Tensor,
    l2: float | Sequence[float],
    validation: Tensor | None = None,
    *,
    memory_bytes: int = 2 * 2**30,
) -> FittedHeads:
    """Fit K heads on one representation, all with the same penalty.

    Args:
        kind: "logistic" (class labels) or "ridge" (class labels or values), or a registered name.
        features: (n, d) scaled training features.
        target: n labels or values.
        weights: (K, n) sample weights >= 0, one row per head.
        l2: the penalty, or a grid from which one is chosen on the validation rows.
        validation: (n,) bool; used for a grid only. The heads are fitted on all rows with weight.
        memory_bytes: bound on the temporaries that grow with the number of heads.

    Returns:
        The heads, on the features' device.

    Raises:
        InputError: bad arguments, unknown kind, or a target that the kind does not take.
        WorkError: a head did not converge.
    """
    head = find_head_kind(kind, target)
    if len(target) != len(features):
        raise InputError(f"the target has {len(target)} rows but the features have {len(features)}")
    grid = [float(value) for value in l2] if isinstance(l2, Sequence) else [float(l2)]
    if not all(math.isfinite(x) and (x > 0 or (head.zero_penalty and x == 0)) for x in grid):
        least = ">= 0" if head.zero_penalty else "> 0"
        raise InputError(f'l2 of head "{kind}" must be finite and {least}, not {l2}')
    if isinstance(l2, Sequence):
        penalty = choose_penalty(kind, head, features, target, grid, validation, memory_bytes)
    else:
        penalty = Penalty(grid[0], "fixed", False)
    raw: RawHeads = head.fit(features, target, weights, [penalty.value], memory_bytes)
    require_convergence(kind, raw, [penalty.value])
    return FittedHeads(
        weight=raw.weight,
        intercept=raw.intercept,
        penalty=penalty.value,
        penalty_source=penalty.source,
        penalty_at_edge=penalty.at_edge,
        loss=raw.loss,
        gradient_norm=raw.gradient_norm,
        iterations=raw.iterations,
        present=raw.present,
    )
