"""Exact multinomial logistic regression: many heads on one feature matrix.

For every head k, with sample weights w (normalised to sum to one) and penalty l2, this minimises

    f(W, b) = sum_i w_i [ log sum_c exp(z_ic) - z_{i, y_i} ]  +  (l2 / 2) ||W||_F^2
    z_i     = W x_i + b

The intercepts b are not penalised and sum to zero over the classes that have weight; a class
without weight is left out of the softmax. The problem is convex and its optimum unique.

How it is solved:

*   All heads advance together by L-BFGS (`lbfgs`), preconditioned by the features' principal axes,
    which they share, and by each head's own class part (`curvature`); along the leading axes by the
    Hessian of the first head with the same target and penalty (`leading`).
*   An iteration is one pass over the rows (`softmax_loss`): two matrix products per block serve
    the whole stack. Converged heads leave it.
*   In float32 first, which is twice as fast. Every head is then judged in float64, by the gradient
    at the weights that are returned, in the coordinates of the given features; those that rounding
    kept from the bound go on in float64 from where they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from td_ray.errors import InputError
from td_ray.heads.curvature import Axes, curvature, principal_axes
from td_ray.heads.lbfgs import HISTORY, Evaluation, minimise
from td_ray.heads.leading import LeadingBlocks
from td_ray.heads.rows import Features, blocks, gather
from td_ray.heads.softmax_loss import LEAST_ROWS, Stack, block_rows, losses, slope
from td_ray.memory import default_memory

# Heads stop well inside the bound that decides `converged`: rounding may double the gradient.
STOP_AT = 1e-3
CONVERGED_AT = 1e-2
MAX_EVALUATIONS = 10_000
# Squares of features, and products of those, must stay well within a precision's range.
LARGEST = {torch.float32: 1e9, torch.float64: 1e75}
# Iterations in which a gradient must halve. Rounding stalls float32, and float64 takes over;
# float64 itself is slow only where the problem is badly conditioned.
PATIENCE = {torch.float32: 20, torch.float64: 1000}
# From so many classes on, a head alone fills a matrix product, and one whose rows with weight are
# fewer than this share is faster on those rows alone: a half of the training split.
MANY_CLASSES = 32
FEW_ROWS = 0.75
# Arrays of a head's size (C, d + 1) that are alive beside its history, and of a block's.
LIVE_POINTS = 20
LIVE_BLOCKS = 4


@dataclass(frozen=True)
class LogisticHeads:
    """K fitted heads over C classes and d features; float64, on the features' device.

    Attributes:
        weight: (K, C, d); zero for absent classes.
        intercept: (K, C); sums to zero over present classes, -inf for absent ones.
        present: (K, C) bool; the classes that have weight in each head's training data.
        loss: (K,) penalised loss at the returned weights.
        gradient_norm: (K,) max |gradient| of that loss over weight and intercept.
        iterations: (K,) int64; how often the gradient was evaluated.
        converged: (K,) bool; gradient_norm <= 1e-2 min(l2, 1e-3).
    """

    weight: Tensor
    intercept: Tensor
    present: Tensor
    loss: Tensor
    gradient_norm: Tensor
    iterations: Tensor
    converged: Tensor


def fit_logistic(
    features: Features,
    codes: Tensor,
    weights: Tensor,
    l2: Tensor,
    n_classes: int,
    *,
    memory_bytes: int | None = None,
) -> LogisticHeads:
    """Fit K multinomial logistic regressions on the same features.

    Args:
        features: (n, d) floating point, already scaled; in memory, or streamed.
        codes: (n,) or (K, n) int64 class codes in [0, n_classes).
        weights: (K, n) sample weights >= 0; each row is normalised to sum to one.
        l2: (K,) penalties > 0.
        n_classes: C, the number of classes of the task.
        memory_bytes: bound on what is needed beside features, codes, weights and the heads
            themselves, by default `td_ray.memory.default_memory()`; heads are fitted in chunks that
            respect it (one head is the least that a chunk can hold).

    Returns:
        The heads. One that did not reach the bound says so in `converged`. The same call gives the
        same bytes with the same number of threads; another stack, chunk, device or number of
        threads moved no log odds by more than 0.02 where it was measured, so that only the
        predictions of near-ties may change.

    Raises:
        InputError: shapes, values or types are wrong, or a head has fewer than two classes with
            weight.
    """
    _check(features, codes, weights, l2, n_classes)
    reach = _reach(features)
    half = (default_memory() if memory_bytes is None else memory_bytes) // 2
    weights = weights.to(features.device, torch.float64)
    weights = weights / weights.sum(1, keepdim=True)
    codes = codes if codes.ndim == 2 else codes[None]
    if bool((codes == codes[:1]).all()):
        codes = codes[:1]
    # On the CPU: CUDA adds in no fixed order here, and the same call must give the same heads.
    mass = torch.zeros(len(weights), n_classes, dtype=torch.float64)
    mass = mass.scatter_add(1, codes.expand(weights.shape).cpu(), weights.cpu()).to(weights)
    lonely = torch.nonzero((mass > 0).sum(1) < 2)
    if len(lonely):
        raise InputError(
            f"head {int(lonely[0])} has training weight on a single class; a classification head "
            "needs at least two: use larger or stratified training subsets"
        )
    stack = _stack(codes, weights, l2.to(weights), mass == 0)
    solver = _Solver(features, stack, [x for x, most in LARGEST.items() if reach <= most], half)
    size = max(1, half // _bytes_per_head(n_classes, features.shape[1]))
    order: list[Tensor] = []
    fitted: list[LogisticHeads] = []
    for heads, rows in _chunks(features, weights, n_classes, size, half):
        part, seen, start = stack.keep(heads), features, _frequencies(mass[heads], features)
        if rows is not None:
            part, seen = part.on(rows), gather(features, rows)
            # A head of the same target is not far, if it knows all classes.
            if fitted and len(codes) == 1 and bool(fitted[0].present[0].all()):
                start = torch.cat([fitted[0].weight[:1], fitted[0].intercept[:1, :, None]], 2)
        order.append(heads)
        fitted.append(solver.fit(seen, part, _centre(start, part.absent)))
    return _concatenate(fitted, torch.cat(order).argsort())


def _stack(codes: Tensor, weights: Tensor, l2: Tensor, absent: Tensor) -> Stack:
    """All heads, numbered and grouped."""
    target = torch.unique(codes, dim=0, return_inverse=True)[1].expand(len(weights))
    kinds = torch.cat([target[:, None].to(l2), l2[:, None], absent.to(l2)], 1)
    group = torch.unique(kinds, dim=0, return_inverse=True)[1]
    number = torch.arange(len(weights), device=weights.device)
    return Stack(codes, weights, l2, absent, number, group)


def _chunks(
    features: Features, weights: Tensor, classes: int, size: int, memory_bytes: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The heads that are fitted together, and the rows that they are fitted on; None for all."""
    share = (weights > 0).to(torch.float64).mean(1)
    alone = (share < FEW_ROWS) & (classes >= MANY_CLASSES)
    alone &= share * features.shape[0] * features.shape[1] * features.dtype.itemsize < memory_bytes
    together = torch.nonzero(~alone).squeeze(1)
    for heads in torch.split(together, size) if len(together) else ():
        yield heads, None
    for head in torch.nonzero(alone):
        yield head, torch.nonzero(weights[head[0]]).squeeze(1)


