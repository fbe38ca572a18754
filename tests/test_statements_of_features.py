"""Statements of the theory that tie discrepancies to measures of features, on the fitting sample.

There the ridge prediction for a target z, less its mean, is K z with K = X (S + l I)^-1 X' / n for
centred features X and S = X'X / n; least squares (l = 0) projects on the span of the columns, P z.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from feature_references import ridge_kernel
from scipy.linalg import orth, subspace_angles

from td_ray.arrays.feature_comparison import pairwise_measure
from td_ray.heads import ValueTarget, fit_scaling, fit_targets
from td_ray.measures import value_distance

Array = np.ndarray[Any, Any]

N = 40


def views(seed: int = 0) -> tuple[Array, Array]:
    """Features of ranks 4 and 7, the first in five columns, that share some directions."""
    random = np.random.default_rng(seed)
    shared = random.standard_normal((N, 3))
    x = np.column_stack([shared[:, :2], random.standard_normal((N, 2))])
    y = np.column_stack([shared + 0.5 * x[:, [0, 3, 1]], random.standard_normal((N, 4))])
    return x @ random.standard_normal((4, 5)) + 3, y * np.logspace(0, 1, 7) - 2


def predictions(features: Array, targets: Array, l2: float, scaling: str) -> Array:
    """(T, n) what heads predict where they were fitted, each less the mean of its target."""
    rows = torch.from_numpy(features)
    rows = fit_scaling(rows, scaling).apply(rows)
    asked = [ValueTarget(torch.from_numpy(target)) for target in targets]
    found = [heads.predict(rows).numpy() for heads in fit_targets("ridge", rows, asked, l2)]
    return np.concatenate(found) - targets.mean(1, keepdims=True)


def of_each_task(u: Array, v: Array, distance: str) -> Array:
    """(T,) distances of two models' predictions."""
    pairs = zip(u[:, None], v[:, None], strict=True)
    return np.array([value_distance(a, b, distance)[0, 0] for a, b in pairs])


# Statement 5


def overlap(x: Array, y: Array) -> float:
    """The sum of squared canonical correlations."""
    spans = (orth(m - m.mean(0)) for m in (x, y))
    return float(np.square(np.cos(subspace_angles(*spans))).sum())


def ratio_of_sums(u: Array, v: Array) -> float:
    """Of squared gaps over mean squared lengths: the `mean` distance, tasks weighted by lengths."""
    lengths = (np.square(u).sum(1) + np.square(v).sum(1)) / 2
    return float(np.average(of_each_task(u, v, "mean"), weights=lengths))


def test_targets_of_every_direction_measure_the_overlap_of_spans() -> None:
    """Sums over an orthonormal basis are what isotropic targets expect, and free of chance."""
    x, y = views()
    u, v = (predictions(each, np.eye(N), 0.0, "column") for each in (x, y))
    r, s, squares = 4, 7, overlap(x, y)
    assert 1 < squares < 3
    gaps = N * of_each_task(u, v, "none")
    assert gaps.sum() == pytest.approx(r + s - 2 * squares, rel=1e-9)
    expected = 2 - 4 * squares / (r + s)
    assert ratio_of_sums(u, v) == pytest.approx(expected, rel=1e-9)
    cca = pairwise_measure({"x": x, "y": y}, "cca").loc["x", "y"]
    assert ratio_of_sums(u, v) == pytest.approx(2 - 4 * r * cca / (r + s), rel=1e-9)


def test_gaussian_targets_have_the_expected_ratio() -> None:
    x, y = views()
    tasks = 2000
    targets = np.random.default_rng(1).standard_normal((tasks, N))
    u, v = (predictions(each, targets, 0.0, "column") for each in (x, y))
    expected = 2 - 4 * overlap(x, y) / (4 + 7)
    # A gap less the ratio times a length is z'Mz with mean 0, and so with a variance of 2 tr MM.
    p, q = (basis @ basis.T for basis in (orth(m - m.mean(0)) for m in (x, y)))
    m = (p - q) @ (p - q) - expected * (p + q) / 2
    deviation = np.sqrt(2 * np.trace(m @ m) / tasks) / np.trace((p + q) / 2)
    assert deviation < 0.02
    assert ratio_of_sums(u, v) == pytest.approx(expected, abs=4 * deviation)


# Statement 6


@pytest.mark.parametrize("penalty", [1e-3, 0.05, 1.0])
def test_no_task_sets_models_further_apart_than_gulp(penalty: float) -> None:
    """A squared gap <= operator norm^2, which one task attains, < the sum over all directions."""
    x, y = views()
    difference = ridge_kernel(x, penalty) - ridge_kernel(y, penalty)
    values, vectors = np.linalg.eigh(difference)
    largest = np.square(values).max()
    worst = vectors[:, np.abs(values).argmax()]
    random = np.random.default_rng(2).standard_normal((200, N))
    targets = np.vstack([worst, x.T, y.T, random])
    targets -= targets.mean(1, keepdims=True)
    targets /= targets.std(1, keepdims=True)  # squared gaps are then in units of the target
    # Heads see features of mean squared norm d, and gulp those of norm one.
    u, v = (predictions(each, targets, penalty * each.shape[1], "global") for each in (x, y))
    gaps = of_each_task(u, v, "none")
    gulp = pairwise_measure({"x": x, "y": y}, "gulp", l=penalty).loc["x", "y"]
    assert (gaps <= largest * (1 + 1e-9)).all()
    assert gaps[0] == pytest.approx(largest, rel=1e-9)
    assert gaps[1:].max() < largest < 0.9 * gulp
    assert gulp == pytest.approx(np.square(values).sum(), rel=1e-9)
