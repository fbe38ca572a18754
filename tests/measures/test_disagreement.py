"""Disagreement: exact counts, whatever the integer type and the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from td_ray.errors import InputError
from td_ray.measures.disagreement import disagreement

Array = np.ndarray[Any, Any]


def naive(a: Array, b: Array) -> list[list[float]]:
    """Counted in Python, one example at a time."""
    n = len(a[0])
    return [[sum(int(x) != int(y) for x, y in zip(u, v, strict=True)) / n for v in b] for u in a]


@settings(derandomize=True, deadline=None, max_examples=40, database=None)
@given(
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 40)),
    types=st.tuples(*[st.sampled_from(["uint8", "uint16", "int64"])] * 2),
    seed=st.integers(0, 10**6),
)
def test_equals_counting(sizes: tuple[int, int, int], types: tuple[str, str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 4, (sizes[0], sizes[2])).astype(types[0])
    b = rng.integers(0, 4, (sizes[1], sizes[2])).astype(types[1])
    found = disagreement(a, b)
    assert found.dtype == np.float64
    assert found.tolist() == naive(a, b)


def test_large_codes_of_different_types_do_not_wrap() -> None:
    assert disagreement(np.array([[1]], "uint8"), np.array([[257]], "uint16"))[0, 0] == 1
    assert disagreement(np.array([[65535]], "uint16"), np.array([[65535]], "int64"))[0, 0] == 0


def test_read_only_and_strided_codes() -> None:
    codes = np.random.default_rng(0).integers(0, 3, (50, 8)).astype("uint8")
    codes.setflags(write=False)
    assert np.array_equal(disagreement(codes.T, codes.T), disagreement(codes.T.copy(), codes.T))


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3), int), "codes_a must be integers"),
        (np.zeros((2, 3), int), np.zeros(3, int), "codes_b must be integers"),
        (np.zeros((2, 3), int), np.zeros((2, 4), int), "same examples"),
        (np.zeros((2, 0), int), np.zeros((2, 0), int), "at least one"),
        (np.zeros((2, 3), int), np.array([[0, 1, -1]]), "codes_b holds -1; codes of classes start"),
    ],
)
def test_bad_input(a: Array, b: Array, words: str) -> None:
    with pytest.raises(InputError, match=words):
        disagreement(a, b)
