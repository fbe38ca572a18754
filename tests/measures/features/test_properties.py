"""What the measures are blind to, what they are not, and the ranges that they declare."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from td_ray.arrays.feature_comparison import pairwise_measure
from td_ray.measures.features import find_feature_measure
from td_ray.measures.features.measure import DIFFERENT, SIMILAR
from td_ray.measures.features.procrustes import nuclear_norm

Array = np.ndarray[Any, Any]

ALL = ("cka", "cka_debiased", "cca", "procrustes", "gulp", "rsa", "knn")
LENGTHS = ("cka", "cka_debiased", "procrustes", "gulp", "cca")  # all centre columns


def views(n: int = 80, d: int = 6, seed: int = 0) -> tuple[Array, Array]:
    """Two models that are neither alike nor unrelated."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, d)) * np.logspace(0, -1, d) + 1
    y = np.tanh(x @ random.standard_normal((d, d + 3))) + 0.2 * random.standard_normal((n, d + 3))
    return x, y


def value(measure: str, x: Array, y: Array, **options: Any) -> float:
    return float(pairwise_measure({"x": x, "y": y}, measure, **options).loc["x", "y"])


def rotation(d: int) -> Array:
    return np.asarray(np.linalg.qr(np.random.default_rng(5).standard_normal((d, d)))[0])


@pytest.mark.parametrize("measure", ALL)
def test_rows_in_another_order_and_isotropic_scaling_change_nothing(measure: str) -> None:
    x, y = views()
    order = np.random.default_rng(1).permutation(len(x))
    before = value(measure, x, y)
    assert value(measure, x[order], y[order]) == pytest.approx(before, abs=1e-10)
    for factor in (1e-150, 3.0, 1e150):
        assert value(measure, factor * x, y) == pytest.approx(before, abs=1e-10)


@pytest.mark.parametrize("measure", [name for name in ALL if name != "rsa"])
def test_rotations_change_nothing(measure: str) -> None:
    x, y = views()
    assert value(measure, x @ rotation(6), y) == pytest.approx(value(measure, x, y), abs=1e-10)


@pytest.mark.parametrize("measure", LENGTHS)
def test_translations_change_nothing_where_columns_are_centred(measure: str) -> None:
    x, y = views()
    assert value(measure, x + np.arange(6), y) == pytest.approx(value(measure, x, y), abs=1e-10)


def test_euclidean_rsa_ignores_rotations_and_translations_and_cosines_rotations() -> None:
    x, y = views()
    moved = x @ rotation(6) + np.arange(6)
    for correlation in ("pearson", "spearman"):
        options = {"dissimilarity": "euclidean", "correlation": correlation}
        assert value("rsa", moved, y, **options) == pytest.approx(
            value("rsa", x, y, **options), abs=1e-10
        )
    cosine = {"dissimilarity": "cosine"}
    assert value("rsa", x @ rotation(6), y, **cosine) == pytest.approx(
        value("rsa", x, y, **cosine), abs=1e-10
    )


def test_canonical_correlations_ignore_every_invertible_affine_map() -> None:
    x, y = views()
    matrix = np.random.default_rng(2).standard_normal((6, 6))
    assert value("cca", 1e3 * x @ matrix - 7, y) == pytest.approx(value("cca", x, y), abs=1e-10)
    assert value("cca", x, x @ matrix) == pytest.approx(1, abs=1e-12)
    # a penalty of next to nothing is none
    assert value("gulp", x, x @ matrix, l=1e-10) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("measure", "options", "change"),
    [
        *((name, {}, "columns scaled") for name in ALL if name != "cca"),
        ("cca", {"ridge": 0.1}, "columns scaled"),
        ("knn", {}, "translated"),
        ("rsa", {}, "translated"),
        ("rsa", {"dissimilarity": "cosine"}, "translated"),
        ("rsa", {}, "rotated"),
    ],
)
def test_what_does_change_a_measure(measure: str, options: dict[str, Any], change: str) -> None:
    x, y = views()
    changed = {
        "columns scaled": x * np.logspace(0, 1.5, 6),
        "translated": x + np.arange(6),
        "rotated": x @ rotation(6),
    }[change]
    assert abs(value(measure, changed, y, **options) - value(measure, x, y, **options)) > 1e-3


@pytest.mark.parametrize("measure", ALL)
def test_a_model_is_as_similar_to_itself_as_can_be(measure: str) -> None:
    x, y = views()
    found = find_feature_measure(measure)
    least, most = found.range
    itself = most if found.direction == SIMILAR else least
    table = pairwise_measure({"x": x, "again": x.copy(), "y": y}, measure)
    np.testing.assert_allclose(np.diag(table), itself, atol=1e-12)
    assert table.loc["x", "again"] == pytest.approx(itself, abs=1e-12)
    assert abs(table.loc["x", "y"] - itself) > 0.01


