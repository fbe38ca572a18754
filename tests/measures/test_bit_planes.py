"""Bit planes: every bit in its place, and exact counts whatever the sizes, tiles and threads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from td_ray.measures import bit_planes
from td_ray.measures.bit_planes import count_differences, pack

Array = np.ndarray[Any, Any]


def direct(a: Array, b: Array) -> Array:
    return np.array([[np.count_nonzero(u != v) for v in b] for u in a]).reshape(len(a), len(b))


def codes_of(rows: int, n: int, classes: int, seed: int, share: float = 0.5) -> Array:
    """Rows that agree on most examples, as predictions do."""
    random = np.random.default_rng(seed)
    codes = np.tile(random.integers(classes, size=n), (rows, 1))
    wrong = random.random(codes.shape) < share
    codes[wrong] = random.integers(classes, size=int(wrong.sum()))
    return codes.astype(np.min_scalar_type(classes - 1))


@settings(deadline=None, max_examples=60)
@given(
    rows=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    n=st.integers(1, 400),
    classes=st.sampled_from([2, 3, 4, 10, 100, 256, 257, 1000, 70_000]),
    tile=st.sampled_from([4, 8, 64]),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_counts_are_exact(
    rows: tuple[int, int], n: int, classes: int, tile: int, threads: int, seed: int
) -> None:
    a, b = (codes_of(each, n, classes, seed + each) for each in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bit_planes, "ROWS_AT_ONCE", tile)
        packed = pack(a)
        np.testing.assert_array_equal(count_differences(packed, pack(b), threads), direct(a, b))
        np.testing.assert_array_equal(count_differences(packed, packed, threads), direct(a, a))


@pytest.mark.parametrize("classes", [2, 5, 300])
def test_planes_hold_the_bits_of_codes(classes: int) -> None:
    codes = codes_of(3, 130, classes, 0)
    packed = pack(codes)
    assert packed.shape == (3, (classes - 1).bit_length(), 3)
    bits = np.unpackbits(packed.view(np.uint8), axis=2, bitorder="little")
    weights = 1 << np.arange(packed.shape[1])
    np.testing.assert_array_equal((bits * weights[:, None]).sum(1)[:, :130], codes)
    assert not bits[..., 130:].any()  # so that they never differ


def test_many_words_are_worked_through_in_stretches() -> None:
    """More words than are taken at once, and not a multiple of them."""
    for classes in (2, 1000):
        codes = codes_of(6, 64 * 1700 + 5, classes, 1)
        packed = pack(codes)
        np.testing.assert_array_equal(count_differences(packed, packed), direct(codes, codes))


def test_a_constant_row_has_a_plane() -> None:
    zeros, ones = np.zeros((1, 70), np.uint8), np.ones((1, 70), np.uint8)
    assert pack(zeros).shape == (1, 1, 2)
    assert count_differences(pack(zeros), pack(ones)).tolist() == [[70]]
    assert count_differences(pack(zeros), pack(200 * ones)).tolist() == [[70]]


def test_it_works_where_nothing_can_be_written(tmp_path: Path) -> None:
    """An installation that is not the user's own, and no home."""
    package = tmp_path / "site/td_ray"
    shutil.copytree(
        Path(bit_planes.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__")
    )
    (package / "measures/__pycache__").write_text("in the way of numba's cache")
    (tmp_path / "home").write_text("in the way of the user's own")
    code = (
        "import numpy as np; from td_ray.measures.bit_planes import pack, count_differences as c;"
        "import td_ray; print(td_ray.__file__);"
        "print(c(pack(np.array([[0, 3]])), pack(np.array([[1, 3]])))[0, 0])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [str(package / "__init__.py"), "1"]
