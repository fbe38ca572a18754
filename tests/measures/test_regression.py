"""The regression distance: its three kinds, its precision, and rows without a direction."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext
from typing import Any

import numpy as np
import pytest

from td_ray.errors import InputError
from td_ray.measures import Examples, Outputs, find_measure, one_block
from td_ray.measures.regression import has_direction, value_distance

Array = np.ndarray[Any, Any]


@pytest.fixture
def a() -> Array:
    return np.random.default_rng(0).standard_normal((4, 30))


@pytest.fixture
def b() -> Array:
    return np.random.default_rng(1).standard_normal((3, 30)) * 5


@pytest.mark.parametrize("kind", ["cosine", "mean", "none"])
def test_definitions(a: Array, b: Array, kind: str) -> None:
    for i, u in enumerate(a):
        for j, v in enumerate(b):
            expected = {
                "cosine": 2 - 2 * (u @ v) / (np.linalg.norm(u) * np.linalg.norm(v)),
                "mean": np.square(u - v).sum() / ((u @ u + v @ v) / 2),
                "none": np.square(u - v).mean(),
            }[kind]
            assert value_distance(a, b, kind)[i, j] == pytest.approx(expected, rel=1e-12)


def test_extremes(a: Array) -> None:
    for kind in ("cosine", "mean"):
        assert (np.diag(value_distance(a, a, kind)) == 0).all()
        np.testing.assert_allclose(np.diag(value_distance(a, -a, kind)), 4, rtol=1e-14)
    scaled = value_distance(a, a * np.array([[1e-200], [1e200], [3], [0.1]]))
    np.testing.assert_allclose(np.diag(scaled), 0, atol=1e-30)


@pytest.mark.parametrize("kind", ["cosine", "mean", "none"])
@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_near_twins_keep_their_digits(a: Array, kind: str, gap: float) -> None:
    getcontext().prec = 60
    twin = a[:1] + gap * a[1:2]
    u, v = ([Decimal(float(x)) for x in row] for row in (a[0], twin[0]))
    if kind == "cosine":
        u, v = ([x / sum(y * y for y in row).sqrt() for x in row] for row in (u, v))
    squared = sum((x - y) ** 2 for x, y in zip(u, v, strict=True))
    size = {"cosine": 1, "mean": sum(x * x for x in (*u, *v)) / 2, "none": len(u)}[kind]
    found = value_distance(a[:1], twin, kind)[0, 0]
    assert found == pytest.approx(float(squared / size), rel=1e-8)


def test_rows_without_a_direction() -> None:
    rng = np.random.default_rng(2)
    constant = 0.3 + np.spacing(0.3) * rng.integers(-1, 2, 20)
    rows = np.array(
        [
            rng.standard_normal(20),
            np.zeros(20),
            np.full(20, 0.3),
            constant,
            1e-9 * rng.standard_normal(20),  # small is not constant
            np.append(rng.standard_normal(19), np.nan),
            np.append(rng.standard_normal(19), np.inf),
        ]
    )
    assert has_direction(rows).tolist() == [True, False, False, False, True, False, False]
    missing = np.isnan(value_distance(rows, rows))
    good = has_direction(rows)
    assert np.array_equal(missing, ~(good[:, None] & good[None, :]))
    by_mean = np.isnan(value_distance(rows, rows, "mean"))
    assert by_mean[1:4, 1:4].all()
    assert not by_mean[0, :5].any()
    assert by_mean[5:].all()
    assert value_distance(rows, rows, "mean")[0, 1] == 2
    plain = value_distance(rows, rows, "none")
    finite = np.arange(7) < 5
    assert np.array_equal(np.isfinite(plain), finite[:, None] & finite[None, :])
    assert plain[1, 2] == pytest.approx(0.09)


@pytest.mark.parametrize(
    ("a", "b", "kind", "words"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3)), "cosin", "did you mean 'cosine'"),
        (np.zeros(3), np.zeros((2, 3)), "mean", "same examples"),
        (np.zeros((2, 4)), np.zeros((2, 3)), "mean", "same examples"),
        (np.zeros((2, 0)), np.zeros((2, 0)), "mean", "at least one"),
    ],
)
def test_bad_input(a: Array, b: Array, kind: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        value_distance(a, b, kind)


def test_the_registered_measure_declares_how_to_read_it() -> None:
    measure = find_measure("td")
    assert measure.kinds == ("classification", "regression")
    assert measure.direction == "higher is more different"
    assert "2007.12446" in measure.source
    assert measure.form("classification", "cosine").range == (0, 1)
    assert not measure.form("classification", "cosine").squared
    assert measure.form("regression", "mean").range == (0, 4)
    assert measure.form("regression", "none").range == (0, math.inf)
    assert measure.form("regression", "cosine").squared


def test_the_form_of_a_distance_is_found(a: Array, b: Array) -> None:
    examples = Examples(one_block(a.shape[1]))
    for distance in ("cosine", "mean", "none"):
        form = find_measure("td").form("regression", distance)
        found = form.between(Outputs(a, examples), Outputs(b, examples))
        assert np.array_equal(found, value_distance(a, b, distance))
    codes = Outputs(np.array([[0, 1, 2, 2], [1, 1, 2, 0]]), Examples(one_block(4)))
    form = find_measure("td").form("classification")
    assert form.between(codes, codes).tolist() == [[0, 0.5], [0.5, 0]]


@pytest.mark.parametrize(
    ("measure", "kind", "distance", "words"),
    [
        ("tdd", "regression", "cosine", "did you mean 'td'"),
        ("td", "ranking", "cosine", "classification and regression, not 'ranking'"),
        ("td", "regression", "cosinus", "did you mean 'cosine'"),
    ],
)
def test_unknown_names(measure: str, kind: str, distance: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_measure(measure).form(kind, distance)
