"""Logistic heads against independent solvers, on hard problems, and in what they report."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logistic_problems import assert_optimal, penalties, problem, reference, value_and_gradient

from td_ray.errors import InputError
from td_ray.heads import logistic
from td_ray.heads.logistic import LogisticHeads, fit_logistic


@settings(derandomize=True, deadline=None, max_examples=25, database=None)
@given(
    n=st.integers(6, 40),
    d=st.integers(1, 5),
    classes=st.integers(2, 4),
    l2=st.sampled_from([1e-1, 1e-2, 1e-3]),
    seed=st.integers(0, 10**6),
)
def test_random_problems_agree_with_scipy(
    n: int, d: int, classes: int, l2: float, seed: int
) -> None:
    features, codes, weights = problem(n, d, classes, seed=seed)
    weights = torch.from_numpy(np.random.default_rng(seed).random((1, n)) + 0.1)
    heads = fit_logistic(features, codes, weights, penalties(1, l2), classes)
    expected = reference(features.numpy(), codes.numpy(), weights[0].numpy(), l2, classes)
    assert_optimal(heads, features, codes, weights, l2)
    # The loss is l2-strongly convex in W: a gradient g leaves an error of at most |g| / l2 there.
    np.testing.assert_allclose(heads.weight[0], expected[:, :-1], atol=2e-3 * d, rtol=1e-3)
    best = value_and_gradient(
        expected[:, :-1], expected[:, -1], features.numpy(), codes.numpy(), weights[0].numpy(), l2
    )[0]
    assert float(heads.loss[0]) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(
    ("n", "d", "classes", "l2", "apart"),
    [
        (200, 20, 5, 1e-3, 0.5),
        (200, 20, 5, 1e-6, 0.5),
        (200, 20, 2, 1e-6, 3.0),  # separable
        (300, 30, 10, 1e-6, 3.0),  # separable
        (50, 300, 4, 1e-3, 0.5),  # fewer rows than columns
        (50, 300, 4, 1e-6, 0.0),
        (1100, 4, 1000, 1e-3, 2.0),
        (40, 1, 3, 1e-3, 1.0),
        (60, 5, 3, 1e4, 1.0),
    ],
)
def test_hard_problems_reach_the_bound(
    n: int, d: int, classes: int, l2: float, apart: float
) -> None:
    features, codes, weights = problem(n, d, classes, 3, apart=apart)
    heads = fit_logistic(features, codes, weights, penalties(3, l2), classes)
    assert_optimal(heads, features, codes, weights, l2)


@pytest.mark.parametrize("factor", [1e-30, 1e6, 1e9, 1e30])
def test_features_of_any_scale(factor: float) -> None:
    features, codes, weights = problem(120, 10, 3, 2, apart=0.3)
    heads = fit_logistic(features * factor, codes, weights, penalties(2, 1e-1), 3)
    if factor <= 1e9:
        assert_optimal(heads, features * factor, codes, weights, 1e-1)
    # Beyond, rounding alone keeps the gradient above the bound, and the head must not hide it.
    assert heads.converged.tolist() == (heads.gradient_norm <= 1e-5).tolist()
    assert heads.weight.isfinite().all()


@pytest.mark.parametrize("l2", [1e-3, 1e-6])
@pytest.mark.parametrize("trouble", ["tiny", "large", "mixed", "offset", "repeated", "constant"])
def test_degenerate_features_reach_the_bound(trouble: str, l2: float) -> None:
    features, codes, weights = problem(120, 10, 3, 2, apart=0.3)
    features = {
        "tiny": features * 1e-8,
        "large": features * 1e3,
        "mixed": features * torch.logspace(-6, 3, 10, dtype=torch.float64),
        "offset": features + 1e3,
        "repeated": torch.cat([features] * 3, 1),
        "constant": torch.cat([features, torch.full((120, 2), 3.0, dtype=torch.float64)], 1),
    }[trouble]
    heads = fit_logistic(features, codes, weights, penalties(2, l2), 3)
    assert_optimal(heads, features, codes, weights, l2)
    if trouble == "constant":
        # Strong convexity: a gradient g leaves an error of at most |g| / l2 in the weights.
        assert heads.weight[:, :, -2:].abs().max() <= 1e-2 * min(l2, 1e-3) / l2


def test_all_features_constant_predicts_the_class_frequencies() -> None:
    codes = torch.tensor([0, 0, 0, 1])
    heads = fit_logistic(torch.ones(4, 2), codes, torch.ones(1, 4), penalties(1, 1e-3), 2)
    assert heads.converged.all()
    assert heads.weight.abs().max() < 1e-6
    odds = torch.softmax(heads.intercept[0], 0)
    torch.testing.assert_close(odds, torch.tensor([0.75, 0.25]).double(), atol=1e-5, rtol=0)


def test_each_head_has_its_own_penalty_weights_and_codes() -> None:
    features, codes, weights = problem(80, 6, 3, 4)
    l2 = torch.tensor([1e-1, 1e-2, 1e-4, 1e-3], dtype=torch.float64)
    all_codes = torch.stack([codes, codes.flip(0), (codes + 1) % 3, codes])
    together = fit_logistic(features, all_codes, weights, l2, 3)
    for k in range(4):
        alone = fit_logistic(features, all_codes[k], weights[k : k + 1], l2[k : k + 1], 3)
        torch.testing.assert_close(together.weight[k], alone.weight[0], atol=1e-3, rtol=1e-3)
        assert float(together.loss[k]) == pytest.approx(float(alone.loss[0]), abs=1e-10)


def test_weights_count_rows() -> None:
    features, codes, _ = problem(40, 4, 3)
    counts = torch.from_numpy(np.random.default_rng(1).integers(0, 4, 40))
    heads = fit_logistic(features, codes, 7.0 * counts[None], penalties(1, 1e-2), 3)
    repeated, labels = features.repeat_interleave(counts, 0), codes.repeat_interleave(counts)
    expected = fit_logistic(repeated, labels, torch.ones(1, len(labels)), penalties(1, 1e-2), 3)
    torch.testing.assert_close(heads.weight, expected.weight, atol=1e-3, rtol=0)
    assert float(heads.loss) == pytest.approx(float(expected.loss), abs=1e-7)


def test_a_class_absent_from_one_half_is_removed_from_that_head_only() -> None:
    features, codes, weights = problem(90, 5, 4, 2)
    weights[1] = (codes != 2).to(torch.float64)
    heads = fit_logistic(features, codes, weights, penalties(2, 1e-3), 4)
    assert heads.present.tolist() == [[True] * 4, [True, True, False, True]]
    assert heads.intercept[1, 2] == -torch.inf
    assert (heads.weight[1, 2] == 0).all()
    assert_optimal(heads, features, codes, weights, 1e-3)


@pytest.mark.parametrize("first", ["full", "half", "half without a class"])
@pytest.mark.parametrize("targets", ["one", "many"])
def test_halves_of_many_classes_are_fitted_on_their_rows(
    first: str, targets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, codes, weights = problem(600, 8, logistic.MANY_CLASSES, 5)
    weights[3] *= codes != 1
    order = {"full": [0, 1, 2, 3, 4], "half": [1, 2, 0, 4, 3], "half without a class": [3, 1, 2, 4]}
    weights = weights[order[first]]
    everyone = codes if targets == "one" else (codes + torch.arange(len(weights))[:, None]) % 32
    seen = []
    fit = logistic._Solver.fit
    monkeypatch.setattr(
        logistic._Solver, "fit", lambda self, x, *rest: seen.append(len(x)) or fit(self, x, *rest)
    )
    heads = fit_logistic(features, everyone, weights, penalties(len(weights), 1e-3), 32)
    support = (weights > 0).sum(1)
    assert sorted(seen) == sorted(support.tolist())
    for k in range(len(weights)):
        alone = LogisticHeads(*(x[k : k + 1] for x in vars(heads).values()))
        own = codes if targets == "one" else everyone[k]
        assert_optimal(alone, features, own, weights[k : k + 1], 1e-3)


def test_single_precision_features_are_fitted_in_double() -> None:
    features, codes, weights = problem(60, 5, 3)
    features = features.to(torch.float32)
    heads = fit_logistic(features, codes, weights, penalties(1, 1e-3), 3)
    assert heads.weight.dtype == torch.float64
    assert_optimal(heads, features, codes, weights, 1e-3)


def test_a_head_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    features, codes, weights = problem(60, 5, 3, 2)
    monkeypatch.setattr(logistic, "MAX_EVALUATIONS", 3)
    heads = fit_logistic(features, codes, weights, penalties(2, 1e-4), 3)
    assert not heads.converged.any()
    assert (heads.gradient_norm > 1e-6).all()
    assert heads.iterations.tolist() == [6, 6]  # three in each precision


def test_convergence_is_decided_by_the_given_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    # 1e12 away from the origin float64 cannot make the gradient vanish; it must not pretend to.
    monkeypatch.setattr(logistic, "MAX_EVALUATIONS", 100)
    features, codes, weights = problem(60, 5, 3)
    heads = fit_logistic(features + 1e12, codes, weights, penalties(1, 1e-6), 3)
    assert not heads.converged.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": torch.ones(4)}, "features must be"),
        ({"features": torch.ones(4, 2, dtype=torch.int64)}, "features must be"),
        ({"features": torch.full((4, 2), torch.inf)}, "NaN or infinity"),
        ({"features": torch.full((4, 2), torch.nan)}, "NaN or infinity"),
        ({"features": torch.full((4, 2), 1e100, dtype=torch.float64)}, "overflow; scale them"),
        ({"codes": torch.tensor([0, 1, 2])}, "codes must be int64"),
        ({"codes": torch.tensor([0.0, 1, 0, 1])}, "codes must be int64"),
        ({"codes": torch.tensor([0, 1, 0, 2])}, r"0\.\.1"),
        ({"codes": torch.tensor([0, 1, 0, -1])}, r"0\.\.1"),
        ({"weights": torch.ones(1, 3)}, "weights must be"),
        ({"weights": torch.zeros(1, 4)}, "positive"),
        ({"weights": torch.tensor([[1.0, 1, 1, -1]])}, ">= 0"),
        ({"weights": torch.tensor([[1.0, 1, 1, torch.nan]])}, "finite"),
        ({"weights": torch.tensor([[1.0, 0, 1, 0]])}, "single class"),
        ({"l2": torch.zeros(1)}, "> 0"),
        ({"l2": torch.tensor([torch.nan])}, "> 0"),
        ({"l2": torch.ones(2)}, "one penalty per head"),
    ],
)
def test_bad_input(change: dict[str, torch.Tensor], words: str) -> None:
    arguments = {
        "features": torch.rand(4, 2),
        "codes": torch.tensor([0, 1, 0, 1]),
        "weights": torch.ones(1, 4),
        "l2": torch.ones(1),
    }
    with pytest.raises(InputError, match=words):
        fit_logistic(**(arguments | change), n_classes=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu() -> None:
    features, codes, weights = problem(400, 30, 5, 6)
    weights[5] = (codes != 1).to(torch.float64)
    here = fit_logistic(features, codes, weights, penalties(6, 1e-3), 5)
    there = fit_logistic(
        features.cuda(), codes.cuda(), weights.cuda(), penalties(6, 1e-3).cuda(), 5
    )
    assert there.weight.is_cuda
    assert there.converged.all()
    torch.testing.assert_close(there.loss.cpu(), here.loss, atol=1e-10, rtol=0)
    torch.testing.assert_close(there.weight.cpu(), here.weight, atol=1e-3, rtol=1e-3)