@pytest.mark.parametrize("measure", ALL)
def test_unrelated_features_are_at_the_other_end_or_at_chance(measure: str) -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 400, 5))
    found = value(measure, x, y)
    chance = {"knn": 10 / 399, "procrustes": 1.8, "gulp": 10 * (0.2 / 0.21) ** 2, "cca": 5 / 399}
    tolerance = {"procrustes": 0.05, "gulp": 0.3}
    assert found == pytest.approx(chance.get(measure, 0), abs=tolerance.get(measure, 0.03))


def test_only_the_debiased_form_sees_that_wide_features_are_unrelated() -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 60, 2000))
    assert value("cka", x, y) > 0.9
    assert abs(value("cka_debiased", x, y)) < 0.05


@given(
    n=st.integers(12, 40),
    widths=st.tuples(st.integers(2, 60), st.integers(2, 60), st.integers(2, 60)),
    seed=st.integers(0, 2**16),
    mixed=st.floats(0, 1),
)
def test_values_are_symmetric_and_in_their_range(
    n: int, widths: tuple[int, ...], seed: int, mixed: float
) -> None:
    random = np.random.default_rng(seed)
    shared = random.standard_normal((n, 2))
    features = {
        f"{number}": shared @ random.standard_normal((2, width))
        + mixed * random.standard_normal((n, width)) * 10.0 ** random.uniform(-3, 3)
        for number, width in enumerate(widths)
    }
    for each in features.values():
        each[1] = -each[0]  # correlations over two features are 1 and -1: now there are both
    for name in ALL:
        table = pairwise_measure(features, name)
        low, high = find_feature_measure(name).range
        values = table.to_numpy()
        assert np.isfinite(values).all()
        assert (values >= low).all()
        assert (values <= high).all()
        np.testing.assert_array_equal(values, values.T)


@pytest.mark.parametrize("decay", [0, 0.5, 1, 2, 5])
def test_the_nuclear_norm_is_exact_whatever_the_spectrum(decay: float) -> None:
    random = np.random.default_rng(0)
    left, right = random.standard_normal((2, 300, 40)) * np.arange(1, 41.0) ** -decay
    for matrix in (left[:, :25].T @ right, left.T @ right[:, :1], left.T @ left):
        matrix = matrix / np.linalg.norm(matrix)
        exact = np.linalg.svd(matrix, compute_uv=False).sum()
        assert nuclear_norm(matrix) == pytest.approx(exact, abs=1e-10)
        assert nuclear_norm(matrix.T) == pytest.approx(exact, abs=1e-10)


def test_a_matrix_of_low_rank_has_no_more_than_its_own_singular_values() -> None:
    random = np.random.default_rng(0)
    matrix = random.standard_normal((400, 3)) @ random.standard_normal((3, 400))
    matrix /= np.linalg.norm(matrix)
    # the roots of 397 eigenvalues that are rounding errors would add up to more
    assert nuclear_norm(matrix) == pytest.approx(np.linalg.norm(matrix, "nuc"), abs=1e-12)


@pytest.mark.parametrize("measure", LENGTHS)
def test_constant_columns_change_nothing(measure: str) -> None:
    x, y = views()
    wider = np.hstack([1e6 / 3 + 0 * x, x, 0 * x])
    assert value(measure, wider, y) == pytest.approx(value(measure, x, y), abs=1e-9)


@pytest.mark.parametrize("measure", ["procrustes", "gulp"])
@given(seed=st.integers(0, 2**16))
def test_roots_of_squared_distances_obey_the_triangle_inequality(measure: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal((30, 4))
    features = {f"{d}": x @ random.standard_normal((4, d)) ** 3 for d in (2, 3, 4, 8)}
    distance = np.sqrt(pairwise_measure(features, measure).to_numpy())
    detour = (distance[:, :, None] + distance[None, :, :]).min(axis=1)
    assert (distance <= detour + 1e-6).all()


@pytest.mark.parametrize("measure", ALL)
def test_what_is_declared_is_with_the_table(measure: str) -> None:
    x, y = views()
    attrs = pairwise_measure({"x": x, "y": y}, measure).attrs
    assert attrs["measure"] == measure
    assert attrs["direction"] == (DIFFERENT if measure in ("procrustes", "gulp") else SIMILAR)
    assert attrs["squared"] is (measure in ("procrustes", "gulp"))
    assert attrs["range"][0] < attrs["range"][1] <= math.inf
    assert "20" in attrs["source"]
