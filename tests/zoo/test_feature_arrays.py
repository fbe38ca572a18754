from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_data import dataset, extracted

from td_ray.errors import InputError, WorkError
from td_ray.files import sha256
from td_ray.zoo import feature_arrays as module
from td_ray.zoo.feature_arrays import FeatureArrays

DATA = dataset(["a", "b", "c", "d"])


def model(folder: Path, **entry: Any) -> FeatureArrays:
    entry = {"source": "features", "path": "f.npz", **entry}
    (found,) = FeatureArrays(**entry).expand(folder, ["d"], folder)
    return found


def features(folder: Path, **entry: Any) -> NDArray[np.float32]:
    return extracted(model(folder, **entry), DATA, folder, "output")["output"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.uint8])
def test_rows_come_in_the_order_of_the_data_set(
    tmp_path: Path, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(8, dtype=dtype).reshape(4, 2)
    np.savez(tmp_path / "f.npz", id=["d", "b", "a", "c"], features=values)
    expected = values[[2, 1, 3, 0]].astype(np.float32)
    np.testing.assert_array_equal(features(tmp_path), expected)
    monkeypatch.setattr(module, "ROWS_PER_BLOCK", 3)
    np.testing.assert_array_equal(features(tmp_path), expected)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(4),
        np.zeros((4, 2, 2)),
        np.zeros((4, 0)),
        np.zeros((4, 2), dtype=complex),
        np.array([["x", "y"]] * 4),
        np.zeros((4, 2), dtype=bool),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(tmp_path: Path, values: NDArray[Any]) -> None:
    np.savez(tmp_path / "f.npz", id=["a", "b", "c", "d"], features=values)
    with pytest.raises(WorkError, match=r"f\.npz: features are a table of numbers .* not "):
        features(tmp_path)


def test_numbers_too_large_for_float32_become_infinite_without_a_warning(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", id=["a", "b", "c", "d"], features=np.full((4, 2), 1e300))
    assert np.isinf(features(tmp_path)).all()  # which the cache refuses


def test_planning_finds_other_samples_and_missing_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", id=["a", "b", "c", "x"], features=np.zeros((4, 2)))
    found = model(tmp_path)
    with pytest.raises(InputError, match="do not match those of data set 'd'"):
        found.check(tmp_path, DATA, ["r"])
    (tmp_path / "f.npz").unlink()
    with pytest.raises(InputError, match="features: no file at"):
        found.check(tmp_path, DATA, ["r"])
    with pytest.raises(WorkError):
        extracted(found, DATA, tmp_path, "output")


def test_identity(tmp_path: Path) -> None:
    ids = ["a", "b", "c", "d"]
    np.savez(tmp_path / "f.npz", id=ids, features=np.zeros((4, 2)))
    np.savez(tmp_path / "g.npz", id=ids, features=np.zeros((4, 2)))
    (tmp_path / "ids.txt").write_text("\n".join(ids))

    def identity(digest: Any = sha256, **entry: Any) -> Any:
        return model(tmp_path, **entry).identity(tmp_path, "d", "output", digest)

    first = identity()
    assert identity(path="g.npz", name="other", metadata={"x": 1}) == first
    assert identity(key="x") != first
    assert identity(ids="row-order") != first
    beside = identity(ids="ids.txt")
    assert beside != first
    (tmp_path / "ids.txt").write_text("\n".join(ids[::-1]))
    assert identity(ids="ids.txt") != beside
    assert identity(digest=lambda path: None) is None
    assert identity(lambda path: None if path.suffix == ".txt" else "x", ids="ids.txt") is None
    np.savez(tmp_path / "f.npz", id=ids, features=np.ones((4, 2)))
    assert identity() != first


def test_the_name_of_the_data_set_in_paths(tmp_path: Path) -> None:
    np.save(tmp_path / "net-d.npy", np.zeros((4, 2)))
    (tmp_path / "ids-d.txt").write_text("a\nb\nc\nd")
    found = model(tmp_path, path="net-{data}.npy", ids="ids-{data}.txt")
    assert found.name == "net"
    found.check(tmp_path, DATA, ["r"])
