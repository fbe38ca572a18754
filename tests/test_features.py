"""The feature cache: keys, bytes, and what other processes see."""

from __future__ import annotations

import json
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
from small_data import dataset, extracted

from td_ray.errors import WorkError
from td_ray.features import Features, FeatureStore, Pass, features_key
from td_ray.files import sha256
from td_ray.zoo import Representation
from td_ray.zoo.checkpoints import Checkpoints
from td_ray.zoo.feature_arrays import FeatureArrays
from td_ray.zoo.stored_predictions import StoredPredictions

IDS = [f"s{number}" for number in range(6)]
DATA = dataset(IDS)
VALUES = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def representation(name: str = "net", layer: str = "output") -> Representation:
    return Representation(FeatureArrays(source="features", path="f.npy", name=name), layer)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path, 10**9)


def write(store: FeatureStore, key: str = "k", blocks: Any = (VALUES,)) -> None:
    with store.writing(Pass(representation().model, DATA, {"output": key})) as arrays:
        for block in blocks:
            arrays.append({"output": block})
        arrays.finish()


def visible(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_round_trip(store: FeatureStore, tmp_path: Path) -> None:
    assert not store.has("k")
    assert not store.valid("k")
    write(store, blocks=[VALUES[:2], VALUES[2:3], VALUES[3:]])
    assert store.has("k")
    assert store.valid("k")
    found = store.open("k")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, VALUES)
    assert visible(tmp_path / "features") == ["k", "k/about.json", "k/features.npy"]
    np.testing.assert_array_equal(np.load(store.path("k"), allow_pickle=False), VALUES)


def test_entries_are_readable_by_others(store: FeatureStore, tmp_path: Path) -> None:
    write(store)
    assert (tmp_path / "features/k").stat().st_mode & 0o055 == 0o055
    assert (tmp_path / "features/k/about.json").stat().st_mode & 0o044 == 0o044


def test_writing_into_an_open_array_does_not_change_the_file(store: FeatureStore) -> None:
    write(store)
    before = sha256(store.path("k"))
    array = store.open("k")
    array *= 2
    assert sha256(store.path("k")) == before
    np.testing.assert_array_equal(store.open("k"), VALUES)


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


LOST = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import test_features as t
from td_ray.features import writing
writing.SYNC_SECONDS = 0.0
store = t.FeatureStore(Path(sys.argv[1]), 10**9)
with store.writing(t.both()) as arrays:
    arrays.append({{"output": t.VALUES[:2], "hidden": t.VALUES[:2, :1]}})
    arrays.append({{"output": t.VALUES[2:4], "hidden": t.VALUES[2:4, :1]}})
    writing.SYNC_SECONDS = 1e9
    arrays.append({{"output": t.VALUES[4:5], "hidden": t.VALUES[4:5, :1]}})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def both() -> Pass:
    return Pass(representation().model, DATA, {"output": "k", "hidden": "h"})


def test_a_killed_pass_is_gone_on_with_at_its_last_sync(
    store: FeatureStore, tmp_path: Path
) -> None:
    lost = subprocess.run([sys.executable, "-c", LOST, str(tmp_path)], check=False)
    assert lost.returncode == -9
    assert not store.has("k")
    with store.writing(both()) as arrays:
        assert arrays.layers == ("hidden", "output")
        assert arrays.start == 4  # the fifth was written, but not synced
        arrays.append({"output": VALUES[4:], "hidden": VALUES[4:, :1]})
        arrays.finish()
    np.testing.assert_array_equal(store.open("k"), VALUES)
    np.testing.assert_array_equal(store.open("h"), VALUES[:, :1])
    fresh = FeatureStore(tmp_path / "fresh", 10**9)
    write(fresh)
    assert fresh.path("k").read_bytes() == store.path("k").read_bytes()
    assert not [name for name in visible(tmp_path / "features") if name.startswith(".")]


def test_a_journal_that_promises_more_than_there_is_is_not_believed(
    store: FeatureStore, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-c", LOST, str(tmp_path)], check=False)
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


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    match how:
        case "bit":
            content[-5] ^= 1
        case "tail":
            del content[-1:]
        case "empty":
            content.clear()
        case "longer":
            content += b"x"
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["bit", "tail", "empty", "longer"])
def test_damage_is_found_and_removed(store: FeatureStore, tmp_path: Path, how: str) -> None:
    write(store)
    damage(store.path("k"), how)
    other = FeatureStore(tmp_path, 10**9)
    assert other.has("k")
    assert not other.valid("k")
    assert visible(tmp_path / "features") == []
    write(store)
    assert other.valid("k")


@pytest.mark.parametrize("about", ["", "{}", "[]", "null", "\x00", '{"sha256": 3}'])
def test_a_damaged_record_is_a_damaged_entry(
    store: FeatureStore, tmp_path: Path, about: str
) -> None:
    write(store)
    write(store, "other")
    (tmp_path / "features/k/about.json").write_text(about)
    assert [entry.key for entry in store.entries()] == ["other"]
    assert not store.valid("k")
    assert not store.has("k")


