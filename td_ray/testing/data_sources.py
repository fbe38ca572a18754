"""What every data source keeps to, checked on one that can be read.

def test_my_source(tmp_path):
source = MySource(source="mine", name="d", path="data")
check_data_source(source, folder=Path("tests"), cache=tmp_path)
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from td_ray.files import DigestMemory, fingerprint
from td_ray.tasks.dataset import DataSource, Samples
from td_ray.tasks.inputs import Inputs

BYTES_PER_SAMPLE = 400
"""What may be pickled for each sample: a path or a row number, not an image."""

FIXED_BYTES = 10_000

ROWS = 24
"""How many samples' inputs are read."""


def check_data_source(source: DataSource, folder: Path, cache: Path) -> None:
    """Check that a data source keeps to the contract.

    Args:
        source: one that can be read, with at least two samples.
        folder: where its relative paths start.
        cache: an empty folder.

    Raises:
        AssertionError: it does not; says what is wrong.
    """
    samples = source.read(folder, cache)
    _check_columns(samples)
    again = source.read(folder, cache)
    assert again.ids.tolist() == samples.ids.tolist(), "a second read gives other ids"
    assert list(again.columns) == list(samples.columns), "a second read gives other columns"
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source, "a source that was pickled is another one"
    identity = _identity(source, folder, cache)
    assert _identity(copy, folder, cache) == identity, "the identity of the inputs is not stable"
    if samples.inputs is None:
        return
    assert identity is not None, "there are inputs, and they have no identity"
    inputs = samples.inputs()
    _check_inputs(inputs, len(samples.ids))
    _check_pickles(samples, inputs)


def _identity(source: DataSource, folder: Path, cache: Path) -> str | None:
    found = source.inputs_identity(folder, DigestMemory(cache).computed)
    return None if found is None else fingerprint(found)


def _check_columns(samples: Samples) -> None:
    ids = samples.ids.tolist()
    assert len(ids) > 1, "give it two samples or more"
    assert all(isinstance(name, str) for name in ids), "ids are not str"
    assert all(ids), "a sample id is empty"
    assert len(set(ids)) == len(ids), "sample ids are not distinct"
    for name, values in samples.columns.items():
        assert isinstance(values, np.ndarray), f"column '{name}' is not an array"
        found = values.shape[:1]
        assert found == (len(ids),), f"column '{name}' has not one value per sample"


def _check_inputs(inputs: Inputs, n: int) -> None:
    assert len(inputs) == n, f"{len(inputs)} inputs for {n} samples"
    rows = sorted({*range(min(n, ROWS // 2)), *range(max(0, n - ROWS // 2), n)})
    singles = {row: _only(inputs[row : row + 1]) for row in rows}
    cuts = [slice(0, ROWS // 2), slice(1, 4), slice(max(0, n - ROWS // 2), n), slice(n - 1, n + 5)]
    blocks = [inputs[cut] for cut in cuts]
    for cut, block in zip(cuts, blocks, strict=True):
        expected = [singles[row] for row in range(*cut.indices(n))]
        assert _same(block, expected), f"the block {cut} differs from its samples read one by one"
    assert len(inputs[0:0]) == 0, "an empty slice gives samples"
    with ThreadPoolExecutor(4) as pool:
        from_threads = list(pool.map(inputs.__getitem__, cuts * 8))
    for found, block in zip(from_threads, blocks * 8, strict=True):
        assert _same(found, block), "blocks that are read from threads differ"


def _check_pickles(samples: Samples, inputs: Inputs) -> None:
    n = len(samples.ids)
    pickled = pickle.dumps(samples.inputs)
    most = FIXED_BYTES + n * BYTES_PER_SAMPLE
    assert len(pickled) <= most, f"inputs are {len(pickled)} bytes when pickled: paths, not data"
    opened = pickle.loads(pickled)()
    assert _same(opened[0:3], inputs[0:3]), "inputs differ where they were pickled"


def _only(block: Any) -> Any:
    assert len(block) == 1, f"a slice of one sample gives {len(block)}"
    return block[0]


def _same(block: Any, expected: Any) -> bool:
    """Whether two blocks have the same samples; an array and a list of its rows are the same."""
    return len(block) == len(expected) and all(
        np.array_equal(a, b) and getattr(a, "dtype", None) == getattr(b, "dtype", None)
        for a, b in zip(block, expected, strict=True)
    )
