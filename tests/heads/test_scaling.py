"""Scalings of features: their definitions, and what they do with degenerate columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from td_ray.errors import InputError
from td_ray.heads.rows import ScaledRows
from td_ray.heads.scaling import ROWS, SCALINGS, Scaling, fit_scaling

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


PRECISIONS = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}


@pytest.mark.parametrize(("stored", "computed"), PRECISIONS.items(), ids=str)
def test_none_changes_nothing(
    features: torch.Tensor, stored: torch.dtype, computed: torch.dtype
) -> None:
    rounded = features.to(stored)
    scaled = fit_scaling(rounded, "none").apply(rounded)
    assert scaled.dtype == computed
    assert torch.equal(scaled, rounded.to(computed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_narrow_features_are_computed_in_float64_and_rounded_once(
    features: torch.Tensor, kind: str, stored: torch.dtype
) -> None:
    rounded = features.to(stored)
    scaling = fit_scaling(rounded, kind)
    wide = scaling.apply(rounded.to(torch.float64))
    assert wide.dtype == torch.float64
    assert torch.equal(scaling.apply(rounded), wide.to(torch.float32))
    if kind in ("column", "global"):  # the statistics are not rounded to the stored precision
        exact = fit_scaling(rounded.to(torch.float64), kind)
        assert torch.equal(scaling.centre, exact.centre)
        assert torch.equal(scaling.factor, exact.factor)


@pytest.mark.parametrize("kind", KINDS)
@settings(derandomize=True, deadline=None, max_examples=20, database=None)
@given(
    start=st.integers(0, 3 * ROWS),
    size=st.integers(1, 2 * ROWS),
    width=st.sampled_from([1, 7, 130]),
)
def test_a_row_is_scaled_alike_whatever_stands_beside_it(
    kind: str, start: int, size: int, width: int
) -> None:
    matrix = torch.randn(4 * ROWS, width, generator=torch.Generator().manual_seed(width)) + 2
    scaling = fit_scaling(matrix, kind)
    part = matrix[start : start + size]
    assert torch.equal(scaling.apply(part), scaling.apply(matrix)[start : start + size])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3 * ROWS + 5, 7), (ROWS, 40), (50, 130)])
def test_statistics_of_blocks_are_those_of_the_whole(kind: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal(shape) @ rng.standard_normal((shape[1], shape[1])) + 100
    scaling = fit_scaling(torch.from_numpy(matrix), kind)
    centred = matrix - matrix.mean(0)
    scaled = scaling.apply(torch.from_numpy(matrix)).numpy()
    if kind == "column":
        np.testing.assert_allclose(scaled, centred / matrix.std(0), rtol=1e-11, atol=1e-11)
    if kind == "global":
        unit = np.sqrt(shape[1] / np.square(centred).mean(0).sum())
        np.testing.assert_allclose(scaled, centred * unit, rtol=1e-11, atol=1e-11)
    if kind == "whiten":  # its axes are unique up to signs, and U from numpy's SVD spans them
        left, singular, _ = np.linalg.svd(centred, full_matrices=False)
        left = left[:, singular > 1e-10 * singular[0]]
        assert scaled.shape == left.shape
        projected = left @ (left.T @ scaled)
        np.testing.assert_allclose(projected, scaled, atol=1e-9)
        np.testing.assert_allclose(np.cov(scaled.T, bias=True), np.eye(left.shape[1]), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_streaming_gives_the_same_bytes(kind: str) -> None:
    matrix = torch.randn(900, 40, generator=torch.Generator().manual_seed(0)) * 3 + 1
    used = torch.rand(900, generator=torch.Generator().manual_seed(1)) < 0.7
    expected, found = fit_scaling(matrix[used], kind), fit_scaling(ScaledRows(matrix, used), kind)
    for one, other in zip(tensors(expected), tensors(found), strict=True):
        assert torch.equal(one, other)


def tensors(scaling: Scaling) -> list[torch.Tensor]:
    return [x for x in (scaling.centre, scaling.factor, scaling.axes) if x is not None]


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16], ids=str)
def test_whiten_drops_what_the_stored_precision_rounded_in(stored: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(400, 3, generator=generator) @ torch.randn(3, 12, generator=generator)
    rounded = signal.to(stored)
    assert torch.linalg.matrix_rank(rounded.to(torch.float64)) == 12
    assert fit_scaling(rounded, "whiten").apply(rounded).shape == (400, 3)


def test_whiten_gives_unit_covariance_and_drops_null_directions(features: torch.Tensor) -> None:
    dependent = torch.cat([features, features[:, :2] @ torch.ones(2, 1, dtype=torch.float64)], 1)
    scaled = fit_scaling(dependent, "whiten").apply(dependent).numpy()
    assert scaled.shape == (60, 4)
    np.testing.assert_allclose(np.cov(scaled.T, bias=True), np.eye(4), atol=1e-10)


def test_whiten_with_fewer_rows_than_columns() -> None:
    wide = torch.randn(10, 40, generator=torch.Generator().manual_seed(0))
    scaled = fit_scaling(wide, "whiten").apply(wide)
    assert scaled.shape == (10, 9)
    np.testing.assert_allclose(np.cov(scaled.numpy().T, bias=True), np.eye(9), atol=1e-6)


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
