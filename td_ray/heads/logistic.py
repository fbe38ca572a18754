"""Exact multinomial logistic regression: many heads on one feature matrix, in float64.

For every head k, with sample weights w (normalised to sum to one) and penalty l2, this minimises

    f(W, b) = sum_i w_i [ log sum_c exp(z_ic) - z_{i, y_i} ]  +  (l2 / 2) ||W||_F^2
    z_i     = W x_i + b

The intercepts b are not penalised and sum to zero over the classes that have weight; a class
without weight is left out of the softmax. The problem is convex and its optimum unique.

How it is solved:

*   Boehning (1992) bounds the Hessian by (class part) x (Gram matrix of the features). In the
    eigenbasis of the Gram matrix such a product is nearly diagonal, so one decomposition
    preconditions every head, whatever its weights and penalty. In place of his constant class part,
    1/2, stands the current average over the C - 1 directions, (1 - sum_c p_c^2) / (C - 1) per row:
    exact for two classes, and it follows the softmax into saturation, where the constant was seen
    to need ten times the iterations.
*   All heads advance together by L-BFGS (Nocedal 1980), each with its own history and step length:
    two large matrix products an iteration serve the whole stack, and finished heads leave it.
*   The line search looks for the zero of the derivative along the direction, never at the loss:
    near the optimum float64 no longer sees the loss fall, but still sees the slope change sign.
*   A head is finished when max |gradient| over W and b is small in the coordinates of the given
    features. What is reported is recomputed from the returned weights alone.

Sources: Boehning, "Multinomial logistic regression algorithm", Ann. Inst. Statist. Math. 44 (1992);
Nocedal, "Updating quasi-Newton matrices with limited storage", Math. Comp. 35 (1980).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from td_ray.errors import InputError
from td_ray.heads.lbfgs import HISTORY, History, dot, spread

MAX_ITERATIONS = 3000
MAX_TRIALS = 25
SLOPE_REDUCTION = 0.5
# Only the intercept's curvature can vanish, when every row is classified with certainty.
SMALLEST_CURVATURE = 1e-12
# Stopping well inside the bound that decides `converged` costs few iterations and leaves room for
# the rounding of the change back to the given coordinates.
STOP_AT = 1e-3
CONVERGED_AT = 1e-2
# Arrays of the size (heads, classes, rows) that are alive at the worst moment of an iteration.
LIVE_ARRAYS = 7


@dataclass(frozen=True)
class LogisticHeads:
    """K fitted heads over C classes and d features; float64, on the features' device.

    Attributes:
        weight: (K, C, d); zero for absent classes.
        intercept: (K, C); sums to zero over present classes, -inf for absent ones.
        present: (K, C) bool; the classes that have weight in each head's training data.
        loss: (K,) penalised loss at the returned weights.
        gradient_norm: (K,) max |gradient| of that loss over weight and intercept.
        iterations: (K,) int64.
        converged: (K,) bool; gradient_norm <= 1e-2 min(l2, 1e-3).
    """

    weight: Tensor
    intercept: Tensor
    present: Tensor
    loss: Tensor
    gradient_norm: Tensor
    iterations: Tensor
    converged: Tensor


@dataclass(frozen=True)
class _Basis:
    """The centred features in their principal axes, with a column of ones for the intercept."""

    design: Tensor  # (n, r + 1): centred features times axes, then ones
    squares: Tensor  # (n, r + 1): the design's entries squared
    back: Tensor  # (d, r + 1): the axes, then the mean; maps gradients to the given coordinates


@dataclass(frozen=True)
class _Stack:
    """The data of the heads that are still being fitted; k of them, q = r + 1 coordinates."""

    codes: Tensor  # (k, n)
    weights: Tensor  # (k, n), each row sums to one
    l2: Tensor  # (k,)
    absent: Tensor  # (k, C)

    def keep(self, rows: Tensor) -> _Stack:
        return _Stack(self.codes[rows], self.weights[rows], self.l2[rows], self.absent[rows])

    def penalty(self, point: Tensor) -> Tensor:
        """(k, 1, q) for points (k, C, q): l2 for the features, nothing for the intercept."""
        penalty = spread(self.l2).repeat(1, 1, point.shape[2])
        penalty[:, :, -1] = 0.0
        return penalty

    def probabilities(self, logits: Tensor) -> Tensor:
        """(k, C, n) softmax over the present classes; overwrites the logits."""
        if bool(self.absent.any()):
            logits.masked_fill_(self.absent[:, :, None], -torch.inf)
        return torch.softmax(logits, dim=1)

    def residual(self, probabilities: Tensor) -> Tensor:
        """(k, C, n): weight times (probability minus label); overwrites the probabilities."""
        weights = self.weights[:, None, :]
        return probabilities.mul_(weights).scatter_add_(1, self.codes[:, None, :], -weights)


def fit_logistic(
    features: Tensor,
    codes: Tensor,
    weights: Tensor,
    l2: Tensor,
    n_classes: int,
    *,
    memory_bytes: int = 2 * 2**30,
) -> LogisticHeads:
    """Fit K multinomial logistic regressions on the same features.

    Args:
        features: (n, d) floating point, already scaled.
        codes: (n,) or (K, n) int64 class codes in [0, n_classes).
        weights: (K, n) sample weights >= 0; each row is normalised to sum to one.
        l2: (K,) penalties > 0.
        n_classes: C, the number of classes of the task.
        memory_bytes: bound on the temporaries; heads are fitted in chunks that respect it (one head
            is the least that a chunk can hold).

    Returns:
        The heads. One that did not reach the bound says so in `converged`.

    Raises:
        InputError: shapes, values or types are wrong, or a head has fewer than two classes with
            weight.
    """
    _check(features, codes, weights, l2, n_classes)
    features = features.to(torch.float64)
    weights = weights.to(torch.float64)
    weights = weights / weights.sum(1, keepdim=True)
    codes = codes.expand(weights.shape)
    # On the CPU: CUDA adds in no fixed order here, and the same call must give the same heads.
    mass = torch.zeros(len(weights), n_classes, dtype=torch.float64)
    mass = mass.scatter_add(1, codes.cpu(), weights.cpu()).to(features.device)
    stack = _Stack(codes, weights, l2.to(features), mass == 0)
    lonely = torch.nonzero((mass > 0).sum(1) < 2)
    if len(lonely):
        raise InputError(
            f"head {int(lonely[0])} has training weight on a single class; a classification head "
            "needs at least two: use larger or stratified training subsets"
        )
    basis = _basis(features, STOP_AT * float(_unit(stack.l2).min()))
    per_head = n_classes * 8 * (LIVE_ARRAYS * len(features) + 2 * HISTORY * basis.design.shape[1])
    size = max(1, memory_bytes // per_head)
    chunks = []
    for rows in torch.split(torch.arange(len(weights), device=features.device), size):
        part = stack.keep(rows)
        point, iterations = _minimise(basis, part, mass[rows])
        chunks.append(_finish(features, basis, part, point, iterations))
    return _concatenate(chunks)


def _check(features: Tensor, codes: Tensor, weights: Tensor, l2: Tensor, n_classes: int) -> None:
    if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
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
    if not bool(torch.isfinite(features).all()):
        raise InputError("features contain NaN or infinity; remove or impute these rows")
    if int(codes.min()) < 0 or int(codes.max()) >= n_classes:
        raise InputError(
            f"codes must lie in 0..{n_classes - 1}, found {int(codes.min())}..{int(codes.max())}"
        )
    finite = bool(torch.isfinite(weights).all())
    if not finite or bool((weights < 0).any()) or bool((weights.sum(1) <= 0).any()):
        raise InputError("weights must be finite and >= 0, with a positive one in every head")
    if not bool(torch.isfinite(l2).all()) or bool((l2 <= 0).any()):
        raise InputError("l2 must be finite and > 0: without a penalty the optimum may not exist")


def _unit(l2: Tensor) -> Tensor:
    """The unit in which gradients are judged: min(l2, 1e-3)."""
    return l2.clamp(max=1e-3)


def _basis(features: Tensor, tolerance: float) -> _Basis:
    """Rotate the centred features into their principal axes, working on the smaller side.

    The axes are orthonormal to rounding even where the spectrum is not resolved (they come from a
    Householder QR and a symmetric eigenproblem, never from a division by a small singular value),
    so leaving the near-null axes in costs no accuracy. An axis along which no row reaches
    `tolerance` cannot carry a gradient above it, and needs no weight.
    """
    mean = features.mean(0)
    centred = features - mean
    rows, columns = centred.shape
    axes = torch.eye(columns, dtype=torch.float64, device=features.device)
    if rows < columns:
        axes = torch.linalg.qr(centred.T)[0]
        centred = centred @ axes
    rotation = torch.linalg.eigh(centred.T @ centred)[1]
    scores, axes = centred @ rotation, axes @ rotation
    reach = scores.abs().amax(0) > 1e-3 * tolerance
    scores, axes = scores[:, reach], axes[:, reach]
    ones = torch.ones(rows, 1, dtype=torch.float64, device=features.device)
    design = torch.cat([scores, ones], dim=1)
    return _Basis(design, design.square(), torch.cat([axes, mean[:, None]], dim=1))


def _minimise(basis: _Basis, stack: _Stack, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Stacked L-BFGS from the class frequencies: (k, C, q) points in the basis, (k,) iterations."""
    solution = mass.new_zeros(*mass.shape, basis.design.shape[1])
    iterations = torch.full_like(solution[:, 0, 0], MAX_ITERATIONS, dtype=torch.int64)
    rows = torch.arange(len(mass), device=mass.device)
    point = solution.clone()
    point[:, :, -1] = _centre(mass.log(), stack.absent)
    logits = point @ basis.design.T
    gradient, curvature = _gradient(basis, stack, point, stack.probabilities(logits.clone()))
    history = History()
    for iteration in range(MAX_ITERATIONS):
        done = _finished(basis, stack, gradient)
        if bool(done.any()):
            solution[rows[done]], iterations[rows[done]] = point[done], iteration
            rows, point, logits = rows[~done], point[~done], logits[~done]
            gradient, curvature = gradient[~done], curvature[~done]
            stack, history = stack.keep(~done), history.keep(~done)
            if not len(rows):
                break
        direction = history.direction(gradient, curvature)
        change = direction @ basis.design.T
        step, probabilities = _line_search(
            stack,
            logits,
            change,
            slope=dot(gradient, direction),
            linear=dot(stack.penalty(point) * point, direction),
            quadratic=dot(stack.penalty(point) * direction, direction),
        )
        direction *= spread(step)
        point = point + direction
        logits.addcmul_(change, spread(step))
        previous = gradient
        gradient, curvature = _gradient(basis, stack, point, probabilities)
        history = history.extend(direction, gradient - previous)
    solution[rows] = point
    return solution, iterations


