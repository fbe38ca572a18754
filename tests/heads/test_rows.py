"""Rows that stream from a memory map: the values are those in memory, and only they are read."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from td_ray.errors import InputError
from td_ray.heads.rows import ScaledRows, blocks, gather
from td_ray.heads.scaling import SCALINGS, fit_scaling

PRECISIONS = [np.float16, np.float32, np.float64]


def mapped(folder: Path, matrix: np.ndarray) -> torch.Tensor:  # type: ignore[type-arg]
    np.save(folder / "features.npy", matrix)
    return torch.from_numpy(np.load(folder / "features.npy", mmap_mode="c"))


@pytest.mark.parametrize("kind", [None, *SCALINGS])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_of_a_map_are_those_in_memory(
    tmp_path: Path,
    kind: str | None,
    precision: type[np.floating],  # type: ignore[type-arg]
) -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((700, 9)) * 2 + 1).astype(precision)
    used = torch.from_numpy(rng.random(700) < 0.6)
    training = torch.from_numpy(matrix)[used]
    scaling = None if kind is None else fit_scaling(training, kind)
    whole = training if scaling is None else scaling.apply(training)
    rows = ScaledRows(mapped(tmp_path, matrix), used, scaling)
    assert (rows.shape, rows.dtype, rows.device) == (whole.shape, whole.dtype, whole.device)
    assert len(rows) == len(whole)
    assert torch.equal(rows.materialise(), whole)
    # how a product with the whitening matrix is rounded may depend on the number of rows
    bound = 8 * torch.finfo(whole.dtype).eps if kind == "whiten" else 0.0
    same = partial(torch.testing.assert_close, rtol=bound, atol=bound)
    same(rows[3:300], whole[3:300])
    same(rows[-5:], whole[-5:])
    same(rows[20:10], whole[20:10])
    index = torch.tensor([7, 0, 200, 7, 201, 202])
    same(rows.rows(index), whole[index])
    same(gather(rows, index), gather(whole, index))
    numbers = ScaledRows(mapped(tmp_path, matrix), used.nonzero().squeeze(1), scaling)
    assert torch.equal(numbers.materialise(), whole)


@settings(derandomize=True, deadline=None, max_examples=50, database=None)
@given(count=st.integers(0, 40), size=st.integers(1, 50), first=st.integers(0, 10))
def test_blocks_are_the_rows_in_order(count: int, size: int, first: int) -> None:
    matrix = torch.arange(3.0 * (count + first)).reshape(count + first, 3)
    chosen = torch.arange(first, first + count)
    for features in (matrix[first:], ScaledRows(matrix, chosen)):
        parts = list(blocks(features, size))
        assert all(0 < len(block) <= size for _, block in parts)
        assert all(torch.equal(matrix[first:][run], block) for run, block in parts)
        joined = [row for _, block in parts for row in block[:, 0].tolist()]
        assert joined == matrix[first:, 0].tolist()


def test_a_run_of_rows_shares_the_maps_memory() -> None:
    matrix = torch.rand(50, 3)
    for rows in (None, torch.arange(10, 50)):
        first = 0 if rows is None else 10
        assert ScaledRows(matrix, rows)[5:20].data_ptr() == matrix[first + 5 :].data_ptr()
    assert gather(matrix, torch.arange(7, 9)).data_ptr() == matrix[7:].data_ptr()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_rows_touches_their_pages_alone(tmp_path: Path) -> None:
    """Resident memory, of a process of its own: 400 MB mapped, 8 rows and one run of rows read."""
    path = tmp_path / "features.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (100_000, 1000)).flush()
    script = f"""
import numpy as np, torch
from td_ray.heads.rows import ScaledRows, gather
from td_ray.heads.scaling import fit_scaling

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

scaling = fit_scaling(torch.randn(300, 1000), "column")
matrix = torch.from_numpy(np.load({str(path)!r}, mmap_mode="c"))
rows = ScaledRows(matrix, torch.arange(0, 100_000, 2), scaling)
rows[0:1]
before = resident()
rows[100:1100]
gather(rows, torch.tensor([5, 40_000, 3]))
ScaledRows(matrix)[50_000:51_000].sum()
print(resident() - before)
"""
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 100e6


@pytest.mark.parametrize(
    ("matrix", "rows", "words"),
    [
        (torch.ones(3), None, "matrix with a row per sample"),
        (torch.ones(3, 2, dtype=torch.int64), None, "floating-point"),
        (torch.ones(3, 2), torch.ones(2, dtype=torch.bool), "a bool for each of 3 rows"),
        (torch.ones(3, 2), torch.ones(2), "int64 row numbers"),
        (torch.ones(3, 2), torch.tensor([[0]]), "int64 row numbers"),
        (torch.ones(3, 2), torch.tensor([1, 0]), "increase"),
        (torch.ones(3, 2), torch.tensor([1, 1]), "increase"),
        (torch.ones(3, 2), torch.tensor([1, 3]), "0 to 2"),
        (torch.ones(3, 2), torch.tensor([-1, 0]), "0 to 2"),
    ],
)
def test_bad_input(matrix: torch.Tensor, rows: torch.Tensor | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ScaledRows(matrix, rows)


def test_a_scaling_of_another_width_and_a_stride_are_refused() -> None:
    with pytest.raises(InputError, match="2 features per row"):
        ScaledRows(torch.rand(5, 3), scaling=fit_scaling(torch.rand(5, 2)))
    with pytest.raises(InputError, match="step 2"):
        ScaledRows(torch.rand(5, 3))[::2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_blocks_come_to_the_device() -> None:
    matrix = torch.randn(600, 20)
    used = torch.arange(0, 600, 3)
    scaling = fit_scaling(ScaledRows(matrix, used, device="cuda"), "column")
    rows = ScaledRows(matrix, used, scaling, "cuda")
    assert rows.device.type == rows[0:3].device.type == "cuda"
    expected = fit_scaling(matrix[used]).apply(matrix[used])
    torch.testing.assert_close(rows.materialise().cpu(), expected)
    torch.testing.assert_close(
        rows.rows(torch.tensor([4, 1], device="cuda")).cpu(), expected[[4, 1]]
    )
