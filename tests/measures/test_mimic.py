"""How far heads are from their stand-ins: each from its own, by the distance that is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from td_ray.measures.mimic import stand_in_distance


def test_codes_differ_on_a_share_of_examples() -> None:
    heads = np.array([[0, 1, 2, 1], [2, 2, 2, 2]])
    stand_ins = np.array([[0, 1, 1, 1], [2, 2, 0, 1]])
    np.testing.assert_array_equal(stand_in_distance(heads, stand_ins, None), [0.25, 0.5])


def test_values_have_the_distance_that_is_named() -> None:
    """Of (3, 4) from (4, 3), and from twice itself, where the distances tell each their own."""
    heads, stand_ins = np.array([[3.0, 4.0], [3.0, 4.0]]), np.array([[4.0, 3.0], [6.0, 8.0]])
    for distance, expected in {
        "cosine": [2 - 2 * 24 / 25, 0],
        "mean": [2 / 25, 25 / 62.5],
        "none": [2 / 2, 25 / 2],
    }.items():
        found = stand_in_distance(heads, stand_ins, distance)
        assert found == pytest.approx(expected, abs=1e-12), distance


def test_a_head_without_a_direction_has_no_cosine() -> None:
    heads, stand_ins = np.array([[0.0, 0.0], [1.0, 2.0]]), np.array([[1.0, 2.0], [2.0, 1.0]])
    found = stand_in_distance(heads, stand_ins, "cosine")
    assert np.isnan(found).tolist() == [True, False]
