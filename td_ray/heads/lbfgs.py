"""Limited-memory BFGS for a stack of independent convex problems.

All problems advance together, each with its own history; finished ones leave. The two-loop
recursion is that of Nocedal (1980); Nocedal and Wright, "Numerical Optimization", algorithm 7.4.

There is no line search. Every step has length one, and one that overshoots is not taken; but its
pair is kept, and so the next direction knows the curvature along it. On a convex function any two
points make a pair of positive curvature. Steps are judged by the slope at their end, never by the
loss: near the optimum rounding hides that the loss falls, but not that the slope changes sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import vecdot

from td_ray.heads.curvature import Curvature

HISTORY = 15
# A step overshoots when the slope at its end is steeper uphill than this share of the descent.
OVERSHOOT = 0.5


@dataclass(frozen=True)
class Evaluation:
    """What is known of k problems at a point.

    Attributes:
        gradient: (k, C, q) in the coordinates of the directions.
        peak: (k,) its largest entry, as convergence judges it.
        curvature: None unless asked for.
    """

    gradient: Tensor
    peak: Tensor
    curvature: Curvature | None

    def keep(self, problems: Tensor) -> Evaluation:
        """The same for a subset of the problems, without the curvature."""
        return Evaluation(self.gradient[problems], self.peak[problems], None)

    def advance(self, taken: Tensor, there: Evaluation) -> Evaluation:
        """Without the curvature, when those problems (k,) have moved there whose step is taken."""
        gradient = torch.where(taken[:, None, None], there.gradient, self.gradient)
        return Evaluation(gradient, torch.where(taken, there.peak, self.peak), None)


class Objective(Protocol):
    """A stack of K convex problems over points (K, C, p), moved along directions (K, C, q)."""

    def evaluate(self, points: Tensor, problems: Tensor, *, with_curvature: bool) -> Evaluation:
        """The problems with these numbers (k,), each at its own point (k, C, p)."""

    def move(self, directions: Tensor) -> Tensor:
        """The changes (k, C, p) of points along directions (k, C, q); linear."""


def dot(left: Tensor, right: Tensor) -> Tensor:
    """(k,) inner products of two stacks of shape (k, ...)."""
    product: Tensor = vecdot(left.flatten(1), right.flatten(1))
    return product


def spread(factors: Tensor) -> Tensor:
    """(k,) factors as (k, 1, 1), to multiply stacks of matrices."""
    return factors[:, None, None]


class History:
    """The last pairs (step, change of gradient) of k problems; empty at the start.

    Its arrays are allocated once and written in turn: memory that came and went with every
    iteration was seen to leave holes of several times its size.
    """

    def __init__(self, like: Tensor) -> None:
        """Room for pairs of the shape (k, C, q) of `like`."""
        self._steps = like.new_empty(HISTORY, len(like), like[0].numel())
        self._changes = torch.empty_like(self._steps)
        self._inverses = like.new_zeros(HISTORY, len(like))  # 1 / <step, change>; 0: not used
        self._count = 0

    def keep(self, problems: Tensor) -> None:
        """Drop all but a subset of the problems."""
        self._steps, self._changes = self._steps[:, problems], self._changes[:, problems]
        self._inverses = self._inverses[:, problems]

    def extend(self, step: Tensor, change: Tensor) -> None:
        """Add a pair of stacks; a problem whose pair shows no positive curvature skips its own."""
        product = dot(step, change)
        # 1 / product overflows for pairs made of rounding errors alone.
        usable = (product > 0) & (1 / product).isfinite()
        place = self._count % HISTORY
        self._inverses[place] = torch.where(usable, 1 / product, 0.0)
        self._steps[place] = step.flatten(1)
        # A change may not be finite.
        self._changes[place] = torch.where(spread(usable), change, 0.0).flatten(1)
        self._count += 1

    def direction(self, gradient: Tensor, curvature: Curvature) -> Tensor:
        """Descent directions for gradients (k, C, q).

        The curvature stands in for what the pairs do not tell.
        """
        oldest = max(0, self._count - HISTORY)
        places = [number % HISTORY for number in range(oldest, self._count)]
        pairs = [(self._steps[x], self._changes[x], self._inverses[x]) for x in places]
        ahead, shares = -gradient.flatten(1), []
        for step, change, inverse in reversed(pairs):
            shares.append((inverse * vecdot(step, ahead))[:, None])
            ahead.addcmul_(shares[-1], change, value=-1)
        ahead = curvature.solve(ahead.view_as(gradient)).flatten(1)
        if places:
            ahead *= self._scale(places[-1], gradient, curvature)[:, None]
        for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
            ahead.addcmul_(share - (inverse * vecdot(change, ahead))[:, None], step)
        direction = ahead.view_as(gradient)
        downhill = dot(direction, gradient) < 0
        if bool(downhill.all()):
            return direction
        return torch.where(spread(downhill), direction, -curvature.solve(gradient))

    def _scale(self, place: int, like: Tensor, curvature: Curvature) -> Tensor:
        """(k,) factors that fit the curvature to a pair (Nocedal and Wright, 7.20)."""
        inverse, change = self._inverses[place], self._changes[place].view_as(like)
        scale = 1 / (inverse * dot(change, curvature.solve(change)))
        return torch.where(scale.isfinite() & (inverse > 0), scale, 1.0)


def minimise(
    objective: Objective, start: Tensor, tolerance: Tensor, limit: int, patience: int
) -> tuple[Tensor, Tensor]:
    """Descend from points (K, C, p) until the peak of each is within its tolerance (K,).

    A problem is given up when its peak is not finite or has not halved in `patience` iterations, or
    when it was evaluated `limit` times; it ends where its peak had halved last.

    Returns:
        The points, and how often each problem was evaluated, (K,) int64.
    """
    solution = start.clone()
    counts = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    problems = torch.arange(len(start), device=start.device)
    here = objective.evaluate(start, problems, with_curvature=True)
    point, history, curvature, evaluations = start, History(here.gradient), here.curvature, 1
    assert curvature is not None  # it was asked for
    best, since = torch.full_like(tolerance, torch.inf), torch.zeros_like(counts)
    while True:
        reached, halved = here.peak <= tolerance, here.peak <= best / 2
        best, since = torch.where(halved, here.peak, best), torch.where(halved, evaluations, since)
        solution[problems[reached | halved]] = point[reached | halved]
        stop = reached | ~here.peak.isfinite() | (evaluations - since >= patience)
        if bool(stop.any()) or evaluations >= limit:
            counts[problems[stop]] = evaluations
            go = ~stop
            problems, point, tolerance = problems[go], point[go], tolerance[go]
            best, since, here = best[go], since[go], here.keep(go)
            curvature = curvature.keep(go)
            history.keep(go)
        if not len(problems) or evaluations >= limit:
            counts[problems] = evaluations
            return solution, counts
        direction = history.direction(here.gradient, curvature)
        ahead = point + objective.move(direction)
        refresh = evaluations & (evaluations - 1) == 0  # after 1, 2, 4, 8, ...
        there = objective.evaluate(ahead, problems, with_curvature=refresh)
        evaluations += 1
        history.extend(direction, there.gradient - here.gradient)
        taken = dot(there.gradient, direction) <= -OVERSHOOT * dot(here.gradient, direction)
        point = torch.where(taken[:, None, None], ahead, point)
        here, curvature = here.advance(taken, there), there.curvature or curvature
