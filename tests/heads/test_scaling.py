"""Scalings of features: their definitions, and what they do with degenerate columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from td_ray.errors import InputError
from td_ray.heads.scaling import SCALINGS, fit_scaling

KINDS = list(SCALINGS)


@pytest.fixture
def features() -> torch.Tensor:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 5)) * [1, 10, 0.1, 3, 2] + 7
    values[:, 3] = 0.1  # a constant whose float64 mean is not 0.1
    return torch.from_numpy(values)


def test_column_centres_and_divides_by_the_deviation(features: torch.Tensor) -> None:
    scaled = fit_scaling(features).apply(features).numpy()
    expected = features.numpy() - features.numpy().mean(0)
    varying = [0, 1, 2, 4]
    expected[:, varying] /= features.numpy()[:, varying].std(0)
    np.testing.assert_allclose(scaled[:, varying], expected[:, varying], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["column", "global"])
def test_constant_columns_become_exactly_zero(features: torch.Tensor, kind: str) -> None:
    scaling = fit_scaling(features, kind)
    assert (scaling.apply(features)[:, 3] == 0).all()
    assert (scaling.apply(features + 5)[:, 3] == 0).all()
    for rows in range(3, 30):  # of these, some have a mean that is off by rounding
        constants = torch.tensor([0.1, 0.7, 1e5 / 3], dtype=torch.float64).repeat(rows, 1)
        assert (fit_scaling(constants, kind).apply(constants + 1) == 0).all()


def test_global_uses_one_factor_and_mean_squared_norm_is_the_width(features: torch.Tensor) -> None:
    scaled = fit_scaling(features, "global").apply(features).numpy()
    assert np.square(scaled).sum(1).mean() == pytest.approx(5, rel=1e-12)
    centred = features.numpy() - features.numpy().mean(0)
    ratio = (scaled / np.where(centred == 0, 1, centred))[:, [0, 1, 2, 4]]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-9)


def test_none_changes_nothing_but_the_precision(features: torch.Tensor) -> None:
    single = features.to(torch.float32)
    scaled = fit_scaling(single, "none").apply(single)
    assert scaled.dtype == torch.float64
    assert torch.equal(scaled, single.to(torch.float64))


def test_whiten_gives_unit_covariance_and_drops_null_directions(features: torch.Tensor) -> None:
    dependent = torch.cat([features, features[:, :2] @ torch.ones(2, 1, dtype=torch.float64)], 1)
    scaled = fit_scaling(dependent, "whiten").apply(dependent).numpy()
    assert scaled.shape == (60, 4)
    np.testing.assert_allclose(np.cov(scaled.T, bias=True), np.eye(4), atol=1e-10)


def test_whiten_with_fewer_rows_than_columns() -> None:
    wide = torch.randn(10, 40, generator=torch.Generator().manual_seed(0))
    scaled = fit_scaling(wide, "whiten").apply(wide)
    assert scaled.shape == (10, 9)
    np.testing.assert_allclose(np.cov(scaled.numpy().T, bias=True), np.eye(9), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_the_fitted_rows(features: torch.Tensor, kind: str) -> None:
    scaling = fit_scaling(features[:40], kind)
    assert torch.equal(scaling.apply(features)[:40], scaling.apply(features[:40]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_extreme_units(features: torch.Tensor, kind: str, factor: float) -> None:
    scaled = fit_scaling(features * factor, kind).apply(features * factor)
    assert scaled.isfinite().all()
    if kind in ("column", "global"):
        torch.testing.assert_close(scaled, fit_scaling(features, kind).apply(features))


@pytest.mark.parametrize(
    ("features", "kind", "words"),
    [
        (torch.ones(3, 2), "colunm", "did you mean 'column'"),
        (torch.ones(3), "column", "non-empty"),
        (torch.ones(0, 2), "column", "non-empty"),
        (torch.ones(3, 2, dtype=torch.int64), "column", "floating"),
        (torch.tensor([[1.0, torch.nan]]), "none", "NaN"),
    ],
)
def test_bad_input(features: torch.Tensor, kind: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit_scaling(features, kind)


def test_another_width_is_refused() -> None:
    with pytest.raises(InputError, match="2 features per row"):
        fit_scaling(torch.rand(3, 2)).apply(torch.rand(3, 3))