def _centre(values: Tensor, absent: Tensor) -> Tensor:
    """(k, C) shifted to sum to zero over the present classes; zero for absent ones."""
    values = values.masked_fill(absent, 0.0)
    mean = values.sum(1, keepdim=True) / (~absent).sum(1, keepdim=True)
    return (values - mean).masked_fill(absent, 0.0)


def _gradient(
    basis: _Basis, stack: _Stack, point: Tensor, probabilities: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient (k, C, q) and average curvature (k, 1, q); overwrites the probabilities."""
    penalty = stack.penalty(point)
    doubt = (1 - probabilities.square().sum(1)).clamp(min=0)
    doubt = stack.weights * doubt / ((~stack.absent).sum(1, keepdim=True) - 1)
    curvature = (doubt @ basis.squares)[:, None, :] + penalty
    gradient = stack.residual(probabilities) @ basis.design + penalty * point
    return gradient, curvature.clamp(min=SMALLEST_CURVATURE)


def _finished(basis: _Basis, stack: _Stack, gradient: Tensor) -> Tensor:
    """(k,) bool: max |gradient| in the given features' coordinates is within the stopping bound."""
    tolerance = STOP_AT * _unit(stack.l2)
    shift, columns = gradient[:, :, -1].abs(), len(basis.back)
    # The rotation keeps lengths, and a vector's largest entry is at least its length / sqrt(d):
    # this settles most iterations without the product with the (d, r) axes.
    length = gradient[:, :, :-1].norm(dim=2) - shift * basis.back[:, -1].norm()
    done: Tensor = (shift.amax(1) <= tolerance) & (length.amax(1) <= tolerance * columns**0.5)
    if bool(done.any()):
        peak = (gradient[done] @ basis.back.T).abs().amax((1, 2))
        done[done.clone()] = peak <= tolerance[done]
    return done


def _line_search(
    stack: _Stack,
    logits: Tensor,
    change: Tensor,
    *,
    slope: Tensor,
    linear: Tensor,
    quadratic: Tensor,
) -> tuple[Tensor, Tensor]:
    """Steps at which the derivative along the direction has fallen to half: (k,), and (k, C, n).

    Safeguarded Newton for phi'(t) = 0 from t = 1, phi(t) = f(point + t direction). `slope` is
    phi'(0) < 0; the penalty adds `linear + t quadratic` to phi'. The second result is the
    probabilities there. A head without an acceptable step takes the last one tried.
    """
    step, low = torch.ones_like(slope), torch.zeros_like(slope)
    high = torch.full_like(slope, torch.inf)
    rows = torch.arange(len(slope), device=slope.device)
    part, start, move = stack, logits, change
    probabilities = torch.empty(0)
    for trial in range(MAX_TRIALS):
        t = step[rows]
        reached, first, second = _slopes(part, start, move, t)
        first, second = first + linear[rows] + t * quadratic[rows], second + quadratic[rows]
        if trial == 0:
            probabilities = reached
        else:
            probabilities[rows] = reached
        searching = first.abs() > SLOPE_REDUCTION * slope[rows].abs()
        if trial == MAX_TRIALS - 1 or not bool(searching.any()):
            break
        low[rows] = torch.where(first < 0, t, low[rows])
        high[rows] = torch.where(first > 0, t, high[rows])
        newton, t, rows = (t - first / second)[searching], t[searching], rows[searching]
        floor, ceiling = low[rows], torch.where(high[rows].isinf(), 10 * t, high[rows])
        inside = (newton > floor) & (newton < ceiling)
        step[rows] = torch.where(inside, newton, (floor + ceiling) / 2)
        part, start, move = stack.keep(rows), logits[rows], change[rows]
    return step, probabilities


def _slopes(
    stack: _Stack, logits: Tensor, change: Tensor, step: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities at logits + step change, and the loss's two derivatives along the step."""
    probabilities = stack.probabilities(torch.addcmul(logits, change, spread(step)))
    labelled = change.gather(1, stack.codes[:, None, :]).squeeze(1)
    product = probabilities * change
    mean = product.sum(1)
    square = product.mul_(change).sum(1)
    first = (stack.weights * (mean - labelled)).sum(1)
    second = (stack.weights * (square - mean.square())).sum(1)
    return probabilities, first, second


def _finish(
    features: Tensor, basis: _Basis, stack: _Stack, point: Tensor, iterations: Tensor
) -> LogisticHeads:
    """Return to the given coordinates, and judge the result there from scratch."""
    weight = point[:, :, :-1] @ basis.back[:, :-1].T
    intercept = _centre(point[:, :, -1] - weight @ basis.back[:, -1], stack.absent)
    logits = weight @ features.T + intercept[:, :, None]
    labelled = logits.gather(1, stack.codes[:, None, :]).squeeze(1)
    probabilities = stack.probabilities(logits)
    entropy = (stack.weights * (logits.logsumexp(1) - labelled)).sum(1)
    residual = stack.residual(probabilities)
    slope = residual @ features + spread(stack.l2) * weight
    gradient_norm = torch.maximum(slope.abs().amax((1, 2)), residual.sum(2).abs().amax(1))
    return LogisticHeads(
        weight=weight,
        intercept=intercept.masked_fill(stack.absent, -torch.inf),
        present=~stack.absent,
        loss=entropy + stack.l2 / 2 * dot(weight, weight),
        gradient_norm=gradient_norm,
        iterations=iterations,
        converged=gradient_norm <= CONVERGED_AT * _unit(stack.l2),
    )


def _concatenate(chunks: list[LogisticHeads]) -> LogisticHeads:
    names = [field.name for field in fields(LogisticHeads)]
    return LogisticHeads(**{x: torch.cat([getattr(chunk, x) for chunk in chunks]) for x in names})
