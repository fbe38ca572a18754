"""Limited-memory BFGS for a stack of independent convex problems.

All problems advance together, each with its own history and step length; finished ones leave. The
two-loop recursion is that of Nocedal (1980); Nocedal and Wright, "Numerical Optimization",
algorithm 7.4. The line search looks for the zero of the derivative along the direction, never at
the loss: near the optimum rounding hides that the loss falls, but not that the slope changes sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from td_ray.heads.curvature import Curvature

HISTORY = 10
MAX_TRIALS = 20
# A step is too long when the slope at its end is steeper uphill than this share of the descent.
OVERSHOOT = 0.5
SHRINK = 0.1


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

    def put(self, problems: Tensor, other: Evaluation) -> None:
        """Replace what is known of some problems."""
        self.gradient[problems], self.peak[problems] = other.gradient, other.peak
        if self.curvature is not None and other.curvature is not None:
            self.curvature.put(problems, other.curvature)


class Objective(Protocol):
    """A stack of K convex problems over points (K, C, p), moved along directions (K, C, q)."""

    def evaluate(self, points: Tensor, problems: Tensor, *, with_curvature: bool) -> Evaluation:
        """The problems with these numbers (k,), each at its own point (k, C, p)."""

    def move(self, directions: Tensor) -> Tensor:
        """The changes (k, C, p) of points along directions (k, C, q); linear."""


def dot(left: Tensor, right: Tensor) -> Tensor:
    """(k,) inner products of two stacks of shape (k, ...)."""
    product: Tensor = torch.linalg.vecdot(left.flatten(1), right.flatten(1))
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
        self._steps = like.new_empty(HISTORY, *like.shape)
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
        inverse = torch.where(product > 0, 1 / product, 0.0)
        place = self._count % HISTORY
        # 1 / product overflows for pairs made of rounding errors alone.
        self._inverses[place] = torch.where(inverse.isfinite(), inverse, 0.0)
        self._steps[place], self._changes[place] = step, change
        self._count += 1

    def direction(self, gradient: Tensor, curvature: Curvature) -> Tensor:
        """Descent directions for gradients (k, C, q).

        The curvature stands in for what the pairs do not tell.
        """
        ahead, shares = -gradient, {}
        oldest = max(0, self._count - HISTORY)
        places = [number % HISTORY for number in range(oldest, self._count)]
        for place in reversed(places):
            shares[place] = self._inverses[place] * dot(self._steps[place], ahead)
            ahead.addcmul_(spread(shares[place]), self._changes[place], value=-1)
        ahead = curvature.solve(ahead)
        if places:
            ahead *= spread(self._scale(places[-1], curvature))
        for place in places:
            share = shares[place] - self._inverses[place] * dot(self._changes[place], ahead)
            ahead.addcmul_(spread(share), self._steps[place])
        downhill = dot(ahead, gradient) < 0
        if bool(downhill.all()):
            return ahead
        return torch.where(spread(downhill), ahead, -curvature.solve(gradient))

    def _scale(self, place: int, curvature: Curvature) -> Tensor:
        """(k,) factors that fit the curvature to a pair (Nocedal and Wright, 7.20)."""
        inverse, change = self._inverses[place], self._changes[place]
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
    here, curvature = _first(objective, start, problems, counts)
    point, history, iteration = start, History(here.gradient), 0
    best, since = torch.full_like(tolerance, torch.inf), torch.zeros_like(counts)
    while True:
        reached, halved = here.peak <= tolerance, here.peak <= best / 2
        best, since = torch.where(halved, here.peak, best), torch.where(halved, iteration, since)
        solution[problems[reached | halved]] = point[reached | halved]
        stop = reached | ~here.peak.isfinite()
        stop |= (iteration - since >= patience) | (counts[problems] >= limit)
        if bool(stop.any()):
            go = ~stop
            problems, point, tolerance = problems[go], point[go], tolerance[go]
            best, since, gradient = best[go], since[go], here.gradient[go]
            curvature = curvature.keep(go)
            history.keep(go)
        else:
            gradient = here.gradient
        if not len(problems):
            return solution, counts
        iteration += 1
        direction = history.direction(gradient, curvature)
        refresh = iteration & (iteration - 1) == 0  # at 1, 2, 4, 8, ...
        line = _Line(objective, problems, point, direction, objective.move(direction), counts)
        step, here = line.search(dot(gradient, direction), refresh)
        point = point + spread(step) * line.change
        history.extend(spread(step) * direction, here.gradient - gradient)
        if here.curvature is not None:
            curvature = here.curvature


def _first(
    objective: Objective, start: Tensor, problems: Tensor, counts: Tensor
) -> tuple[Evaluation, Curvature]:
    counts += 1
    here = objective.evaluate(start, problems, with_curvature=True)
    assert here.curvature is not None
    return here, here.curvature


@dataclass(frozen=True)
class _Line:
    """The points that a stack of problems may step to."""

    objective: Objective
    problems: Tensor  # (k,)
    point: Tensor  # (k, C, p)
    direction: Tensor  # (k, C, q)
    change: Tensor  # (k, C, p) that the direction makes
    counts: Tensor  # (K,), added to at every evaluation

    def search(self, slope: Tensor, with_curvature: bool) -> tuple[Tensor, Evaluation]:
        """Steps (k,) that do not overshoot, and what is there.

        From 1 downwards by the secant rule. A problem without an acceptable step takes the last.
        """
        step = torch.ones_like(slope)
        everyone = torch.ones_like(step, dtype=torch.bool)
        reached = self._evaluate(everyone, step, with_curvature)
        end = dot(reached.gradient, self.direction)
        for _ in range(MAX_TRIALS):
            long = ~(end <= -OVERSHOOT * slope)  # what is not a number is too long as well
            if not bool(long.any()):
                break
            shrink = (slope / (slope - end))[long].nan_to_num(SHRINK).clamp(SHRINK, 1 - SHRINK)
            step[long] *= shrink
            nearer = self._evaluate(long, step, with_curvature)
            reached.put(long, nearer)
            end[long] = dot(nearer.gradient, self.direction[long])
        return step, reached

    def _evaluate(self, chosen: Tensor, step: Tensor, with_curvature: bool) -> Evaluation:
        points = self.point[chosen] + spread(step[chosen]) * self.change[chosen]
        problems = self.problems[chosen]
        self.counts[problems] += 1
        return self.objective.evaluate(points, problems, with_curvature=with_curvature)
