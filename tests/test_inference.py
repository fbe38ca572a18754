"""Noise floor, cross discrepancy and excess, against loops over their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from td_ray.errors import InputError
from td_ray.inference import cross_discrepancy, excess, noise_floor
from td_ray.measures import disagreement, value_distance

Array = np.ndarray[Any, Any]
SEEDS, FIRST, SECOND, EXAMPLES = 3, 4, 2, 50


def predictions(models: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    half_a, half_b = rng.integers(0, 3, (2, SEEDS, models, EXAMPLES), dtype="uint8")
    return half_a, half_b


def test_noise_floor_compares_the_two_halves_of_each_model() -> None:
    half_a, half_b = predictions(FIRST, 0)
    expected = [(half_a[:, m] != half_b[:, m]).mean() for m in range(FIRST)]
    np.testing.assert_allclose(noise_floor(half_a, half_b, disagreement), expected, rtol=1e-14)


def test_cross_discrepancy_compares_opposite_halves() -> None:
    a_half_a, a_half_b = predictions(FIRST, 0)
    b_half_a, b_half_b = predictions(SECOND, 1)
    found = cross_discrepancy(a_half_a, a_half_b, b_half_a, b_half_b, disagreement)
    assert found.shape == (FIRST, SECOND)
    for i in range(FIRST):
        for j in range(SECOND):
            there = (a_half_a[:, i] != b_half_b[:, j]).mean()
            back = (a_half_b[:, i] != b_half_a[:, j]).mean()
            assert found[i, j] == pytest.approx((there + back) / 2, rel=1e-14)


def test_a_model_crossed_with_itself_is_its_floor() -> None:
    half_a, half_b = predictions(FIRST, 0)
    floor = noise_floor(half_a, half_b, disagreement)
    tdx = cross_discrepancy(half_a, half_b, half_a, half_b, disagreement)
    np.testing.assert_allclose(np.diag(tdx), floor, rtol=1e-14)
    np.testing.assert_allclose(np.diag(excess(tdx, floor, floor)), 0, atol=1e-15)


def test_excess_is_not_clipped() -> None:
    found = excess(np.array([[0.1, 0.5]]), np.array([0.4]), np.array([0.2, 0.2]))
    np.testing.assert_allclose(found, [[-0.2, 0.2]], rtol=1e-12)


def test_excess_estimates_half_the_gap_of_prediction_frequencies() -> None:
    # Two models that answer 1 with probability p_i and q_i over training sets, independently.
    rng = np.random.default_rng(0)
    p, q = rng.random((2, 2000))
    shape = (40, 1, 2000)
    a_half_a, a_half_b, b_half_a, b_half_b = (
        (rng.random(shape) < chance).astype("uint8") for chance in (p, p, q, q)
    )
    tdx = cross_discrepancy(a_half_a, a_half_b, b_half_a, b_half_b, disagreement)
    floors = [
        noise_floor(*halves, disagreement)
        for halves in ((a_half_a, a_half_b), (b_half_a, b_half_b))
    ]
    # Two answers count: the gap of their frequency vectors is twice (p - q)^2.
    assert excess(tdx, *floors)[0, 0] == pytest.approx(np.square(p - q).mean(), abs=0.01)


def test_a_head_without_direction_makes_its_own_results_nan() -> None:
    rng = np.random.default_rng(0)
    half_a, half_b = rng.standard_normal((2, SEEDS, 2, EXAMPLES))
    half_a[1, 0] = 0
    floor = noise_floor(half_a, half_b, value_distance)
    tdx = cross_discrepancy(half_a, half_b, half_a, half_b, value_distance)
    assert np.isnan(floor).tolist() == [True, False]
    assert np.isnan(tdx).tolist() == [[True, True], [True, False]]
    assert np.isnan(excess(tdx, floor, floor)).tolist() == [[True, True], [True, False]]


def test_bad_input() -> None:
    half_a, half_b = predictions(FIRST, 0)
    other_a, other_b = predictions(SECOND, 1)
    with pytest.raises(InputError, match="3 and 2 seeds"):
        noise_floor(half_a, half_b[:2], disagreement)
    with pytest.raises(InputError, match="at least one"):
        noise_floor(half_a[:0], half_b[:0], disagreement)
    with pytest.raises(InputError, match="the same models"):
        noise_floor(half_a, half_b[:, 1:], disagreement)
    with pytest.raises(InputError, match="3 and 2 seeds"):
        cross_discrepancy(half_a, half_b, other_a[:2], other_b[:2], disagreement)
    with pytest.raises(InputError, match="needs floors"):
        excess(np.zeros((2, 3)), np.zeros(3), np.zeros(2))
