"""What decides features, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import dataset, extracted
from small_features import DATA, IDS, VALUES

from td_ray.errors import WorkError
from td_ray.features import features_key
from td_ray.files import sha256
from td_ray.zoo import Representation
from td_ray.zoo.checkpoints import Checkpoints
from td_ray.zoo.feature_arrays import FeatureArrays


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
    assert key(storage="float16") != first
    assert key(precision="bfloat16") != first
    assert key(pooling="max") != first
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
