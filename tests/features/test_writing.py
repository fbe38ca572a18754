"""Arrays on their way into the store: what they may hold, losses, two writers at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_features import VALUES, both, visible, write

from td_ray.errors import WorkError
from td_ray.features import Features, FeatureStore
from td_ray.zoo import Storage


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_names_its_sample(store: FeatureStore, tmp_path: Path, bad: Any) -> None:
    values = VALUES.copy()
    values[4, 1] = bad
    with pytest.raises(
        WorkError, match=r"'net' on data set 'd': NaN or infinite.*'output', samples 's4'$"
    ):
        write(store, blocks=[values[:3], values[3:]])
    assert visible(tmp_path / "features") == []


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([VALUES[:4]], "features of 4 samples, and the data set has 6"),
        ([VALUES, VALUES[:1]], "features of 7 or more samples, and the data set has 6"),
        ([VALUES[:5], VALUES[:5]], "features of 10 or more samples"),
        ([], "features of 0 samples"),
        ([VALUES[:3], VALUES[3:, :1]], r"width 3 at first, later of shape \(3, 1\): layer"),
        ([VALUES[:3], VALUES[3:, 0]], r"later of shape \(3,\)"),
    ],
)
def test_other_shapes_are_refused(
    store: FeatureStore, tmp_path: Path, blocks: list[NDArray[Any]], words: str
) -> None:
    with pytest.raises(WorkError, match=words):
        write(store, blocks=blocks)
    assert visible(tmp_path / "features") == []


def test_constant_columns_are_fine(store: FeatureStore) -> None:
    write(store, blocks=[np.zeros((6, 2), dtype=np.float32)])
    assert store.valid("k")


def test_an_interrupted_write_leaves_nothing_to_be_seen(
    store: FeatureStore, tmp_path: Path
) -> None:
    def blocks() -> Iterator[Features]:
        yield VALUES[:3]
        assert store.entries() == []
        assert not store.has("k")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(store, blocks=blocks())
    assert visible(tmp_path / "features") == []


def test_a_killed_write_leaves_nothing_to_be_seen(store: FeatureStore, tmp_path: Path) -> None:
    leftover = tmp_path / "features/.k.abc"
    leftover.mkdir(parents=True)
    (leftover / "features.npy").write_bytes(b"half")
    (leftover / "about.json").write_text("{}")
    assert not store.has("k")
    assert store.entries() == []
    write(store)
    assert [entry.key for entry in store.entries()] == ["k"]
    store.evict(())
    assert leftover.exists()  # it may still be at work
    long_ago = time.time() - 8 * 24 * 3600
    for path in (leftover / "features.npy", leftover / "about.json", leftover):
        os.utime(path, (long_ago, long_ago))
    store.evict(())
    assert not leftover.exists()
    assert store.valid("k")


def test_float16_takes_half_the_room_and_keeps_three_digits(store: FeatureStore) -> None:
    write(store)
    write(store, "half", storage="float16")
    found = store.open("half")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, VALUES.astype(np.float16))
    whole, half = ({e.key: e.bytes for e in store.entries()}[key] for key in ("k", "half"))
    assert 2 * (half - 128) == whole - 128  # beside the header


def test_what_float16_cannot_hold_names_its_sample(store: FeatureStore, tmp_path: Path) -> None:
    values = VALUES.copy()
    values[3, 2] = -70_000
    with pytest.raises(WorkError, match=r"too large for float16 .*'s3'; say storage: float32"):
        write(store, blocks=[values], storage="float16")
    assert visible(tmp_path / "features") == []
    write(store, blocks=[values])


LOST = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
import small_features as t
from td_ray.features import writing
writing.SYNC_SECONDS = 0.0
store = t.FeatureStore(Path(sys.argv[1]), 10**9)
with store.writing(t.both(sys.argv[2])) as arrays:
    arrays.append({{"output": t.VALUES[:2], "hidden": t.VALUES[:2, :1]}})
    arrays.append({{"output": t.VALUES[2:4], "hidden": t.VALUES[2:4, :1]}})
    writing.SYNC_SECONDS = 1e9
    arrays.append({{"output": t.VALUES[4:5], "hidden": t.VALUES[4:5, :1]}})
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_killed_pass_is_gone_on_with_at_its_last_sync(
    store: FeatureStore, tmp_path: Path, storage: Storage
) -> None:
    lost = subprocess.run([sys.executable, "-c", LOST, str(tmp_path), storage], check=False)
    assert lost.returncode == -9
    assert not store.has("k")
    with store.writing(both(storage)) as arrays:
        assert arrays.layers == ("hidden", "output")
        assert arrays.start == 4  # the fifth was written, but not synced
        arrays.append({"output": VALUES[4:], "hidden": VALUES[4:, :1]})
        arrays.finish()
    np.testing.assert_array_equal(store.open("k"), VALUES.astype(storage))
    np.testing.assert_array_equal(store.open("h"), VALUES[:, :1].astype(storage))
    fresh = FeatureStore(tmp_path / "fresh", 10**9)
    write(fresh, storage=storage)
    assert fresh.path("k").read_bytes() == store.path("k").read_bytes()
    assert not [name for name in visible(tmp_path / "features") if name.startswith(".")]


def test_a_journal_that_promises_more_than_there_is_is_not_believed(
    store: FeatureStore, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-c", LOST, str(tmp_path), "float32"], check=False)
    file = tmp_path / "features/.k/entry/features.npy"
    file.write_bytes(file.read_bytes()[:-40])
    with store.writing(both()) as arrays:
        assert arrays.start == 0
        arrays.append({"output": VALUES, "hidden": VALUES[:, :1]})
        arrays.finish()
    np.testing.assert_array_equal(store.open("k"), VALUES)


def test_a_pass_goes_on_without_a_layer_that_gives_no_features(store: FeatureStore) -> None:
    broken = VALUES[:, :1].copy()
    broken[2] = np.nan
    with store.writing(both()) as arrays:
        arrays.append({"output": VALUES[:3], "hidden": broken[:3]})
        assert arrays.layers == ("output",)
        arrays.append({"output": VALUES[3:], "hidden": broken[3:]})
        arrays.finish()
    assert store.valid("k")
    assert not store.has("h")
    assert "at layer 'hidden', samples 's2'" in str(arrays.errors["hidden"])


def test_what_is_there_is_not_written_again(store: FeatureStore) -> None:
    write(store)
    with store.writing(both()) as arrays:
        assert arrays.layers == ("hidden",)
        arrays.append({"output": VALUES, "hidden": VALUES[:, :1]})
        arrays.finish()
    np.testing.assert_array_equal(store.open("h"), VALUES[:, :1])


def test_two_processes_write_the_same_key(store: FeatureStore, tmp_path: Path) -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
import small_features as t
def slowly():
    for row in t.VALUES:
        time.sleep(0.05)
        yield row[None]
store = t.FeatureStore(Path({str(tmp_path)!r}), 10**9)
t.write(store, "k", slowly())
assert store.valid("k")
"""
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert store.valid("k")
    np.testing.assert_array_equal(store.open("k"), VALUES)
    assert visible(tmp_path / "features") == ["k", "k/about.json", "k/features.npy"]
