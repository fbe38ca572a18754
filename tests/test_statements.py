"""Statements of the theory that the code must keep, each against a formula of its own.

The source is Feng et al., "Transferred Discrepancy", arXiv 2007.12446, and what follows from its
definitions. Every test is written so that a plausible mistake would fail it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression

from td_ray.arrays.discrepancy import transferred_discrepancy
from td_ray.heads import ClassTarget, Target, ValueTarget, fit_heads, fit_scaling
from td_ray.inference import cross_discrepancy, excess, noise_floor
from td_ray.measures import disagreement, value_distance

Array = np.ndarray[Any, Any]


def predict(
    train: Array,
    held_out: Array,
    target: Target,
    *,
    scaling: str = "column",
    l2: float = 1e-2,
    head: str | None = None,
    weights: Array | None = None,
) -> Array:
    """(K, m) predictions of the fitted heads; values are centred by the training mean."""
    fitted_scaling = fit_scaling(torch.from_numpy(train), scaling)
    shares = np.ones((1, len(train))) if weights is None else weights
    labels = isinstance(target, ClassTarget)
    heads = fit_heads(
        head or ("logistic" if labels else "ridge"),
        fitted_scaling.apply(torch.from_numpy(train)),
        target,
        torch.from_numpy(shares),
        l2,
    )
    found = heads.predict(fitted_scaling.apply(torch.from_numpy(held_out))).numpy()
    return np.asarray(found if isinstance(target, ClassTarget) else found - centre(target))


def centre(target: ValueTarget) -> float:
    return float(target.values.mean())


class Problem:
    """Features of very different column scales, and a target of each type that they do not span."""

    def __init__(self, n: int = 150, m: int = 400, d: int = 6, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        mix = self.rng.standard_normal((d, d)) * np.logspace(0, 1, d)
        hidden = self.rng.standard_normal((n + m, d))
        every = hidden @ mix + 3
        signal = hidden[:, :3] + 0.7 * self.rng.standard_normal((n + m, 3))
        self.train, self.held_out = every[:n], every[n:]
        self.classes = ClassTarget(torch.from_numpy(signal[:n].argmax(1)), 3)
        self.values = ValueTarget(torch.from_numpy(signal[:n, 0] + signal[:n, 1] ** 2))

    def distances(self, matrix: Array, shift: Array | float, scaling: str, l2: float) -> Array:
        """Regression and classification td between the features and their affine image."""
        image = [rows @ matrix + shift for rows in (self.train, self.held_out)]
        pairs = [
            (
                predict(self.train, self.held_out, target, scaling=scaling, l2=l2, head=head),
                predict(image[0], image[1], target, scaling=scaling, l2=l2, head=head),
            )
            for target, head in ((self.values, "ridge"), (self.classes, self._head(l2)))
        ]
        return np.array([value_distance(*pairs[0])[0, 0], disagreement(*pairs[1])[0, 0]])

    @staticmethod
    def _head(l2: float) -> str:
        return "logistic" if l2 > 0 else "ridge"

    def rotation(self) -> Array:
        return np.asarray(np.linalg.qr(self.rng.standard_normal((self.train.shape[1],) * 2))[0])

    def scales(self) -> Array:
        d = self.train.shape[1]
        return np.diag(self.rng.choice([-1, 1], d) * np.logspace(-1, 1, d))

    def permutation(self) -> Array:
        return np.asarray(np.eye(self.train.shape[1])[self.rng.permutation(self.train.shape[1])])

    def invertible(self) -> Array:
        return self.rotation() @ self.scales() @ self.rotation()


# Statement 1


def test_td_is_a_squared_or_plain_metric_on_the_predictions_of_one_task() -> None:
    problem = Problem()
    views = [problem.rng.standard_normal((6, width)) for width in (1, 2, 3, 4, 6)]
    for target, distance, root in (
        (problem.classes, disagreement, lambda x: x),
        (problem.values, value_distance, np.sqrt),
    ):
        rows = np.concatenate(
            [predict(problem.train @ view, problem.held_out @ view, target) for view in views]
        )
        metric = root(distance(rows, rows))
        assert (np.diag(metric) == 0).all()
        np.testing.assert_allclose(metric, metric.T, rtol=1e-12)
        assert (metric + np.eye(5) > 0.02).all()
        detour = (metric[:, :, None] + metric[None, :, :]).min(axis=1)
        assert (metric <= detour + 1e-12).all()


def test_td_of_a_representation_with_itself_is_zero() -> None:
    problem = Problem()
    train, held_out = problem.train, problem.held_out
    for y, head in ((problem.classes.codes, "logistic"), (problem.values.values, "ridge")):
        assert transferred_discrepancy(train, train, y, held_out, held_out, head=head) == 0


# Statement 2


@pytest.mark.parametrize(
    ("scaling", "change", "l2"),
    [
        ("none", "rotation", 1e-2),
        ("global", "rotation", 1e-2),
        ("column", "permutation", 1e-2),
        ("column", "scales", 1e-2),
        ("whiten", "invertible", 1e-2),
        ("none", "invertible", 0.0),
        ("column", "invertible", 0.0),
    ],
)
def test_invariances_that_hold(scaling: str, change: str, l2: float) -> None:
    problem = Problem()
    shift = problem.rng.standard_normal(6)
    regression, classification = problem.distances(getattr(problem, change)(), shift, scaling, l2)
    assert regression < 1e-15
    assert classification == 0


@pytest.mark.parametrize(
    ("scaling", "change"),
    [
        ("column", "rotation"),
        ("none", "scales"),
        ("global", "scales"),
        ("column", "invertible"),
    ],
)
def test_invariances_that_do_not_hold(scaling: str, change: str) -> None:
    problem = Problem()
    # A strong penalty makes the difference plain: where it holds, regression td is below 1e-15.
    distances = problem.distances(getattr(problem, change)(), 0.0, scaling, 1.0)
    assert (distances > 1e-3).all()


def test_global_scaling_removes_the_unit_and_none_does_not() -> None:
    problem = Problem()
    matrix = 0.01 * np.eye(6)
    assert problem.distances(matrix, 0.0, "global", 1.0)[0] < 1e-15
    assert problem.distances(matrix, 0.0, "none", 1.0)[0] > 0.01


# Statement 3


def test_regression_td_is_two_minus_two_cosines_and_ignores_the_targets_scale_and_shift() -> None:
    problem = Problem()
    view = problem.rng.standard_normal((6, 3))
    y = problem.values.values.numpy()
    arrays = problem.train, problem.train @ view, problem.held_out, problem.held_out @ view

    def td(target: Array) -> float:
        a_train, b_train, a_eval, b_eval = arrays
        return transferred_discrepancy(
            a_train, b_train, target, a_eval, b_eval, head="ridge", l2=0.1
        )

    u, v = (predict(arrays[i], arrays[i + 2], problem.values, l2=0.1)[0] for i in (0, 1))
    cosine = (u @ v) / np.sqrt((u @ u) * (v @ v))
    assert td(y) == pytest.approx(2 - 2 * cosine, rel=1e-9)
    assert 0.01 < td(y) < 4
    for scale, shift in ((1e6, 0.0), (-2.0, 5.0), (1e-6, -3e-5), (1.0, 1e4)):
        assert td(scale * y + shift) == pytest.approx(td(y), rel=1e-6)


# Statement 4


def independent(n: int, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """Two independent feature matrices on n training and n held-out rows."""
    a, b = np.random.default_rng(seed).standard_normal((2, 2 * n, 3))
    return a[:n], b[:n], a[n:], b[n:]


def test_independent_features_give_two() -> None:
    a, b, a_eval, b_eval = independent(20_000)
    y = a[:, 0] + b[:, 0] + 3
    assert transferred_discrepancy(a, b, y, a_eval, b_eval, head="ridge") == pytest.approx(
        2, abs=0.05
    )
    target = ValueTarget(torch.from_numpy(y))
    u, v = predict(a, a_eval, target), predict(b, b_eval, target)
    assert value_distance(u, v, "mean")[0, 0] == pytest.approx(2, abs=0.05)
    # Without the centring the mean of the target passes for agreement.
    uncentred = value_distance(u + centre(target), v + centre(target))[0, 0]
    assert uncentred == pytest.approx(2 - 2 * 9 / (9 + 1), abs=0.02)


def test_independent_binary_predictions_disagree_on_half() -> None:
    a, b, a_eval, b_eval = independent(10_000)
    y = (a[:, 0] + b[:, 0] > 0).astype(int)
    assert transferred_discrepancy(a, b, y, a_eval, b_eval) == pytest.approx(0.5, abs=0.02)


def test_independent_multiclass_predictions_disagree_as_their_frequencies_say() -> None:
    a, b, a_eval, b_eval = independent(10_000)
    codes = (a + b + [0.7, 0, -0.5]).argmax(1)
    target = ClassTarget(torch.from_numpy(codes), 3)
    u, v = predict(a, a_eval, target), predict(b, b_eval, target)
    p, q = (np.bincount(row[0], minlength=3) / len(row[0]) for row in (u, v))
    assert p.max() > 0.5
    assert disagreement(u, v)[0, 0] == pytest.approx(1 - p @ q, abs=0.02)


# Statement 7


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.5, 0.9, 0.999])
def test_gaussian_scores_relate_the_two_distances(correlation: float) -> None:
    rng = np.random.default_rng(0)
    u, noise = rng.standard_normal((2, 1, 400_000))
    v = 3 * (correlation * u + np.sqrt(1 - correlation**2) * noise)
    binary = disagreement((u > 0).astype("uint8"), (v > 0).astype("uint8"))[0, 0]
    regression = value_distance(u, v)[0, 0]
    assert binary == pytest.approx(np.arccos(1 - regression / 2) / np.pi, abs=3e-3)
    assert regression == pytest.approx(2 - 2 * correlation, abs=0.01)


# Statement 8


def test_nested_spans_by_least_squares() -> None:
    rng = np.random.default_rng(0)
    big = rng.standard_normal((200, 8)) @ rng.standard_normal((8, 8))
    small = big @ rng.standard_normal((8, 3))
    y = big @ rng.standard_normal(8) + 4 * rng.standard_normal(200) + 2
    found = transferred_discrepancy(big, small, y, big, small, head="ridge", l2=0.0)
    explained = []
    for span in (big, small):
        design = np.column_stack([span, np.ones(200)])
        residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        explained.append(1 - residual.var() / y.var())
    assert 0.05 < explained[1] < 0.9 * explained[0] < 0.9
    assert found == pytest.approx(2 - 2 * np.sqrt(explained[1] / explained[0]), rel=1e-9)


# Statement 9


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_errors_bound_the_disagreement(classes: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 300)
    heads = np.array(
        [
            np.where(rng.random(300) < e, rng.integers(0, classes, 300), y)
            for e in (0.0, 0.1, 0.5, 0.9, 1.0)
        ]
    )
    td = disagreement(heads, heads)
    error = (heads != y).mean(1)
    for i in range(5):
        for j in range(5):
            one_right = ((heads[i] == y) != (heads[j] == y)).mean()
            both = (heads[i] != y) & (heads[j] != y) & (heads[i] != heads[j])
            assert td[i, j] == pytest.approx(one_right + both.mean(), abs=1e-12)
            total = error[i] + error[j]
            high = min(total, 2 - total) if classes == 2 else min(1.0, total)
            assert abs(error[i] - error[j]) - 1e-12 <= td[i, j] <= high + 1e-12


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_independent_uniform_errors(classes: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 200_000)
    errors = 0.1, 0.4

    def head(error: float) -> Array:
        wrong = (y + rng.integers(1, classes, len(y))) % classes
        return np.where(rng.random(len(y)) < error, wrong, y)[None]

    e, f = errors
    expected = 1 - (1 - e) * (1 - f) - e * f / (classes - 1)
    assert disagreement(head(e), head(f))[0, 0] == pytest.approx(expected, abs=5e-3)


# Statement 10


@pytest.mark.parametrize("head", ["logistic", "ridge"])
def test_heads_that_interpolate_agree_on_the_fitting_set_only(head: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 260, 80))
    y = rng.integers(0, 3, 60)
    l2 = 1e-6 if head == "logistic" else 0.0
    fitting = transferred_discrepancy(a[:60], b[:60], y, a[:60], b[:60], head=head, l2=l2)
    assert fitting == 0
    held_out = transferred_discrepancy(a[:60], b[:60], y, a[60:], b[60:], head=head, l2=l2)
    assert held_out > 0.4


# Statement 11


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
@pytest.mark.parametrize("l2", [1e-2, 1e-4])
def test_agrees_with_an_independent_solver_on_every_clear_example(load: Any, l2: float) -> None:
    data = load()
    n = len(data.data) // 2
    scaling = fit_scaling(torch.from_numpy(data.data[:n]))
    features = scaling.apply(torch.from_numpy(data.data))
    classes = len(data.target_names)
    # Scikit-learn has one vector for two classes, which is our problem at half the penalty.
    strength = (2 if classes == 2 else 1) / (l2 * n)
    solver = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-9, max_iter=500)
    solver.fit(features[:n].numpy(), data.target[:n])
    odds = solver.predict_proba(features[n:].numpy())
    target = ClassTarget(torch.from_numpy(data.target[:n]), classes)
    heads = fit_heads("logistic", features[:n], target, torch.ones(1, n), l2)
    ours = torch.softmax(heads.scores(features[n:])[0], 1).numpy()
    np.testing.assert_allclose(ours, odds, atol=3e-3)
    best = np.sort(odds, 1)
    clear = best[:, -1] - best[:, -2] > 1e-3
    assert clear.mean() > 0.99
    predicted = heads.predict(features[n:])[0].numpy()
    assert (predicted == solver.predict(features[n:].numpy()))[clear].all()


# Statement 12


def halves(problem: Problem, seeds: int) -> Array:
    """(2 seeds, n) indicator weights of complementary halves: A_0, B_0, A_1, B_1, ..."""
    n = len(problem.train)
    first = np.array([problem.rng.permutation(n) < n // 2 for _ in range(seeds)])
    return np.stack([first, ~first], 1).reshape(2 * seeds, n).astype(float)


@pytest.mark.parametrize("regression", [False, True])
def test_excess_is_zero_for_the_same_representation_up_to_an_invariance(regression: bool) -> None:
    problem = Problem()
    target: Target = problem.values if regression else problem.classes
    distance = value_distance if regression else disagreement
    weights = halves(problem, seeds=4)
    turned = problem.rotation()
    poorer = problem.rng.standard_normal((6, 2))
    half_a, half_b = [], []
    for matrix in (np.eye(6), turned, poorer):
        found = predict(
            problem.train @ matrix + 1,
            problem.held_out @ matrix + 1,
            target,
            scaling="global",
            weights=weights,
        )
        half_a.append(found[0::2])
        half_b.append(found[1::2])
    stacked_a, stacked_b = np.stack(half_a, 1), np.stack(half_b, 1)
    floor = noise_floor(stacked_a, stacked_b, distance)
    tdx = cross_discrepancy(stacked_a, stacked_b, stacked_a, stacked_b, distance)
    beyond = excess(tdx, floor, floor)
    assert (floor > 0.01).all()
    np.testing.assert_allclose(beyond[:2, :2], 0, atol=1e-12)
    assert (beyond[2, :2] > 0.05).all()
