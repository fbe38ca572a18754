"""Each measure against an implementation of its definition that is written differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import feature_references as by_hand
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from td_ray.arrays.feature_comparison import pairwise_measure

Array = np.ndarray[Any, Any]
Definition = Callable[[Array, Array], float]

CASES: list[tuple[str, dict[str, Any], Definition]] = [
    ("cka", {}, by_hand.cka),
    ("cka_debiased", {}, by_hand.cka_debiased),
    ("cca", {}, by_hand.cca),
    ("cca", {"ridge": 0.1}, lambda x, y: by_hand.ridge_cca(x, y, 0.1)),
    ("procrustes", {}, by_hand.procrustes),
    ("gulp", {}, lambda x, y: by_hand.gulp(x, y, 1e-2)),
    ("gulp", {"l": 1.0}, lambda x, y: by_hand.gulp(x, y, 1.0)),
    ("gulp", {"l": 1e-6}, lambda x, y: by_hand.gulp(x, y, 1e-6)),
    ("rsa", {}, by_hand.rsa),
    ("rsa", {"correlation": "pearson"}, lambda x, y: by_hand.rsa(x, y, correlation="pearson")),
    ("rsa", {"dissimilarity": "cosine"}, lambda x, y: by_hand.rsa(x, y, "cosine")),
    (
        "rsa",
        {"dissimilarity": "euclidean", "correlation": "pearson"},
        lambda x, y: by_hand.rsa(x, y, "euclidean", "pearson"),
    ),
    ("knn", {}, by_hand.knn),
    ("knn", {"k": 1}, lambda x, y: by_hand.knn(x, y, 1)),
]
NAMES = [f"{name}{options or ''}" for name, options, _ in CASES]


def check(features: dict[str, Array], name: str, options: Any, definition: Definition) -> None:
    found = pairwise_measure(features, name, **options)
    for i, one in enumerate(features):
        for other in list(features)[i + 1 :]:
            expected = definition(features[one], features[other])
            assert found.loc[one, other] == pytest.approx(expected, abs=1e-5, rel=1e-5)
            assert found.loc[one, other] == found.loc[other, one]


@pytest.fixture(scope="module")
def random_features() -> dict[str, Array]:
    """Narrow and wide ones, with means and scales of their own, that share some directions."""
    random = np.random.default_rng(0)
    shared = random.standard_normal((120, 8)) * np.logspace(0, -1, 8)
    found = {}
    for width in (3, 40, 90, 300):
        mixed = shared @ random.standard_normal((8, width)) + random.standard_normal(width)
        found[f"{width}"] = 10 ** random.uniform(-2, 2) * (
            mixed + 0.3 * random.standard_normal((120, width))
        )
    return found


@pytest.fixture(scope="module")
def digits_features() -> dict[str, Array]:
    """Real ones: pixels, hidden units of two networks, class scores."""
    pixels, digit = load_digits(return_X_y=True)
    found = {"pixels": pixels[:600]}
    for seed, width in ((0, 32), (1, 48)):
        network = MLPClassifier((width,), max_iter=15, random_state=seed)
        with pytest.warns(match="Maximum iterations"):
            network.fit(pixels[600:], digit[600:])
        hidden = pixels[:600] @ network.coefs_[0] + network.intercepts_[0]
        found[f"network{seed}"] = np.maximum(hidden, 0).astype(np.float32)
    scores = LogisticRegression(max_iter=2000).fit(pixels[600:] / 16, digit[600:])
    found["scores"] = scores.decision_function(pixels[:600] / 16)
    return found


@pytest.mark.parametrize(("name", "options", "definition"), CASES, ids=NAMES)
def test_on_random_features(
    random_features: dict[str, Array], name: str, options: Any, definition: Definition
) -> None:
    check(random_features, name, options, definition)


@pytest.mark.parametrize(("name", "options", "definition"), CASES, ids=NAMES)
def test_on_real_features(
    digits_features: dict[str, Array], name: str, options: Any, definition: Definition
) -> None:
    check({x: each.astype(float) for x, each in digits_features.items()}, name, options, definition)


@pytest.mark.parametrize(("name", "options", "definition"), CASES, ids=NAMES)
def test_on_fewer_rows_than_features(
    digits_features: dict[str, Array], name: str, options: Any, definition: Definition
) -> None:
    few = {x: each[:20].astype(float) for x, each in digits_features.items() if x != "scores"}
    check(few, name, options, definition)


def test_float32_and_integers_are_taken_as_they_are(digits_features: dict[str, Array]) -> None:
    found = pairwise_measure(digits_features, "cka")
    exact = {x: each.astype(np.float64) for x, each in digits_features.items()}
    np.testing.assert_allclose(found, pairwise_measure(exact, "cka"), atol=1e-12)
    whole = digits_features["pixels"].astype(np.uint8)
    again = pairwise_measure({**digits_features, "pixels": whole}, "cka")
    np.testing.assert_allclose(again, found, atol=1e-12)


def test_gulp_is_the_distance_of_two_kernels(random_features: dict[str, Array]) -> None:
    for penalty in (1e-3, 1.0):
        found = pairwise_measure(random_features, "gulp", l=penalty)
        for a, x in random_features.items():
            for b, y in random_features.items():
                gap = by_hand.ridge_kernel(x, penalty) - by_hand.ridge_kernel(y, penalty)
                assert found.loc[a, b] == pytest.approx(np.linalg.norm(gap) ** 2, abs=1e-8)


def test_squared_canonical_correlations_add_up_to_the_overlap_of_projections() -> None:
    random = np.random.default_rng(3)
    x, y = random.standard_normal((50, 4)), random.standard_normal((50, 7))
    y[:, 0] += 2 * x[:, 1]
    projections = []
    for m in (x, y):
        m = m - m.mean(0)
        projections.append(m @ np.linalg.pinv(m))
    found = pairwise_measure({"x": x, "y": y}, "cca").loc["x", "y"]
    assert 4 * found == pytest.approx(np.trace(projections[0] @ projections[1]), abs=1e-12)
