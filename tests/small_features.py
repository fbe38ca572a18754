"""Six samples with features of width three, and a store to write them into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from small_data import dataset

from td_ray.features import FeatureStore, Pass
from td_ray.zoo import Representation, Storage
from td_ray.zoo.feature_arrays import FeatureArrays

IDS = [f"s{number}" for number in range(6)]
DATA = dataset(IDS)
VALUES = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def representation(name: str = "net", layer: str = "output") -> Representation:
    return Representation(FeatureArrays(source="features", path="f.npy", name=name), layer)


def write(
    store: FeatureStore, key: str = "k", blocks: Any = (VALUES,), storage: Storage = "float32"
) -> None:
    with store.writing(_pass({"output": key}, storage)) as arrays:
        for block in blocks:
            arrays.append({"output": block})
        arrays.finish()


def visible(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def both(storage: Storage = "float32") -> Pass:
    return _pass({"output": "k", "hidden": "h"}, storage)


def _pass(keys: dict[str, str], storage: Storage) -> Pass:
    model = FeatureArrays(source="features", path="f.npy", name="net", storage=storage)
    return Pass(model, DATA, keys)
