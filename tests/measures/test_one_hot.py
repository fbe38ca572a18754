"""One-hot products: the counts of bit planes, whatever the sizes, blocks, products and settings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from td_ray.errors import InputError
from td_ray.measures import bit_planes, one_hot
from td_ray.measures.one_hot import count_differences

Array = np.ndarray[Any, Any]
PRODUCTS = [one_hot._float_product, one_hot._integer_product]


def expected(a: Array, b: Array) -> Array:
    return bit_planes.count_differences(bit_planes.pack(a), bit_planes.pack(b))


def codes_of(rows: int, n: int, classes: int, seed: int) -> Array:
    """Rows that agree on more than half of the examples, as predictions do."""
    random = np.random.default_rng(seed)
    codes = np.tile(random.integers(classes, size=n), (rows, 1))
    wrong = random.random(codes.shape) < 0.4
    codes[wrong] = random.integers(classes, size=int(wrong.sum()))
    return codes.astype(np.min_scalar_type(classes - 1))


@settings(deadline=None, max_examples=60)
@given(
    rows=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    n=st.integers(1, 150),
    classes=st.sampled_from([1, 2, 10, 1000]),
    rows_at_once=st.sampled_from([17, 32, 4096]),
    columns_at_once=st.sampled_from([1, 200, 2**14]),
    classes_at_once=st.sampled_from([7, 128]),
    product=st.sampled_from(PRODUCTS),
    seed=st.integers(0, 99),
)
def test_counts_are_those_of_bit_planes(
    rows: tuple[int, int],
    n: int,
    classes: int,
    rows_at_once: int,
    columns_at_once: int,
    classes_at_once: int,
    product: one_hot.Product,
    seed: int,
) -> None:
    a, b = (codes_of(each, n, classes, seed + each) for each in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_hot, "ROWS_AT_ONCE", rows_at_once)
        patch.setattr(one_hot, "COLUMNS_AT_ONCE", columns_at_once)
        patch.setattr(one_hot, "CLASSES_AT_ONCE", classes_at_once)
        patch.setattr(one_hot, "_product", lambda device: product)
        found = count_differences(a, b, "cpu")
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected(a, b))
        np.testing.assert_array_equal(count_differences(a, a, "cpu"), expected(a, a))


def test_blocks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = set()

    def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        shapes.update((tuple(left.shape), tuple(right.shape)))
        return one_hot._float_product(left, right)

    monkeypatch.setattr(one_hot, "ROWS_AT_ONCE", 64)
    monkeypatch.setattr(one_hot, "COLUMNS_AT_ONCE", 2**12)
    monkeypatch.setattr(one_hot, "_product", lambda device: product)
    for classes in (2, 129, 1000):
        a = codes_of(100, 3000, classes, 0)
        np.testing.assert_array_equal(count_differences(a, a[:70], "cpu"), expected(a, a[:70]))
    assert max(rows for rows, _ in shapes) == 64
    assert max(columns for _, columns in shapes) == 2**12
    # what the int8 product of CUDA asks for
    assert all(rows > 16 and rows % 8 == columns % 8 == 0 for rows, columns in shapes)


@pytest.mark.parametrize("product", PRODUCTS)
def test_counts_that_half_precision_would_round(
    monkeypatch: pytest.MonkeyPatch, product: one_hot.Product
) -> None:
    codes = codes_of(5, 70_001, 2, 0)
    monkeypatch.setattr(one_hot, "_product", lambda device: product)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(
            count_differences(codes, codes, "cpu"), expected(codes, codes)
        )


def test_a_setting_that_rounds_inputs_changes_nothing() -> None:
    codes, usual = codes_of(40, 5001, 3, 0), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        np.testing.assert_array_equal(
            count_differences(codes, codes, "cpu"), expected(codes, codes)
        )
    finally:
        torch.set_float32_matmul_precision(usual)


def test_labels_may_leave_numbers_out_and_differ_in_type() -> None:
    a = np.array([[7, 65_535, 7, 0]], dtype=np.uint16)
    b = np.array([[7, 255, 0, 0], [1, 2, 3, 4]], dtype=np.uint8)
    assert count_differences(a, b, "cpu").tolist() == [[2, 4]]
    assert count_differences(b, a, "cpu").tolist() == [[2], [4]]
    assert one_hot._occurring(a).tolist() == [0, 7, 65_535]


@pytest.mark.parametrize("first", [True, False])
def test_codes_that_no_32_bits_hold(first: bool) -> None:
    codes = np.array([[2**32]]), np.array([[0]])
    with pytest.raises(InputError, match="code 4294967296 is too large"):
        count_differences(*(codes if first else codes[::-1]), "cpu")


def test_integers_are_used_where_they_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch.device("cpu")
    assert one_hot._integers_are_right(here)
    assert one_hot._product.__wrapped__(here) is one_hot._float_product

    def wrong(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return one_hot._float_product(left, right) + 1

    def missing(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")

    for product in (wrong, missing):
        monkeypatch.setattr(one_hot, "_integer_product", product)
        assert not one_hot._integers_are_right(here)


def test_comparing_without_a_device_imports_no_torch() -> None:
    code = (
        "import sys, numpy, td_ray; from td_ray.measures import disagreement;"
        "codes = numpy.array([[0, 1], [1, 1]]); assert disagreement(codes, codes)[0, 1] == 0.5;"
        "assert not {'torch', 'td_ray.measures.one_hot'} & set(sys.modules);"
        "assert disagreement(codes, codes, device='cpu')[0, 1] == 0.5;"
        "assert 'td_ray.measures.one_hot' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("product", [None, one_hot._float_product])
def test_cuda_counts_as_bit_planes(
    monkeypatch: pytest.MonkeyPatch, classes: int, product: one_hot.Product | None
) -> None:
    if product is not None:
        monkeypatch.setattr(one_hot, "_product", lambda device: product)
    a, b = codes_of(301, 5003, classes, 0), codes_of(17, 5003, classes, 0)
    np.testing.assert_array_equal(count_differences(a, b, "cuda"), expected(a, b))
    np.testing.assert_array_equal(count_differences(a, a, "cuda"), expected(a, a))
