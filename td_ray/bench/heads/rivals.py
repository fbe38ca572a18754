"""The same heads, fitted by what people use otherwise: one head, one call.

A rival gets the rows that have weight and no others, as float32, and its fit alone is timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeCV

from td_ray.bench.heads.cases import L2, Stack

Array = NDArray[Any]

ADAM_RATE, ADAM_BATCH, ADAM_EPOCHS = 1e-3, 256, 20


@dataclass(frozen=True)
class Problem:
    """One head: (n, d) float32 features and (n,) codes of the rows with weight."""

    features: Array
    codes: Array
    classes: int


@dataclass(frozen=True)
class Head:
    """A linear classifier: (C, d) weights and (C,) intercepts."""

    weight: Array
    intercept: Array

    def predict(self, features: Array) -> Array:
        """(m,) class codes."""
        return np.asarray((features @ self.weight.T + self.intercept).argmax(1))


def problem(stack: Stack, head: int) -> Problem:
    """One head of a stack."""
    used = stack.weights[head] > 0
    features = stack.features
    return Problem(features.train[used], stack.codes[head, used], features.classes)


def fit_sklearn(given: Problem, tolerance: float = 1e-4, precision: str = "float32") -> Head:
    """scikit-learn's LogisticRegression with its default solver, L-BFGS.

    Its loss is a sum over rows, and its head for two classes is one vector instead of two: hence
    the inverse penalty 1 / (l2 n), twice that for two classes.
    """
    vectors = 2 if given.classes == 2 else 1
    model = LogisticRegression(
        C=vectors / (L2 * len(given.codes)), tol=tolerance, max_iter=10_000
    ).fit(given.features.astype(precision, copy=False), given.codes)
    weight, intercept = model.coef_, model.intercept_
    if given.classes == 2:
        weight, intercept = np.concatenate([-weight, weight]) / 2, np.append(-intercept, intercept)
        intercept = intercept / 2
    return Head(weight, intercept)


def fit_adam(given: Problem) -> Head:
    """A linear probe as it is often written: a torch layer, Adam, a fixed number of epochs."""
    features, codes = torch.from_numpy(given.features), torch.from_numpy(given.codes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = torch.nn.Linear(features.shape[1], given.classes)
        optimiser = torch.optim.Adam(layer.parameters(), lr=ADAM_RATE, weight_decay=L2)
        loss = torch.nn.CrossEntropyLoss()
        for _ in range(ADAM_EPOCHS):
            for batch in torch.split(torch.randperm(len(codes)), ADAM_BATCH):
                optimiser.zero_grad()
                loss(layer(features[batch]), codes[batch]).backward()
                optimiser.step()
    return Head(layer.weight.detach().numpy(), layer.bias.detach().numpy())


def fit_ridge_cv(features: Array, targets: Array, penalties: Array) -> RidgeCV:
    """scikit-learn's RidgeCV, which chooses from the whole grid by leave-one-out error.

    Args:
        features: (n, d).
        targets: (n,), or (n, m) with a penalty chosen for each.
        penalties: (P,) of the mean squared error; scikit-learn's loss is the sum.
    """
    grid = penalties * len(features)
    return RidgeCV(alphas=grid, alpha_per_target=targets.ndim == 2).fit(features, targets)
