"""Choice of the penalty, and the interface `fit_heads` around it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge

from td_ray.errors import InputError, WorkError
from td_ray.heads import ClassTarget, FittedHeads, Penalty, ValueTarget, fit_heads, logistic
from td_ray.heads.logistic import fit_logistic
from td_ray.heads.penalty import _pick

GRID = [1e-4, 1e-2, 1.0, 100.0]


@pytest.fixture
def features() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((80, 10)))


@pytest.fixture
def classes(features: torch.Tensor) -> ClassTarget:
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((80, 3)))
    return ClassTarget((features[:, :3] + noise).argmax(1), 3)


@pytest.fixture
def values(features: torch.Tensor) -> ValueTarget:
    noise = torch.from_numpy(np.random.default_rng(2).standard_normal(80))
    return ValueTarget(features[:, 0] + 2 * noise + 5)


@pytest.fixture
def validation() -> torch.Tensor:
    return torch.arange(80) % 4 == 0


def penalty_of(fitted: FittedHeads) -> Penalty:
    assert fitted.penalty is not None
    return fitted.penalty


def ones(heads: int = 1, rows: int = 80) -> torch.Tensor:
    return torch.ones(heads, rows, dtype=torch.float64)


def test_logistic_penalty_has_the_smallest_validation_log_loss(
    features: torch.Tensor, classes: ClassTarget, validation: torch.Tensor
) -> None:
    fitted = fit_heads("logistic", features, classes, ones(2), GRID, validation)
    losses = []
    for l2 in GRID:
        head = fit_logistic(
            features[~validation],
            classes.codes[~validation],
            ones(1, 60),
            torch.tensor([l2], dtype=torch.float64),
            3,
        )
        odds = torch.softmax(features[validation] @ head.weight[0].T + head.intercept[0], 1)
        losses.append(-float(odds[torch.arange(20), classes.codes[validation]].log().mean()))
    assert fitted.penalty == Penalty(GRID[int(np.argmin(losses))], "grid", False)
    refitted = fit_heads("logistic", features, classes, ones(2), penalty_of(fitted).value)
    torch.testing.assert_close(fitted.scores(features), refitted.scores(features))
    assert refitted.penalty == Penalty(penalty_of(fitted).value, "fixed", False)


def test_ridge_penalty_has_the_smallest_validation_squared_error(
    features: torch.Tensor, values: ValueTarget, validation: torch.Tensor
) -> None:
    fitted = fit_heads("ridge", features, values, ones(), GRID, validation)
    errors = []
    for l2 in GRID:
        head = SklearnRidge(alpha=l2 * 60).fit(features[~validation], values.values[~validation])
        gap = head.predict(features[validation].numpy()) - values.values[validation].numpy()
        errors.append(np.square(gap).mean())
    assert penalty_of(fitted).value == GRID[int(np.argmin(errors))]


def test_the_validation_rows_do_not_choose_by_their_fit(
    features: torch.Tensor, validation: torch.Tensor
) -> None:
    noise = ValueTarget(torch.from_numpy(np.random.default_rng(3).standard_normal(80)))
    assert penalty_of(fit_heads("ridge", features, noise, ones(), GRID, validation)).value >= 1.0


def test_the_edge_of_a_grid_is_recorded(
    features: torch.Tensor, classes: ClassTarget, validation: torch.Tensor
) -> None:
    for grid in ([1.0, 100.0], [100.0, 1.0]):
        fitted = fit_heads("logistic", features, classes, ones(), grid, validation)
        assert fitted.penalty == Penalty(1.0, "grid", True)
    alone = fit_heads("logistic", features, classes, ones(), [1.0])
    assert alone.penalty == Penalty(1.0, "grid", False)


def test_ties_go_to_the_larger_penalty() -> None:
    assert _pick([1.0, 4.0, 2.0], [0.5, 0.5 * (1 + 1e-10), 0.5]) == 4.0
    assert _pick([1.0, 4.0, 2.0], [0.5, 0.5 * (1 + 1e-8), 0.5]) == 2.0
    constant = fit_heads(
        "ridge",
        torch.ones(4, 1),
        ValueTarget(torch.tensor([0.0, 1, 2, 3]).double()),
        ones(1, 4),
        GRID,
        torch.tensor([True, False, False, False]),
    )
    assert constant.penalty == Penalty(100.0, "grid", True)


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_a_class_that_only_validation_has_is_left_out_of_the_score(
    features: torch.Tensor, classes: ClassTarget, validation: torch.Tensor, kind: str
) -> None:
    codes = classes.codes.clone()
    codes[codes == 2] = 0
    only = torch.nonzero(validation)[:3, 0]
    codes[only] = 2
    with_it = fit_heads(kind, features, ClassTarget(codes, 3), ones(), GRID, validation)
    kept = torch.ones(80, dtype=torch.bool)
    kept[only] = False
    without = fit_heads(
        kind,
        features[kept],
        ClassTarget(codes[kept], 3),
        ones(1, 77),
        GRID,
        validation[kept],
    )
    assert with_it.penalty == without.penalty
    assert with_it.present is not None
    assert with_it.present.all()


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_absent_classes_are_recorded_and_never_predicted(
    features: torch.Tensor, classes: ClassTarget, kind: str
) -> None:
    weights = ones(2)
    weights[1] = (classes.codes != 1).to(torch.float64)
    fitted = fit_heads(kind, features, ClassTarget(classes.codes, 4), weights, 1e-2)
    assert fitted.present is not None
    assert fitted.present.tolist() == [[True, True, True, False], [True, False, True, False]]
    assert (fitted.scores(features)[0, :, 3] == -torch.inf).all()
    predicted = fitted.predict(10 * features)
    assert set(predicted[0].tolist()) == {0, 1, 2}
    assert set(predicted[1].tolist()) == {0, 2}


def test_ridge_on_labels_is_the_argmax_of_one_hot_regressions(
    features: torch.Tensor, classes: ClassTarget
) -> None:
    fitted = fit_heads("ridge", features, classes, ones(), 1e-2)
    expected = SklearnRidge(alpha=1e-2 * 80).fit(features, np.eye(3)[classes.codes])
    np.testing.assert_allclose(
        fitted.scores(features)[0], expected.predict(features.numpy()), atol=1e-9
    )
    assert fitted.predict(features).dtype == torch.int64
    assert torch.equal(fitted.predict(features)[0], fitted.scores(features)[0].argmax(1))


def test_predictions_do_not_depend_on_the_blocks(
    features: torch.Tensor,
    classes: ClassTarget,
    values: ValueTarget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logistic_heads = fit_heads("logistic", features, classes, ones(3), 1e-2)
    ridge_heads = fit_heads("ridge", features, values, ones(3), 0.0)
    whole = logistic_heads.predict(features), ridge_heads.predict(features)
    assert whole[0].shape == whole[1].shape == (3, 80)
    assert (whole[0].dtype, whole[1].dtype) == (torch.int64, torch.float64)
    monkeypatch.setattr("td_ray.heads.validation.BLOCK_BYTES", 1)
    assert torch.equal(logistic_heads.predict(features), whole[0])
    torch.testing.assert_close(ridge_heads.predict(features), whole[1])


def test_heads_that_do_not_converge_are_refused(
    features: torch.Tensor, classes: ClassTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "MAX_EVALUATIONS", 2)
    with pytest.raises(WorkError, match=r"3 of 3 logistic heads .*l2 0\.001; worst gradient"):
        fit_heads("logistic", features, classes, ones(3), 1e-3)


def test_targets_and_heads_that_do_not_fit(
    features: torch.Tensor, classes: ClassTarget, values: ValueTarget
) -> None:
    with pytest.raises(InputError, match=r'takes class labels, not real-valued .* "ridge"'):
        fit_heads("logistic", features, values, ones(), 1.0)
    with pytest.raises(InputError, match="did you mean 'logistic'"):
        fit_heads("logisitc", features, classes, ones(), 1.0)
    with pytest.raises(InputError, match="80 rows but the features have 79"):
        fit_heads("ridge", features[:79], values, ones(), 1.0)
    fitted = fit_heads("ridge", features, values, ones(), 1.0)
    with pytest.raises(InputError, match="10 features per row"):
        fitted.predict(features[:, :9])


@pytest.mark.parametrize(
    ("kind", "l2"),
    [
        ("logistic", 0.0),
        ("logistic", [1.0, 0.0]),
        ("ridge", -1.0),
        ("ridge", math.nan),
        ("logistic", math.inf),
    ],
)
def test_bad_penalties(
    features: torch.Tensor,
    classes: ClassTarget,
    validation: torch.Tensor,
    kind: str,
    l2: float | list[float],
) -> None:
    with pytest.raises(InputError, match="l2 of head"):
        fit_heads(kind, features, classes, ones(), l2, validation)


def test_bad_grids_and_validation(features: torch.Tensor, classes: ClassTarget) -> None:
    def fit(grid: list[float], validation: torch.Tensor | None) -> None:
        fit_heads("logistic", features, classes, ones(), grid, validation)

    some = torch.arange(80) < 20
    with pytest.raises(InputError, match="distinct"):
        fit([], some)
    with pytest.raises(InputError, match="distinct"):
        fit([1.0, 1.0], some)
    with pytest.raises(InputError, match="needs validation rows"):
        fit(GRID, None)
    with pytest.raises(InputError, match="bool per training row"):
        fit(GRID, some[:10])
    with pytest.raises(InputError, match="not all of them"):
        fit(GRID, torch.ones(80, dtype=torch.bool))
    with pytest.raises(InputError, match="not all of them"):
        fit(GRID, torch.zeros(80, dtype=torch.bool))
    with pytest.raises(InputError, match="no validation row has a class"):
        fit_heads(
            "logistic",
            features,
            ClassTarget(torch.where(some, 2, torch.arange(80) % 2), 3),
            ones(),
            GRID,
            some,
        )


def test_log_loss_chooses_and_not_accuracy(
    features: torch.Tensor, classes: ClassTarget, validation: torch.Tensor
) -> None:
    grid = np.logspace(-3, 1, 17).tolist()
    heads = fit_logistic(
        features[~validation],
        classes.codes[~validation],
        ones(len(grid), 60),
        torch.tensor(grid, dtype=torch.float64),
        3,
    )
    scores = (features[validation] @ heads.weight.mT + heads.intercept[:, None]).log_softmax(2)
    held = classes.codes[validation]
    losses = -scores[:, torch.arange(20), held].mean(1)
    wrong = (scores.argmax(2) != held).sum(1)
    best = int(losses.argmin())
    assert best != len(grid) - 1 - int(wrong.flip(0).argmin())
    fitted = fit_heads("logistic", features, classes, ones(), grid, validation)
    assert penalty_of(fitted).value == grid[best]
