"""Ridge heads against least squares on the augmented system, and their limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from td_ray.errors import InputError
from td_ray.heads.ridge import fit_ridge

Array = np.ndarray[Any, Any]


def reference(features: Array, targets: Array, weights: Array, l2: float) -> tuple[Array, Array]:
    """Weight (m, d) and intercept (m,) by one augmented least-squares problem per target."""
    n, d = features.shape
    root = np.sqrt(weights / weights.sum())[:, None]
    data = np.vstack([root * np.column_stack([features, np.ones(n)]), np.eye(d, d + 1) * l2**0.5])
    right = np.vstack([root * targets, np.zeros((d, targets.shape[1]))])
    solution = np.linalg.lstsq(data, right, rcond=None)[0]
    return solution[:d].T, solution[d]


def problem(n: int, d: int, m: int, heads: int, seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 2
    return features, rng.standard_normal((n, m)) + 3, rng.random((heads, n))


@settings(derandomize=True, deadline=None, max_examples=30, database=None)
@given(
    n=st.integers(2, 30),
    d=st.integers(1, 30),
    l2=st.sampled_from([1.0, 1e-2, 1e-5]),
    zeros=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_random_problems_agree_with_least_squares(
    n: int, d: int, l2: float, zeros: bool, seed: int
) -> None:
    features, targets, weights = problem(n, d, 2, 2, seed)
    if zeros:
        weights[:, : n // 2] = 0
    penalties = torch.tensor([l2, 10 * l2], dtype=torch.float64)
    heads = fit_ridge(*map(torch.from_numpy, (features, targets, weights)), penalties)
    assert heads.weight.shape == (2, 2, 2, d)
    assert heads.gradient_norm.max() < 1e-9
    for k in range(2):
        for p, penalty in enumerate(penalties.tolist()):
            weight, intercept = reference(features, targets, weights[k], penalty)
            np.testing.assert_allclose(heads.weight[k, p], weight, rtol=1e-5, atol=1e-6)
            predicted = features @ weight.T + intercept
            found = features @ heads.weight[k, p].numpy().T + heads.intercept[k, p].numpy()
            np.testing.assert_allclose(found, predicted, rtol=1e-5, atol=1e-5)
            error = np.square(found - targets).T @ (weights[k] / weights[k].sum())
            loss = error + penalty * np.square(heads.weight[k, p].numpy()).sum(1)
            np.testing.assert_allclose(heads.loss[k, p], loss, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(30, 5), (5, 30)])
def test_no_penalty_gives_the_least_squares_solution_of_smallest_norm(n: int, d: int) -> None:
    features, targets, _ = problem(n, d, 2, 1, 0)
    features = np.column_stack([features, features[:, :2]])  # never of full column rank
    weights = torch.ones(1, n)
    heads = fit_ridge(
        torch.from_numpy(features), torch.from_numpy(targets), weights, torch.zeros(1)
    )
    expected = np.linalg.pinv(features - features.mean(0), rcond=1e-10) @ (
        targets - targets.mean(0)
    )
    np.testing.assert_allclose(heads.weight[0, 0].numpy().T, expected, atol=1e-8)


@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_a_constant_target_is_predicted_exactly(l2: float) -> None:
    features, _, weights = problem(40, 6, 1, 3, 0)
    constants = torch.tensor([0.1, 0.7, 1e5 / 3, -123.456], dtype=torch.float64)
    targets = constants.repeat(40, 1)
    heads = fit_ridge(
        torch.from_numpy(features), targets, torch.from_numpy(weights), torch.tensor([l2])
    )
    assert (heads.weight == 0).all()
    assert (heads.intercept == constants).all()


def test_constant_features_predict_the_weighted_mean() -> None:
    heads = fit_ridge(
        torch.ones(3, 2),
        torch.tensor([[1.0], [2], [6]]),
        torch.tensor([[1.0, 1, 2]]),
        torch.zeros(1),
    )
    assert (heads.weight == 0).all()
    assert float(heads.intercept) == pytest.approx(3.75)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": torch.ones(4)}, "features must be"),
        ({"features": torch.full((4, 2), torch.nan)}, "features contain"),
        ({"targets": torch.ones(4)}, "targets must be"),
        ({"targets": torch.ones(4, 1, dtype=torch.int64)}, "targets must be"),
        ({"targets": torch.full((4, 1), torch.inf)}, "targets contain"),
        ({"targets": torch.ones(3, 1)}, "3 rows"),
        ({"weights": torch.ones(1, 3)}, "weights must be"),
        ({"weights": torch.zeros(1, 4)}, "positive"),
        ({"l2": torch.tensor([-1.0])}, ">= 0"),
        ({"l2": torch.tensor(1.0)}, "non-empty vector"),
    ],
)
def test_bad_input(change: dict[str, torch.Tensor], words: str) -> None:
    arguments = {
        "features": torch.rand(4, 2),
        "targets": torch.rand(4, 1),
        "weights": torch.ones(1, 4),
        "l2": torch.ones(1),
    }
    with pytest.raises(InputError, match=words):
        fit_ridge(**(arguments | change))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("n", "d"), [(300, 20), (20, 300)])
def test_cuda_agrees_with_cpu(n: int, d: int) -> None:
    arrays = [torch.from_numpy(array) for array in problem(n, d, 3, 4, 0)]
    l2 = torch.tensor([1e-3, 1.0], dtype=torch.float64)
    here = fit_ridge(*arrays, l2)
    there = fit_ridge(*(array.cuda() for array in arrays), l2.cuda())
    assert there.weight.is_cuda
    torch.testing.assert_close(there.weight.cpu(), here.weight, atol=1e-7, rtol=1e-7)