def _bytes_per_head(classes: int, width: int) -> int:
    points = (2 * HISTORY + LIVE_POINTS) * (width + 1)
    return 8 * classes * (points + LIVE_BLOCKS * (LEAST_ROWS + classes))


def _check(features: Features, codes: Tensor, weights: Tensor, l2: Tensor, n_classes: int) -> None:
    if len(features.shape) != 2 or 0 in features.shape or not features.dtype.is_floating_point:
        raise InputError(
            "features must be a non-empty (n, d) floating-point tensor, "
            f"not {tuple(features.shape)} {features.dtype}"
        )
    rows = len(features)
    if weights.ndim != 2 or 0 in weights.shape or weights.shape[1] != rows:
        raise InputError(f"weights must be (K, {rows}), not {tuple(weights.shape)}")
    heads = len(weights)
    if codes.dtype != torch.int64 or tuple(codes.shape) not in {(rows,), (heads, rows)}:
        raise InputError(
            f"codes must be int64 of shape ({rows},) or ({heads}, {rows}), "
            f"not {tuple(codes.shape)} {codes.dtype}"
        )
    if tuple(l2.shape) != (heads,):
        raise InputError(f"l2 must have one penalty per head, ({heads},), not {tuple(l2.shape)}")
    if int(codes.min()) < 0 or int(codes.max()) >= n_classes:
        raise InputError(
            f"codes must lie in 0..{n_classes - 1}, found {int(codes.min())}..{int(codes.max())}"
        )
    finite = bool(torch.isfinite(weights).all())
    if not finite or bool((weights < 0).any()) or bool((weights.sum(1) <= 0).any()):
        raise InputError("weights must be finite and >= 0, with a positive one in every head")
    if not bool(torch.isfinite(l2).all()) or bool((l2 <= 0).any()):
        raise InputError("l2 must be finite and > 0: without a penalty the optimum may not exist")


def _reach(features: Features) -> float:
    """The largest absolute feature, when all are finite."""
    parts = blocks(features, block_rows(features.shape[1]))
    reach = float(torch.stack([block.abs().amax() for _, block in parts]).amax())
    if not math.isfinite(reach):
        raise InputError("features contain NaN or infinity; remove or impute these rows")
    if reach > LARGEST[torch.float64]:
        raise InputError(f"features reach {reach:.3g}: their squares overflow; scale them")
    return reach


