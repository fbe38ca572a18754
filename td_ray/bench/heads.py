"""Seconds per head, and held-out agreement with a reference solved to 1e-10.

Real features: the 64 pixels of scikit-learn's digits, standardised, 1,257 training and 540
held-out samples. The stack is what one unit of a sweep with five seeds fits: the full split and
ten halves. scikit-learn fits the same problems one by one, at its default tolerance and at the
one that matches td-ray's agreement. Ridge regresses the digit's number, at ten penalties.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split

from td_ray.heads.logistic import fit_logistic
from td_ray.heads.ridge import fit_ridge
from td_ray.heads.scaling import fit_scaling
from td_ray.tasks import halves

L2 = 1e-3
SEEDS = 5
PENALTIES = tuple(10.0**power for power in range(-6, 4))

Array = NDArray[Any]
Row = dict[str, Any]


def run() -> list[Row]:
    """Run the benchmark on all cores that torch uses."""
    train, test, y_train, _ = _digits()
    weights = _weights(y_train)
    return [*_logistic(train, test, y_train, weights), *_ridge(train, test, y_train, weights)]


def _digits() -> tuple[Array, Array, Array, Array]:
    x, y = load_digits(return_X_y=True)
    train, test, y_train, y_test = train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)
    scaling = fit_scaling(torch.from_numpy(train), "column")
    scaled = (scaling.apply(torch.from_numpy(part)).numpy() for part in (train, test))
    return (*scaled, y_train, y_test)


def _weights(y_train: Array) -> Array:
    """(11, n): the full training split, then five pairs of halves."""
    ids = np.arange(len(y_train)).astype(str)
    rows = [np.ones(len(ids))]
    for seed in range(SEEDS):
        rows += [half.astype(float) for half in halves(ids, y_train, "bench", seed)]
    return np.stack(rows)


def _logistic(train: Array, test: Array, y_train: Array, weights: Array) -> list[Row]:
    def stacked() -> Array:
        heads = fit_logistic(
            torch.from_numpy(train),
            torch.from_numpy(y_train),
            torch.from_numpy(weights),
            torch.full((len(weights),), L2, dtype=torch.float64),
            10,
        )
        scores = torch.from_numpy(test) @ heads.weight.mT + heads.intercept[:, None, :]
        return scores.argmax(2).numpy()

    def one_by_one(tolerance: float, solver: str = "lbfgs") -> Callable[[], Array]:
        def fit() -> Array:
            predictions = []
            for weight in weights > 0:
                model = LogisticRegression(
                    C=1 / (L2 * weight.sum()), tol=tolerance, solver=solver, max_iter=10_000
                )
                predictions.append(model.fit(train[weight], y_train[weight]).predict(test))
            return np.stack(predictions)

        return fit

    reference = one_by_one(1e-10, "newton-cholesky")()
    methods = {
        "td_ray": stacked,
        "sklearn": one_by_one(1e-4),
        "sklearn_matched": one_by_one(1e-6),
    }
    return [
        _measure(
            "logistic C=10", name, method, len(weights), lambda p: float((p == reference).mean())
        )
        for name, method in methods.items()
    ]


def _ridge(train: Array, test: Array, y_train: Array, weights: Array) -> list[Row]:
    target = y_train.astype(float)

    def stacked() -> Array:
        heads = fit_ridge(
            torch.from_numpy(train),
            torch.from_numpy(target)[:, None],
            torch.from_numpy(weights),
            torch.tensor(PENALTIES, dtype=torch.float64),
        )
        scores = torch.from_numpy(test) @ heads.weight.squeeze(2).mT + heads.intercept.mT
        return scores.mT.numpy()

    def one_by_one() -> Array:
        rows = []
        for weight in weights > 0:
            fits = [
                Ridge(alpha=l2 * weight.sum()).fit(train[weight], target[weight])
                for l2 in PENALTIES
            ]
            rows.append([fit.predict(test) for fit in fits])
        return np.array(rows)

    reference = one_by_one()

    def agreement(predictions: Array) -> float:
        return float((np.abs(predictions - reference) < 1e-6).mean())

    heads = len(weights) * len(PENALTIES)
    methods = {"td_ray_ridge": stacked, "sklearn_ridge": one_by_one}
    return [
        _measure("ridge, 10 penalties", name, method, heads, agreement)
        for name, method in methods.items()
    ]


def _measure(
    case: str,
    name: str,
    method: Callable[[], Array],
    heads: int,
    agreement: Callable[[Array], float],
) -> Row:
    """Best of three, after one that warms up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ConvergenceWarning)
        predictions = method()
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            method()
            seconds.append(time.perf_counter() - started)
    return {
        "case": case,
        "method": name,
        "heads": heads,
        "seconds_per_head": min(seconds) / heads,
        "agreement": agreement(predictions),
    }
