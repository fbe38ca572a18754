"""Small problems for heads that are trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from td_ray.heads.optimizers import Hyperparameters
from td_ray.heads.stochastic import StochasticHeads


def how(**changes: Any) -> Hyperparameters:
    usual: dict[str, Any] = {
        "optimizer": "adamw",
        "learning_rate": 1e-2,
        "weight_decay": 1e-2,
        "epochs": 3,
        "batch_size": 16,
    }
    return Hyperparameters(**(usual | changes))


def problem(
    n: int = 60, d: int = 5, classes: int = 3, heads: int = 1, *, noise: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, overlapping classes, and weights: equal for the first head, else some zero."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, d))
    directions = np.random.default_rng(99).standard_normal((d, classes))
    codes = (features @ directions + noise * rng.gumbel(size=(n, classes))).argmax(1)
    codes[:classes] = np.arange(classes)
    weights = rng.random((heads, n)) * (rng.random((heads, n)) < 0.7)
    weights[:, :classes] = 1
    weights[0] = 1
    return torch.from_numpy(features).float(), torch.from_numpy(codes), torch.from_numpy(weights)


def values(features: Tensor, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    truth = features.double().numpy() @ rng.standard_normal(features.shape[1])
    return torch.from_numpy(3 + truth + 0.5 * rng.standard_normal(len(truth)))


def assert_same(left: StochasticHeads, right: StochasticHeads) -> None:
    """The same bytes."""
    for ours, theirs in zip(left.parameters, right.parameters, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert torch.equal(left.loss, right.loss)
    assert torch.equal(left.gradient_norm, right.gradient_norm)


def assert_close(left: tuple[Tensor, ...], right: tuple[Tensor, ...], atol: float) -> None:
    for ours, theirs in zip(left, right, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), atol=atol, rtol=0)