def _unit(l2: Tensor) -> Tensor:
    """The unit in which gradients are judged: min(l2, 1e-3)."""
    return l2.clamp(max=1e-3)


class _Solver:
    """Fits parts of a stack on one feature matrix; what they share is found once per precision."""

    def __init__(
        self, features: Features, stack: Stack, precisions: list[torch.dtype], memory_bytes: int
    ) -> None:
        self._features, self._precisions, self._memory = features, precisions, memory_bytes
        self._axes: dict[torch.dtype, Axes] = {}
        sizes = dict(Counter(stack.group.tolist()))
        self._leading = {dtype: LeadingBlocks(sizes) for dtype in precisions}

    def fit(self, features: Features, stack: Stack, points: Tensor) -> LogisticHeads:
        """From points (k, C, d + 1), in one precision and then in the next what is left.

        `features` are the rows that the stack is about: all, or those with weight.
        """
        points = points.clone()
        evaluations = torch.zeros(len(stack), dtype=torch.int64, device=points.device)
        peak = torch.full_like(stack.l2, torch.inf)
        for dtype in self._precisions:
            left = torch.nonzero(~(peak <= 2 * STOP_AT * _unit(stack.l2))).squeeze(1)
            if len(left):
                part = stack.keep(left)
                points[left], counts = self._descend(features, part, points[left], dtype)
                evaluations[left] += counts
                weight, intercept = points[left, :, :-1], points[left, :, -1]
                peak[left] = slope(features, part, weight, intercept).peak
        weight, intercept = points[:, :, :-1], points[:, :, -1]
        return LogisticHeads(
            weight=weight,
            intercept=intercept.masked_fill(stack.absent, -torch.inf),
            present=~stack.absent,
            loss=losses(features, stack, weight, intercept),
            gradient_norm=peak,
            iterations=evaluations,
            converged=peak <= CONVERGED_AT * _unit(stack.l2),
        )

    def _descend(
        self, features: Features, stack: Stack, points: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Points (k, C, d + 1) in float64, and how often each head was evaluated."""
        if dtype not in self._axes:
            self._axes[dtype] = principal_axes(self._features, dtype, self._memory)
        objective = _Objective(features, stack.to(dtype), self._axes[dtype], self._leading[dtype])
        tolerance = STOP_AT * _unit(objective.stack.l2)
        start = objective.axes.inside(points.to(dtype))
        found, counts = minimise(objective, start, tolerance, MAX_EVALUATIONS, PATIENCE[dtype])
        return _centre(found.to(torch.float64), stack.absent), counts


@dataclass(frozen=True)
class _Objective:
    """A stack's losses, as `minimise` sees them."""

    features: Features
    stack: Stack
    axes: Axes
    leading: LeadingBlocks

    def evaluate(self, points: Tensor, problems: Tensor, *, with_curvature: bool) -> Evaluation:
        part = self.stack if len(problems) == len(self.stack) else self.stack.keep(problems)
        at = slope(
            self.features, part, points[:, :, :-1], points[:, :, -1], with_classes=with_curvature
        )
        hessian = None
        if at.classes is not None:
            if self.axes.axes is not None:
                self.leading.refresh(self.features, self.axes.mean, self.axes.axes, part, points)
            hessian = curvature(self.axes, at.classes, part, self.leading.factors)
        return Evaluation(self.axes.gradient(at.weight, at.intercept), at.peak, hessian)

    def move(self, directions: Tensor) -> Tensor:
        return self.axes.move(directions)


def _frequencies(mass: Tensor, features: Features) -> Tensor:
    """(k, C, d + 1) points that know the class frequencies (k, C) and no feature."""
    points = mass.new_zeros(*mass.shape, features.shape[1] + 1)
    points[:, :, -1] = mass.log()
    return points


def _centre(points: Tensor, absent: Tensor) -> Tensor:
    """(k, C, p) shifted to sum to zero over the present classes, as at the optimum; absent: zero.

    A softmax does not see the shift, and the penalty only falls.
    """
    points = points.masked_fill(absent[:, :, None], 0.0)
    mean = points.sum(1, keepdim=True) / (~absent).sum(1)[:, None, None]
    return (points - mean).masked_fill(absent[:, :, None], 0.0)


def _concatenate(chunks: list[LogisticHeads], order: Tensor) -> LogisticHeads:
    names = [field.name for field in fields(LogisticHeads)]
    whole = {x: torch.cat([getattr(chunk, x) for chunk in chunks]) for x in names}
    return LogisticHeads(**{x: values[order] for x, values in whole.items()})
