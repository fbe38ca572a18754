"""Blocks of examples: balanced, fixed by the ids, and counted exactly in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from td_ray.errors import InputError
from td_ray.measures import bit_planes
from td_ray.measures.bit_planes import count_block_differences, count_differences, pack
from td_ray.measures.example_blocks import ExampleBlocks, example_blocks
from td_ray.tasks.splits import keys

Array = np.ndarray[Any, Any]


def dealt(n: int, labels: Array | None = None, blocks: int = 40) -> ExampleBlocks:
    return example_blocks(keys(np.arange(n).astype(str), "blocks:0"), labels, blocks)


def direct(a: Array, b: Array) -> Array:
    return np.array([[np.count_nonzero(u != v) for v in b] for u in a]).reshape(len(a), len(b))


def codes_of(rows: int, n: int, classes: int, seed: int) -> Array:
    """Rows that agree on half of the examples, at the largest class: all bits of it are set."""
    random = np.random.default_rng(seed)
    codes = np.full((rows, n), classes - 1, dtype=np.min_scalar_type(classes - 1))
    wrong = random.random(codes.shape) < 0.5
    codes[wrong] = random.integers(classes, size=int(wrong.sum()))
    return codes


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(
    rows=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    n=st.integers(1, 2000),
    classes=st.sampled_from([2, 3, 10, 100, 1000, 70_000]),
    blocks=st.sampled_from([1, 7, 40]),
    tile=st.sampled_from([4, 64]),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_counts_of_blocks_are_exact(
    rows: tuple[int, int], n: int, classes: int, blocks: int, tile: int, threads: int, seed: int
) -> None:
    a, b = codes_of(rows[0], n, classes, seed), codes_of(rows[1], n, classes, seed + 1)
    own = dealt(n, np.random.default_rng(seed).integers(3, size=n), blocks)
    planes = pack(own.deal(a)), pack(own.deal(b))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bit_planes, "ROWS_AT_ONCE", tile)
        for (x, y), (left, right) in (
            ((a, b), planes),
            ((a, a), (planes[0], planes[0])),
        ):
            found = count_block_differences(left, right, len(own.sizes), threads)
            assert found.dtype == np.int32
            for block in range(len(own.sizes)):
                there = own.of_example == block
                np.testing.assert_array_equal(found[..., block], direct(x[:, there], y[:, there]))
            np.testing.assert_array_equal(found.sum(axis=2), count_differences(left, right))
            np.testing.assert_array_equal(found.sum(axis=2), direct(x, y))


@pytest.mark.parametrize("planes", range(1, 18))
def test_each_plane_counts_and_only_once(planes: int) -> None:
    """Each number of planes has a kernel of its own."""
    own = dealt(100)
    zeros = np.zeros((1, 100), dtype=np.int64)
    single = np.zeros((planes + 1, 100), dtype=np.int64)
    single[:planes, 7] = 2 ** np.arange(planes)
    single[planes, 7] = 2**planes - 1
    found = count_block_differences(pack(own.deal(zeros)), pack(own.deal(single)), 40)
    expected = np.arange(40) == own.of_example[7]
    np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


def test_many_words_are_worked_through_in_stretches() -> None:
    """More words than are taken at once, and not a multiple of them."""
    n = 40 * 64 * 45 + 5
    for classes in (2, 1000):
        codes, own = codes_of(5, n, classes, 0), dealt(n)
        planes = pack(own.deal(codes))
        found = count_block_differences(planes, planes, 40)
        np.testing.assert_array_equal(found.sum(axis=2), direct(codes, codes))


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(
    n=st.integers(1, 3000),
    classes=st.integers(1, 30),
    blocks=st.integers(1, 64),
    seed=st.integers(0, 99),
)
def test_blocks_are_balanced(n: int, classes: int, blocks: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(classes, size=n) ** 2 // classes
    own = dealt(n, labels, blocks)
    count = len(own.sizes)
    assert count == min(blocks, n)
    assert np.ptp(own.sizes) <= 1
    np.testing.assert_array_equal(np.bincount(own.of_example), own.sizes)
    for label in np.unique(labels):
        assert np.ptp(np.bincount(own.of_example[labels == label], minlength=count)) <= 1
    there = own.order >= 0
    np.testing.assert_array_equal(np.sort(own.order[there]), np.arange(n))
    block_of_bit = np.arange(len(own.order)) // 64 % count
    np.testing.assert_array_equal(own.of_example[own.order[there]], block_of_bit[there])
    for block in range(count):
        assert (np.diff(labels[own.order[there & (block_of_bit == block)]]) >= 0).all()


def test_blocks_depend_on_ids_and_not_on_the_order_of_rows() -> None:
    ids, labels = np.arange(500).astype(str), np.arange(500) % 7
    own = example_blocks(keys(ids, "blocks:0"), labels)
    order = np.random.default_rng(0).permutation(500)
    again = example_blocks(keys(ids[order], "blocks:0"), labels[order])
    np.testing.assert_array_equal(again.of_example, own.of_example[order])
    other = example_blocks(keys(ids, "blocks:1"), labels)
    assert not np.array_equal(other.of_example, own.of_example)
    # On every platform.
    assert own.of_example[:12].tolist() == [14, 28, 25, 7, 19, 0, 7, 15, 14, 5, 18, 8]


def test_a_hundred_classes_take_no_more_words_than_one() -> None:
    assert len(dealt(10_000, np.arange(10_000) % 100).order) == len(dealt(10_000).order) == 160 * 64


def test_what_does_not_fit_is_refused() -> None:
    own = keys(np.arange(5).astype(str), "blocks:0")
    with pytest.raises(InputError, match="5 examples cannot be dealt to 0 blocks"):
        example_blocks(own, blocks=0)
    with pytest.raises(InputError, match="0 examples"):
        example_blocks(own[:0])
    with pytest.raises(InputError, match="one per example, 5, not"):
        example_blocks(own, np.zeros(4))
    with pytest.raises(InputError, match="5 examples, the codes of 4"):
        example_blocks(own).deal(np.zeros((2, 4), dtype=np.uint8))
    planes = pack(np.zeros((2, 500), dtype=np.uint8))
    with pytest.raises(ValueError, match="8 words are not those of 3 blocks"):
        count_block_differences(planes, planes, 3)
