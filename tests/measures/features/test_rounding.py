"""What is smaller than the rounding of the features' own type is no part of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from td_ray.arrays.feature_comparison import pairwise_measure
from td_ray.errors import InputError
from td_ray.measures.features import find_feature_measure
from td_ray.work.kept_features import feature_part, features_of_part

Array = np.ndarray[Any, Any]

COARSE = ["float32", "float16"]


def value(measure: str, x: Any, y: Any, **options: Any) -> float:
    return float(pairwise_measure({"x": x, "y": y}, measure, **options).loc["x", "y"])


def wide(kind: str, shift: float = 0.0) -> tuple[Array, Array]:
    """Two maps of the same 16 numbers to 64, computed in single precision at least."""
    random = np.random.default_rng(0)
    made = np.float64 if kind == "float64" else np.float32
    shared, maps, offset = (
        random.standard_normal(shape).astype(made)
        for shape in ((1000, 16), (2, 16, 64), (2, 1, 64))
    )
    one, other = (shared @ maps + made(shift) * offset).astype(kind)
    return one, other


@pytest.mark.parametrize("ridge", [0.0, 1e-8])
@pytest.mark.parametrize("shift", [0.0, 30.0])
@pytest.mark.parametrize("kind", ["float64", *COARSE])
def test_rounding_errors_are_no_canonical_directions(kind: str, shift: float, ridge: float) -> None:
    x, y = wide(kind, shift)
    assert find_feature_measure("cca").prepare(x).rank == 16
    assert value("cca", x, y, ridge=ridge) == pytest.approx(1, abs=1e-4)


def test_the_eps_of_bfloat16_goes_with_its_tensors() -> None:
    x, y = (torch.from_numpy(each).bfloat16() for each in wide("float32"))
    assert value("cca", x, y) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", COARSE)
def test_kept_features_are_judged_by_the_type_that_they_are_kept_in(kind: str) -> None:
    part = feature_part(wide(kind)[0])
    assert find_feature_measure("cca").prepare(features_of_part(part)).rank == 16


@pytest.mark.parametrize("kind", COARSE)
def test_directions_that_rounding_leaves_are_kept(kind: str) -> None:
    random = np.random.default_rng(0)
    x = (random.standard_normal((400, 6)) * np.logspace(0, -2, 6) + 1).astype(kind)
    assert find_feature_measure("cca").prepare(x).rank == 6


def jittering(n: int, columns: int, kind: str) -> Array:
    """Columns with one number of their own, which is one gap larger in some rows."""
    random = np.random.default_rng(1)
    numbers = random.uniform(1, 100, columns).astype(kind)
    up = np.nextafter(numbers, np.asarray(np.inf, dtype=kind))
    return np.where(random.random((n, columns)) < 0.5, up, numbers)


@pytest.mark.parametrize("measure", ["cca", "cka", "procrustes", "gulp"])
@pytest.mark.parametrize("kind", COARSE)
def test_constant_columns_may_jitter(kind: str, measure: str) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((1000, 2)).astype(kind)
    wider = np.hstack([x, jittering(1000, 6, kind)])
    itself = find_feature_measure(measure).itself
    assert value(measure, x, wider) == pytest.approx(itself, abs=1e-12)
    with pytest.raises(InputError, match="features of y: the features are constant"):
        value(measure, x, jittering(1000, 6, kind))


def test_columns_that_vary_by_less_than_others_are_rounded_span_nothing() -> None:
    random = np.random.default_rng(0)
    x = 1 + 10 * np.finfo(np.float32).eps * random.random((1000, 400), dtype=np.float32)
    with pytest.raises(InputError, match=r"constant: .* no more than rounding does"):
        value("cca", x, x)


def classes(n: int = 300) -> Array:
    """One-hot rows of four classes: dissimilarities are 0 or all the same."""
    return np.asarray(np.eye(4)[np.random.default_rng(0).integers(0, 4, n)])


@pytest.mark.parametrize("dissimilarity", ["correlation", "cosine", "euclidean"])
def test_equal_dissimilarities_are_tied_whatever_the_order_of_sums(dissimilarity: str) -> None:
    x = classes()
    for y in (x[:, [2, 0, 1, 3]], 3 * x, x / 7):
        found = value("rsa", x, y, dissimilarity=dissimilarity)
        assert found == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("dissimilarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_equal_dissimilarities_are_tied_after_a_rotation(kind: str, dissimilarity: str) -> None:
    random = np.random.default_rng(1)
    x = classes().astype(kind)
    rotation = np.linalg.qr(random.standard_normal((4, 4)))[0].astype(kind)
    assert value("rsa", x, x @ rotation, dissimilarity=dissimilarity) == pytest.approx(1, abs=1e-12)


def test_correlations_over_two_features_are_one_and_minus_one() -> None:
    x = np.random.default_rng(0).standard_normal((300, 2))
    for kind in ("float64", "float32"):
        y = x.astype(kind)
        assert value("rsa", y, 3 * y + 1) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", ["float64", *COARSE])
def test_ranks_of_dissimilarities_that_do_differ_are_their_own(kind: str) -> None:
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    random = np.random.default_rng(0)
    x, noise = random.standard_normal((2, 200, 500)).astype(kind)
    y = x + noise
    exact = [pdist(each.astype(float), "correlation") for each in (x, y)]
    tolerance = 1e-12 if kind == "float64" else 1e-5
    assert value("rsa", x, y) == pytest.approx(spearmanr(*exact).statistic, abs=tolerance)
