"""The store: whole entries, damage, what is dropped first."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from small_features import VALUES, visible, write

from td_ray.features import FeatureStore
from td_ray.files import sha256


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
