"""Labels that people have: equal where they are equal, refused where they are no labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import td_ray
from td_ray.errors import InputError


def apart(a: Any, b: Any) -> float:
    return float(td_ray.pairwise_disagreement({"a": a, "b": b}).loc["a", "b"])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0, 1, 2, 2], [0, 1, 2, 1]),
        (["x", "y", "z", "z"], ["x", "y", "z", "y"]),
        ([True, False, True, True], [True, False, True, False]),
        (np.array([0, 1, 2, 2], dtype=object), np.array([0, 1, 2, 1], dtype=np.int8)),
        (np.array(["x", "yy", "z", "z"], dtype=object), np.array(["x", "yy", "z", "yy"])),
        (np.array([True, False, True, True], dtype=object), [1, 0, 1, 0]),
        (np.array([2**60 + 1, 5, 6, 7], dtype=np.uint64), np.array([2**60, 5, 6, 7])),
        ([-1, 0, 70_000, 3], [-1, 0, 70_000, 4]),
    ],
)
def test_one_of_four_differs(a: Any, b: Any) -> None:
    assert apart(a, b) == 0.25
    assert apart(a, a) == 0


@pytest.mark.parametrize(
    ("a", "words"),
    [
        (
            np.array([None, "x"], dtype=object),
            r"of a must be all .* among them is None \(example 0",
        ),
        (np.array(["x", float("nan")], dtype=object), "among them is text and numbers"),
        (np.array([1, float("nan")], dtype=object), r"among them is nan \(example 1"),
        (np.array([1, 2.0], dtype=object), "among them is 2.0"),
        ([0.0, 1.0], r"labels: integers, booleans or strings, not \(2,\) float64"),
        ([[1], [1, 2]], "predictions of a are not an array"),
        (np.array([2**63, 1], dtype=np.uint64), "hold 9223372036854775808"),
        (["0", "1"], "predictions of a are text, and those of b are numbers"),
        ([0, 1, 2], "a has 3, b has 2"),
    ],
)
def test_what_is_no_label_is_refused(a: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        apart(a, [0, 1])


def test_arguments_are_checked_by_name() -> None:
    with pytest.raises(InputError, match="a dict of arrays by name, not <class 'list'>"):
        td_ray.pairwise_disagreement([[0, 1]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'threads' is at least 1, not -1"):
        td_ray.pairwise_disagreement({"a": [0, 1]}, threads=-1)


def test_features_are_checked_by_name() -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    with pytest.raises(InputError, match="training features are a dict of arrays by name"):
        td_ray.pairwise_discrepancy([x], {"a": x}, y)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"must have the same names; see \[1, '1'\]"):
        td_ray.pairwise_discrepancy({1: x}, {"1": x}, y)  # type: ignore[dict-item]
    with pytest.raises(InputError, match="a dict of arrays by name"):
        td_ray.pairwise_measure([x], "cka")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown measure '3'"):
        td_ray.pairwise_measure({"a": x}, 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown head 'None'"):
        td_ray.pairwise_discrepancy({"a": x}, {"a": x}, y, head=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("l2", ["1e-3", None, np.array([1e-3])])
def test_a_penalty_is_a_number(l2: Any) -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    with pytest.raises(InputError, match='l2 of head "logistic" is a number'):
        td_ray.transferred_discrepancy(x, x, y, x, x, l2=l2)


def test_held_out_rows_that_are_alike_have_no_direction() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    found = td_ray.pairwise_discrepancy({"a": x}, {"a": x[:1]}, x[:, 0], head="ridge")
    assert "on the evaluation rows are all alike" in found.attrs["reasons"]["a"]


def test_opposite_predictions_are_within_the_range() -> None:
    random = np.random.default_rng(0)
    for kind in ("cosine", "mean"):
        u = random.normal(size=(200, 17))
        found = np.diagonal(td_ray.measures.value_distance(u, -u, kind=kind))
        assert found.max() <= 4.0
        np.testing.assert_allclose(found, 4.0)
