"""What users of ``td_ray.pairwise_measure`` meet: names, tensors, one clear line on bad input."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import td_ray
from td_ray.errors import InputError

RANDOM = np.random.default_rng(0)
A, B = RANDOM.standard_normal((40, 5)), RANDOM.standard_normal((40, 9))


def test_names_are_on_both_axes_and_tensors_are_taken() -> None:
    table = td_ray.pairwise_measure({"a": torch.from_numpy(A), "b": B.tolist()}, "cka")
    assert list(table.index) == list(table.columns) == ["a", "b"]
    np.testing.assert_array_equal(table, td_ray.pairwise_measure({"a": A, "b": B}, "cka"))
    half = torch.from_numpy(A).bfloat16().requires_grad_()
    again = td_ray.pairwise_measure({"a": half, "b": B}, "cka")
    np.testing.assert_allclose(again, table, atol=0.01)


def test_it_needs_no_torch() -> None:
    script = (
        "import sys, numpy as np, td_ray\n"
        "x = np.random.default_rng(0).standard_normal((40, 5))\n"
        "for name in ('cka', 'cka_debiased', 'cca', 'procrustes', 'gulp', 'rsa', 'knn'):\n"
        "    td_ray.pairwise_measure({'x': x, 'y': x ** 2}, name)\n"
        "assert not {'torch', 'ray', 'numba', 'sklearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def constant_row() -> Any:
    changed = A.copy()
    changed[7] = 3.0
    return changed


def with_nan() -> Any:
    changed = A.copy()
    changed[3, 1] = np.nan
    return changed


@pytest.mark.parametrize(
    ("features", "measure", "options", "message"),
    [
        ({"a": A}, "ckaa", {}, r"unknown measure 'ckaa': did you mean 'cka'\?"),
        ({"a": A}, "td", {}, r"measure 'td' compares predictions of heads, not features"),
        ({}, "cka", {}, "no features given"),
        ({"a": A, "b": B[:30]}, "cka", {}, "same examples: a has 40 rows, b has 30"),
        ({"a": A, "b": with_nan()}, "cka", {}, r"features of b contain NaN .* 1 rows.* row 3"),
        ({"a": A, "b": A[0]}, "cka", {}, r"features of b must be .*\(rows, features\)"),
        ({"a": np.array([["x"]])}, "cka", {}, "features of a must be numbers"),
        ({"a": [[1.0], [1.0, 2.0]]}, "cka", {}, "features of a are not a rectangular array"),
        ({"a": A[:3]}, "cka_debiased", {}, "features of a: .* needs at least 4 rows, .* 3"),
        ({"a": A[:10]}, "knn", {}, "features of a: .* needs at least 11 rows, .* 10"),
        ({"a": A[:1]}, "cka", {}, "needs at least 2 rows"),
        ({"a": A, "b": 0 * A + 1 / 3}, "cka", {}, "features of b: the features are constant"),
        ({"a": A, "b": 0 * A}, "gulp", {}, "features of b: the features are constant"),
        ({"a": A, "b": 0 * A}, "knn", {}, "features of b: .* 40 examples .* first in row 0"),
        ({"a": constant_row()}, "rsa", {}, "features of a: .* 1 examples .* first in row 7"),
        ({"a": np.eye(9)}, "rsa", {}, "features of a: .* equally far"),
        ({"a": np.eye(9)}, "rsa", {"correlation": "pearson"}, "features of a: .* equally far"),
        ({"a": A[:, :2] + [9, 0]}, "rsa", {}, "features of a: .* equally far"),
        (
            {"a": A, "b": 0 * A},
            "rsa",
            {"dissimilarity": "euclidean"},
            "features of b: the features are constant",
        ),
        ({"a": np.eye(9)}, "cka_debiased", {}, "features of a: .* nothing beyond their own bias"),
        ({"a": A}, "cka", {"l": 1}, "measure 'cka' has no option 'l': it has none"),
        ({"a": A}, "gulp", {"ll": 1}, r"'gulp' has no option 'll': did you mean 'l'\?"),
        ({"a": A}, "gulp", {"l": 0}, "option 'l' of measure 'gulp' must be .* than 0, not 0"),
        ({"a": A}, "gulp", {"l": "1"}, "option 'l' .* not '1'"),
        ({"a": A}, "gulp", {"l": float("nan")}, "option 'l' .* not nan"),
        ({"a": B @ B.T}, "gulp", {"l": 1e-20}, "l = 1e-20 is lost in rounding; use a larger"),
        ({"a": A}, "cca", {"ridge": -1}, "option 'ridge' .* at least 0, not -1"),
        ({"a": A}, "knn", {"k": 0}, "option 'k' .* a whole number from 1 on, not 0"),
        ({"a": A}, "knn", {"k": 2.5}, "option 'k' .* not 2.5"),
        ({"a": A}, "knn", {"k": np.float64(2)}, "option 'k' .* not np.float64"),
        ({"a": A}, "knn", {"k": True}, "option 'k' .* not True"),
        ({"a": A}, "gulp", {"l": np.True_}, "option 'l' .* not np.True_"),
        (
            {"a": A},
            "rsa",
            {"dissimilarity": "cosin"},
            r"one of correlation, cosine, euclidean, not 'cosin': did you mean 'cosine'\?",
        ),
        ({"a": A}, "rsa", {"correlation": "kendall"}, "one of spearman, pearson, not 'kendall'"),
    ],
)
def test_bad_input_is_one_clear_line(
    features: Any, measure: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        td_ray.pairwise_measure(features, measure, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("measure", "options", "same"),
    [
        ("knn", {"k": np.int64(5)}, {"k": 5}),
        ("knn", {"k": np.uint8(5)}, {"k": 5}),
        ("gulp", {"l": np.float32(0.5)}, {"l": 0.5}),
        ("gulp", {"l": 1}, {"l": 1.0}),
        ("cca", {"ridge": np.float64(0.1)}, {"ridge": 0.1}),
        ("cca", {"ridge": np.int32(0)}, {"ridge": 0.0}),
    ],
)
def test_options_may_be_numbers_of_numpy(
    measure: str, options: dict[str, Any], same: dict[str, Any]
) -> None:
    found = td_ray.pairwise_measure({"a": A, "b": B}, measure, **options)
    expected = td_ray.pairwise_measure({"a": A, "b": B}, measure, **same)
    np.testing.assert_array_equal(found, expected)
    assert found.attrs["options"] == same
    for option, number in same.items():
        assert type(found.attrs["options"][option]) is type(number)


def test_a_measure_of_features_is_not_one_of_predictions() -> None:
    from td_ray.measures import find_measure

    with pytest.raises(InputError, match="measure 'cka' does not compare predictions"):
        find_measure("cka")
