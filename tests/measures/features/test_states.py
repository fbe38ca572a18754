"""Work is done once for each model, however pairs are put together, and takes bounded room."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from td_ray.measures.features import find_feature_measure
from td_ray.measures.features.kernels import BLOCK, Kernel, inner_products
from td_ray.measures.features.rsa import doubled_ranks

ALL = ("cka", "cka_debiased", "cca", "procrustes", "gulp", "rsa", "knn")


def models(n: int, widths: tuple[int, ...]) -> list[Any]:
    random = np.random.default_rng(0)
    shared = random.standard_normal((n, 4))
    return [
        shared @ random.standard_normal((4, d)) + random.standard_normal((n, d)) for d in widths
    ]


@pytest.mark.parametrize("name", ALL)
def test_a_rectangle_of_pairs_is_part_of_the_square(name: str) -> None:
    measure = find_feature_measure(name)
    states = [measure.prepare(each) for each in models(70, (3, 20, 50, 90, 200))]
    whole = measure.compare(states, states)
    np.testing.assert_allclose(measure.compare(states[:2], states[1:]), whole[:2, 1:], atol=1e-10)
    np.testing.assert_allclose(measure.compare(states, list(states)), whole, atol=1e-10)


@pytest.mark.parametrize("n", [5, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
@pytest.mark.parametrize("widths", [(2, 3), (2, 400), (900, 1000), (2,) * 40])
def test_inner_products_are_those_of_whole_kernels(n: int, widths: tuple[int, ...]) -> None:
    factors = models(n, widths)
    kernels = [Kernel.of(factor) for factor in factors]
    whole = np.stack([(factor @ factor.T).ravel() for factor in factors])
    found, rows, columns = inner_products(kernels, kernels)
    np.testing.assert_allclose(found, whole @ whole.T, rtol=1e-10)
    np.testing.assert_allclose(rows[:, 0], np.square(whole).sum(1), rtol=1e-10)
    np.testing.assert_array_equal(rows, columns.T)
    found, rows, columns = inner_products(kernels[:1], kernels)
    np.testing.assert_allclose(found, whole[:1] @ whole.T, rtol=1e-10)
    np.testing.assert_allclose(rows, np.square(whole[:1]).sum(1)[:, None], rtol=1e-10)
    np.testing.assert_allclose(columns, np.square(whole).sum(1)[None, :], rtol=1e-10)
    for kernel, factor in zip(kernels, factors, strict=True):
        np.testing.assert_allclose(kernel.diagonal, np.square(factor).sum(1), rtol=1e-10)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("width", [40, 700, 3000])
def test_a_state_takes_no_more_than_half_a_kernel_or_the_features(name: str, width: int) -> None:
    n = 600
    (features,) = models(n, (width,))
    state = find_feature_measure(name).prepare(features)
    half = 8 * n * (n + BLOCK) / 2 + 8 * n
    assert state.nbytes <= (8 * n * n if name == "procrustes" else half)
    assert state.nbytes <= max(features.nbytes, half)


def test_ties_share_the_mean_of_their_ranks() -> None:
    from scipy.stats import rankdata

    values = np.random.default_rng(0).integers(0, 50, 400).astype(float)
    np.testing.assert_array_equal(doubled_ranks(values), 2 * rankdata(values))
