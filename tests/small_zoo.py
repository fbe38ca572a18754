"""A small zoo of feature arrays, written to a folder: what most tests of the sweep run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from td_ray.costs import read_calibration
from td_ray.costs.calibration import ORDINARY
from td_ray.files import DigestMemory
from td_ray.plan import Plan, make_plan
from td_ray.plan.resolve import resolve
from td_ray.plan.summary import describe
from td_ray.results.manifest import read_manifest
from td_ray.results.parts import Parts
from td_ray.spec import Experiment

SAMPLES = 120


def write_zoo(folder: Path, models: int = 4, width: int = 6, data: str = "points") -> None:
    """Features of some models and the table of labels that goes with them.

    Model i sees two informative directions and its own noise, so that models differ.
    """
    random = np.random.default_rng(0)
    label = np.arange(SAMPLES) % 3
    signal = np.eye(3)[label] * 2 + random.normal(size=(SAMPLES, 3))
    table = pd.DataFrame(
        {
            "id": [f"s{number:03d}" for number in range(SAMPLES)],
            "species": np.array(["ant", "bee", "cat"])[label],
            "size": signal[:, 0] + 0.1 * random.normal(size=SAMPLES),
            "split": np.where(np.arange(SAMPLES) % 5 < 3, "train", "test"),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{data}.csv", index=False)
    for number in range(models):
        own = np.random.default_rng(100 + number)
        mixing = own.normal(size=(3, width))
        features = signal @ mixing + 0.5 * own.normal(size=(SAMPLES, width))
        write_features(folder / "features" / f"net-{number}.npz", table["id"].to_numpy(), features)


def write_features(path: Path, ids: Any, features: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, id=np.asarray(ids, dtype=str), features=np.asarray(features, dtype=np.float32))


def content(**changes: Any) -> dict[str, Any]:
    """An experiment on the zoo that ``write_zoo`` writes."""
    experiment = {
        "name": "small",
        "models": [{"source": "features", "path": "features/{kind}-{number}.npz"}],
        "data": [
            {
                "name": "points",
                "source": "table",
                "path": "points.csv",
                "split": {"column": "split"},
                "stratify": "species",
            }
        ],
        "tasks": [
            {"name": "species", "data": "points", "target": "species"},
            {"name": "size", "data": "points", "target": "size", "kind": "regression"},
        ],
        "seeds": 2,
    }
    return {**experiment, **changes}


TASKS: list[dict[str, Any]] = content()["tasks"]


def write_shift(folder: Path) -> dict[str, Any]:
    """A second data set that the same task predicts, with features of its own.

    Returns:
        What changes of the experiment; the second data set, ``moved``, has 20 evaluation samples.
    """
    table = pd.read_csv(folder / "points.csv")
    table["split"] = np.where(np.arange(SAMPLES) < 20, "test", "train")
    table.to_csv(folder / "moved.csv", index=False)
    for path in sorted((folder / "features").glob("*.npz")):
        with np.load(path) as arrays:
            ids, features = arrays["id"], arrays["features"]
        write_features(folder / "both/points" / path.name, ids, features)
        write_features(folder / "both/moved" / path.name, ids, features + 0.5)
    points = content()["data"][0]
    return {
        "data": [points, {**points, "name": "moved", "path": "moved.csv"}],
        "models": [{"source": "features", "path": "both/{data}/net-*.npz"}],
        "tasks": [{**TASKS[0], "evaluate": ["points", "moved"]}],
    }


def experiment(folder: Path, **changes: Any) -> Experiment:
    """The same, validated, with its folder and a cache of its own."""
    values = content(**changes)
    resources = {"cache": str(folder / "cache"), **values.pop("resources", {})}
    return Experiment.parse({**values, "folder": str(folder), "resources": resources})


def planned(wanted: Experiment) -> Plan:
    """The plan of an experiment, all digests computed."""
    manifest = read_manifest(wanted.output_folder, wanted)
    digest = DigestMemory(wanted.cache_path).computed
    return make_plan(resolve(wanted), manifest, Parts(wanted.output_folder), digest)


def described(wanted: Experiment) -> dict[str, Any]:
    """What `td-ray plan --json` says of an experiment."""
    parts = Parts(wanted.output_folder)
    return describe(wanted, planned(wanted), parts, read_calibration(ORDINARY))


def parts_of(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """All parts with their times and bytes: one that was written again has another time."""
    files = sorted((folder / "output/parts").rglob("*.parquet"))
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
