"""Solutions to compare with, in float64, by methods that td-ray does not use.

Logistic regression is solved by Newton's method, whose linear systems go to conjugate gradients
(Nocedal and Wright, "Numerical Optimization", algorithm 7.1). It starts where scikit-learn stopped,
never at td-ray's solution. The optimum is unique, so that a point with max |gradient| <= 1e-10 is
the optimum however it was found; the gradient is computed here from the formula of the loss,

    f(W, b) = mean_i [ log sum_c exp(z_ic) - z_{i, y_i} ] + (l2 / 2) ||W||^2,    z_i = W x_i + b
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import softmax

from td_ray.errors import WorkError

Array = NDArray[Any]

GRADIENT = 1e-10
MOST_STEPS = 50
# The curvature along a class's intercept nearly vanishes when every row is classified surely.
SMALLEST_CURVATURE = 1e-9


class Logistic:
    """One problem: (n, d) features, (n,) codes below C, and l2; points are (C, d + 1)."""

    def __init__(self, features: Array, codes: Array, l2: float, classes: int) -> None:
        rows, width = features.shape
        self.design = np.ones((rows, width + 1))
        self.design[:, :-1] = features
        self.labels = np.eye(classes)[codes]
        self.penalty = np.append(np.full(width, l2), 0.0)

    def probabilities(self, point: Array) -> Array:
        """(n, C) at a point."""
        return np.asarray(softmax(self.design @ point.T, axis=1))

    def gradient(self, point: Array, probabilities: Array) -> Array:
        """(C, d + 1)."""
        residual = (probabilities - self.labels) / len(self.labels)
        return np.asarray(residual.T @ self.design + self.penalty * point)

    def newton_step(self, probabilities: Array, gradient: Array) -> Array:
        """(C, d + 1): minus the inverse Hessian times the gradient, as exactly as is of use."""
        norm = float(np.linalg.norm(gradient))

        def curvature(vector: Array) -> Array:
            move = vector.reshape(gradient.shape)
            change = self.design @ move.T
            change -= (probabilities * change).sum(1, keepdims=True)
            change *= probabilities / len(probabilities)
            return np.ravel(change.T @ self.design + self.penalty * move)

        # The Hessian with the same curvature for every class, as a preconditioner.
        doubt = (1 - np.square(probabilities).sum(1)) / gradient.shape[0]
        gram = (self.design * (doubt / len(doubt))[:, None]).T @ self.design
        factor = cho_factor(gram + np.diag(np.maximum(self.penalty, SMALLEST_CURVATURE)))
        size = (gradient.size, gradient.size)
        step, _ = cg(
            LinearOperator(size, matvec=curvature, dtype=np.float64),
            -gradient.ravel(),
            rtol=max(min(0.1, norm**0.5), GRADIENT / (2 * norm)),
            maxiter=200,
            M=LinearOperator(
                size,
                matvec=lambda v: cho_solve(factor, v.reshape(gradient.shape).T).T.ravel(),
                dtype=np.float64,
            ),
        )
        return np.asarray(step).reshape(gradient.shape)


def solve_logistic(
    features: Array, codes: Array, l2: float, weight: Array, intercept: Array
) -> tuple[Array, Array]:
    """The optimum for (n, d) features and (n,) codes: (C, d) weights and (C,) intercepts.

    Args:
        features: scaled features of the rows with weight.
        codes: every class in 0..C-1 occurs.
        l2: the penalty.
        weight: (C, d), where to start.
        intercept: (C,), where to start.

    Raises:
        WorkError: max |gradient| stays above 1e-10.
    """
    problem = Logistic(features, codes, l2, len(weight))
    point = np.column_stack([weight, intercept]).astype(np.float64)
    probabilities = problem.probabilities(point)
    gradient = problem.gradient(point, probabilities)
    for _ in range(MOST_STEPS):
        if np.abs(gradient).max() <= GRADIENT:
            return point[:, :-1], point[:, -1]
        step = problem.newton_step(probabilities, gradient)
        length, norm = 1.0, np.linalg.norm(gradient)
        while length > 1e-6:
            probabilities = problem.probabilities(point + length * step)
            trial = problem.gradient(point + length * step, probabilities)
            if np.linalg.norm(trial) < (1 - 1e-4 * length) * norm:
                break
            length /= 2
        point, gradient = point + length * step, trial
    raise WorkError(
        f"the benchmark's reference stopped at max |gradient| {np.abs(gradient).max():.2g}, "
        f"not {GRADIENT:g}"
    )


def solve_ridge(features: Array, targets: Array, penalties: Array, test: Array) -> Array:
    """(P, m, rows of test) predictions of ridge regressions, by the normal equations.

    Args:
        features: (n, d).
        targets: (n, m).
        penalties: (P,); the loss is the mean squared error plus penalty times squared norm.
        test: rows to predict.
    """
    features, test = features.astype(np.float64), test.astype(np.float64)
    mean, level = features.mean(0), targets.mean(0)
    centred = features - mean
    gram = centred.T @ centred / len(centred)
    right = centred.T @ (targets - level) / len(centred)
    predictions = []
    for penalty in penalties:
        weight = cho_solve(cho_factor(gram + penalty * np.eye(len(gram))), right)
        predictions.append(((test - mean) @ weight + level).T)
    return np.stack(predictions)
