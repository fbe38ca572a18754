"""Search directions of limited-memory BFGS for a stack of independent problems.

Every problem in the stack keeps its own pairs (step, change of gradient); the two-loop recursion
(Nocedal 1980; Nocedal and Wright, "Numerical Optimization", algorithm 7.4) runs on all of them at
once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

HISTORY = 10


def dot(left: Tensor, right: Tensor) -> Tensor:
    """(k,) inner products of two stacks of shape (k, ...)."""
    return torch.einsum("kj,kj->k", left.flatten(1), right.flatten(1))


def spread(factors: Tensor) -> Tensor:
    """(k,) factors as (k, 1, 1), to multiply stacks of matrices."""
    return factors[:, None, None]


@dataclass(frozen=True)
class History:
    """The last pairs of k problems, oldest first; empty at the start.

    Attributes:
        steps: (k, C, q) each; how the point moved.
        changes: (k, C, q) each; how the gradient changed with it.
        inverses: (k,) each; 1 / <step, change>, or zero for a pair that a problem does not use.
    """

    steps: tuple[Tensor, ...] = ()
    changes: tuple[Tensor, ...] = ()
    inverses: tuple[Tensor, ...] = ()

    def keep(self, rows: Tensor) -> History:
        """The same for a subset of the problems."""
        return History(
            tuple(step[rows] for step in self.steps),
            tuple(change[rows] for change in self.changes),
            tuple(inverse[rows] for inverse in self.inverses),
        )

    def extend(self, step: Tensor, change: Tensor) -> History:
        """Add a pair of stacks; a problem whose pair shows no positive curvature skips its own."""
        product = dot(step, change)
        inverse = torch.where(product > 0, 1 / product, 0.0)
        # 1 / product overflows for pairs made of rounding errors alone.
        inverse = torch.where(inverse.isfinite(), inverse, 0.0)
        return History(
            (*self.steps, step)[-HISTORY:],
            (*self.changes, change)[-HISTORY:],
            (*self.inverses, inverse)[-HISTORY:],
        )

    def direction(self, gradient: Tensor, curvature: Tensor) -> Tensor:
        """Descent directions for gradients (k, C, q).

        `curvature` > 0, broadcast against the gradients, is a guess of the Hessian's diagonal that
        stands in for what the pairs do not tell.
        """
        ahead = -gradient
        shares = []
        for step, change, inverse in self._newest_first():
            share = inverse * dot(step, ahead)
            ahead = ahead.addcmul(spread(share), change, value=-1)
            shares.append(share)
        ahead = ahead / curvature
        if self.steps:
            ahead = ahead * spread(self._scale(curvature))
        oldest_first = zip(self.steps, self.changes, self.inverses, reversed(shares), strict=True)
        for step, change, inverse, share in oldest_first:
            ahead = ahead.addcmul(spread(share - inverse * dot(change, ahead)), step)
        downhill = dot(ahead, gradient) < 0
        return torch.where(spread(downhill), ahead, -gradient / curvature)

    def _newest_first(self) -> zip[tuple[Tensor, Tensor, Tensor]]:
        return zip(
            reversed(self.steps), reversed(self.changes), reversed(self.inverses), strict=True
        )

    def _scale(self, curvature: Tensor) -> Tensor:
        """(k,) factors that fit 1 / curvature to the newest pair (Nocedal and Wright, 7.20)."""
        inverse, change = self.inverses[-1], self.changes[-1]
        scale = 1 / (inverse * dot(change, change / curvature))
        return torch.where(scale.isfinite() & (inverse > 0), scale, 1.0)