def test_entries(store: FeatureStore) -> None:
    write(store)
    (entry,) = store.entries()
    assert (entry.key, entry.model, entry.layer, entry.data) == ("k", "net", "output", "d")
    assert entry.width == 3
    assert entry.bytes == store.path("k").stat().st_size


def used(folder: Path, key: str, when: float) -> None:
    os.utime(folder / "features" / key / "about.json", (when, when))


def test_what_was_used_longest_ago_is_dropped_first(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 10**9)
    for key in "abcd":
        write(store, key)
    size = store.entries()[0].bytes
    for when, key in enumerate("cadb"):
        used(tmp_path, key, 1000.0 + when)
    assert [entry.key for entry in store.entries()] == list("cadb")
    assert store.evict(()) == []
    small = FeatureStore(tmp_path, 2 * size)
    assert small.evict({"c"}) == ["a", "d"]
    assert [entry.key for entry in small.entries()] == ["c", "b"]
    assert FeatureStore(tmp_path, 0).evict({"b"}) == ["c"]
    assert FeatureStore(tmp_path, 0).evict({"b"}) == []


def test_use_is_remembered(store: FeatureStore, tmp_path: Path) -> None:
    for key in "ab":
        write(store, key)
        used(tmp_path, key, 1000.0)
    assert store.valid("a")
    assert [entry.key for entry in store.entries()] == ["b", "a"]


def test_remove(store: FeatureStore, tmp_path: Path) -> None:
    store.remove("nothing")
    write(store)
    array = store.open("k")
    store.remove("k")
    np.testing.assert_array_equal(array, VALUES)  # who has it mapped keeps it
    assert not store.valid("k")
    assert visible(tmp_path / "features") == []


def test_an_entry_that_vanishes_while_it_is_checked(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store)
    store.remove("k")
    monkeypatch.setattr(store, "has", lambda key: True)
    assert not store.valid("k")


def test_two_processes_write_the_same_key(store: FeatureStore, tmp_path: Path) -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import test_features as t
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


def key_of_features(folder: Path, data: Any = DATA, layer: str = "output", **entry: Any) -> Any:
    entry = {"source": "features", "path": "f.npy", "name": "n", "ids": "row-order", **entry}
    return features_key(Representation(FeatureArrays(**entry), layer), data, folder, sha256)


def test_key_of_feature_files(tmp_path: Path) -> None:
    for name in "fg":
        np.save(tmp_path / f"{name}.npy", VALUES)
    first = key_of_features(tmp_path)
    assert first is not None
    assert key_of_features(tmp_path, name="other", metadata={"x": 1}, path="g.npy") == first
    # inputs, columns and the data set's name do not decide what is in a feature file
    other = dataset(IDS, np.zeros((6, 2)), "renamed", {"y": range(6)}, "inputs")
    assert key_of_features(tmp_path, other) == first
    assert key_of_features(tmp_path, dataset(IDS[::-1])) != first
    assert key_of_features(tmp_path, dataset([*IDS[:5], "x"])) != first
    np.save(tmp_path / "f.npy", VALUES + 1)
    assert key_of_features(tmp_path) != first


def test_key_of_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("def build(): pass")
    for name in "ab":
        (tmp_path / f"{name}.pt").write_text("weights")

    def key(inputs: str | None = "bytes", layer: str = "output", **entry: Any) -> str | None:
        entry = {"source": "checkpoints", "path": "a.pt", "factory": "nets:build", **entry}
        data = dataset(IDS, VALUES, inputs_are=inputs)
        return features_key(Representation(Checkpoints(**entry), layer), data, tmp_path, sha256)

    first = key()
    assert first is not None
    assert key(path="b.pt", name="x") == first
    assert key("other bytes") != first
    assert key(layer="penultimate") != first
    assert key(arguments={"x": 1}) != first
    assert key(None) is None  # the inputs' digest is not known yet
    (tmp_path / "a.pt").write_text("other")
    assert key() != first


def test_key_is_not_known_where_a_digest_is_not(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", VALUES)
    model = FeatureArrays(source="features", path="f.npy", name="n", ids="row-order")
    found = features_key(Representation(model, "output"), DATA, tmp_path, lambda path: None)
    assert found is None


def test_errors_of_extraction_are_the_units_own(tmp_path: Path) -> None:
    def extract(model: Any) -> None:
        extracted(model, DATA, tmp_path, "output")

    with pytest.raises(WorkError, match=r"f\.npy"):
        extract(FeatureArrays(source="features", path="f.npy", name="n"))
    with pytest.raises(WorkError, match="gives predictions, not features"):
        extract(StoredPredictions(source="predictions", path="f.npy", name="n"))


def test_about_says_whose_features_they_are(store: FeatureStore, tmp_path: Path) -> None:
    write(store)
    about = json.loads((tmp_path / "features/k/about.json").read_text())
    assert about.pop("seconds") >= 0
    assert about == {
        "model": "net",
        "layer": "output",
        "data": "d",
        "shape": [6, 3],
        "samples": 6,
        "sha256": sha256(store.path("k")),
    }
