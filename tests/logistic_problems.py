"""Problems for logistic heads, and an independent solver of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from td_ray.heads.logistic import LogisticHeads

Array = np.ndarray[Any, Any]


def problem(
    n: int, d: int, classes: int, heads: int = 1, *, apart: float = 0.5, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Correlated Gaussian classes, every class present, and half-sample weights for all but one."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n) % classes)
    mix = rng.standard_normal((d, d)) * np.logspace(0, -1, d)
    features = rng.standard_normal((n, d)) + apart * rng.standard_normal((classes, d))[codes]
    weights = (rng.random((heads, n)) < 0.5).astype(float)
    weights[0] = 1
    return torch.from_numpy(features @ mix.T), torch.from_numpy(codes), torch.from_numpy(weights)


def penalties(heads: int, value: float) -> torch.Tensor:
    return torch.full((heads,), value, dtype=torch.float64)


def value_and_gradient(
    weight: Array, intercept: Array, features: Array, codes: Array, weights: Array, l2: float
) -> tuple[float, Array, Array]:
    """The objective of the module's docstring, row by row, without any of its code."""
    share = weights / weights.sum()
    logits = features @ weight.T + intercept
    logits = logits - logits.max(1, keepdims=True)
    odds = np.exp(logits)
    rows = np.arange(len(codes))
    loss = share @ (np.log(odds.sum(1)) - logits[rows, codes]) + l2 / 2 * np.square(weight).sum()
    error = odds / odds.sum(1, keepdims=True)
    error[rows, codes] -= 1
    error *= share[:, None]
    return loss, error.T @ features + l2 * weight, error.sum(0)


def reference(features: Array, codes: Array, weights: Array, l2: float, classes: int) -> Array:
    """(classes, d + 1) optimum by a quasi-Newton solver of scipy; intercepts sum to zero."""
    d = features.shape[1]

    def objective(flat: Array) -> tuple[float, Array]:
        point = flat.reshape(classes, d + 1)
        loss, slope, offset = value_and_gradient(
            point[:, :d], point[:, d], features, codes, weights, l2
        )
        total = point[:, d].sum()  # fixes the common shift of the intercepts
        return loss + total**2 / 2, np.column_stack([slope, offset + total]).ravel()

    start = np.zeros(classes * (d + 1))
    found = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    point: Array = found.x.reshape(classes, d + 1)
    return point


def assert_optimal(
    heads: LogisticHeads,
    features: torch.Tensor,
    codes: torch.Tensor,
    weights: torch.Tensor,
    l2: float,
) -> None:
    """Every head meets the bound by an independent computation, and says what is true."""
    assert heads.converged.all()
    for k in range(len(weights)):
        present = heads.present[k].numpy()
        used = weights[k].numpy() > 0
        where = np.cumsum(present) - 1
        loss, slope, offset = value_and_gradient(
            heads.weight[k].numpy()[present],
            heads.intercept[k].numpy()[present],
            features.numpy()[used].astype(float),
            where[codes.numpy()[used]],
            weights[k].numpy()[used],
            l2,
        )
        norm = max(np.abs(slope).max(), np.abs(offset).max())
        bound = 1e-2 * min(l2, 1e-3)
        assert norm <= bound
        assert heads.gradient_norm[k] == pytest.approx(norm, abs=1e-2 * bound)
        assert heads.loss[k] == pytest.approx(loss, rel=1e-10)
        assert heads.intercept[k].numpy()[present].sum() == pytest.approx(0, abs=1e-9)
