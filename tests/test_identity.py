"""Fingerprints: they change with all that changes a result, and with nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_zoo import (
    TASKS,
    content,
    experiment,
    planned,
    write_features,
)

from td_ray.plan import Plan
from td_ray.plan.tiles import plan_tiles
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.sweep import run


def keys(plan: Plan) -> dict[tuple[str, str], str | None]:
    return {(unit.representation.model_name, unit.task.name): unit.key for unit in plan.units}


def test_keys_ignore_names_paths_and_resources(zoo: Path) -> None:
    before = keys(planned(experiment(zoo)))
    (zoo / "features").rename(zoo / "moved")
    models = [{"source": "features", "path": "moved/net-*.npz", "name": "{stem}"}]
    resources = {"cpus_per_trial": 2, "batch_size": 7, "tile": 3}
    after = keys(planned(experiment(zoo, models=models, resources=resources)))
    assert before == after


@pytest.mark.parametrize(
    "change",
    [
        {"heads": [{"kind": "logistic", "l2": 1e-2}, "ridge"]},
        {"heads": [{"kind": "logistic", "scaling": "none"}, "ridge"]},
        {
            "heads": [
                {"kind": "ridge", "targets": ["classification"]},
                {"name": "r", "kind": "ridge"},
            ]
        },
        {
            "data": [
                {"name": "points", "source": "table", "path": "points.csv", "stratify": "species"}
            ]
        },
        {
            "data": [
                {
                    "name": "points",
                    "source": "table",
                    "path": "points.csv",
                    "split": {"column": "split"},
                }
            ]
        },
        {
            "tasks": [
                {
                    "name": "species",
                    "data": "points",
                    "target": "species",
                    "classes": {"cat": ["cat"], "insect": ["ant", "bee"]},
                }
            ]
        },
    ],
)
def test_keys_change_with_what_changes_heads(zoo: Path, change: dict[str, object]) -> None:
    before = keys(planned(experiment(zoo)))
    after = keys(planned(experiment(zoo, **change)))
    assert before["net-0", "species"] != after["net-0", "species"]


def test_keys_change_with_the_bytes_of_features(zoo: Path) -> None:

    before = keys(planned(experiment(zoo)))
    with np.load(zoo / "features/net-0.npz") as arrays:
        ids, features = arrays["id"], arrays["features"].copy()
    features[0, 0] += 1
    write_features(zoo / "features/net-0.npz", ids, features)
    after = keys(planned(experiment(zoo)))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {("net-0", "species"), ("net-0", "size")}


def test_another_column_changes_no_key(zoo: Path) -> None:
    import pandas as pd

    before = keys(planned(experiment(zoo)))
    table = pd.read_csv(zoo / "points.csv")
    table.assign(colour="red").to_csv(zoo / "points.csv", index=False)
    assert keys(planned(experiment(zoo))) == before


def unit_keys(wanted: Experiment) -> dict[tuple[str, str, str], str | None]:
    plan = planned(wanted)
    return {(u.representation.name, u.task.name, u.head.name): u.key for u in plan.units}


def shifted(zoo: Path, **changes: dict[str, Any]) -> Experiment:
    """Fitted on one data set, evaluated on another one alone; rows in the order of the classes."""
    for number in range(4):
        source = (zoo / f"features/net-{number}.npz").read_bytes()
        for name in ("points", "other"):
            path = zoo / f"both/{name}/net-{number}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source)
    table = pd.read_csv(zoo / "points.csv").sort_values("species", kind="stable")
    table.to_csv(zoo / "points.csv", index=False)
    table.to_csv(zoo / "other.csv", index=False)
    entry = content()["data"][0]
    data = [
        {**entry, **changes.get("points", {})},
        {**entry, "name": "other", "path": "other.csv", **changes.get("other", {})},
    ]
    task = {"name": "species", "data": "points", "target": "species", "evaluate": ["other"]}
    models = [{"source": "features", "path": "both/{data}/net-*.npz"}]
    return experiment(zoo, data=data, models=models, tasks=[task])


@pytest.mark.parametrize("name", ["points", "other"])
def test_keys_change_with_either_split_of_a_shift(zoo: Path, name: str) -> None:
    """Two samples of one class change places: targets stay what they were, rows do not."""
    before = unit_keys(shifted(zoo))
    table = pd.read_csv(zoo / f"{name}.csv")
    ants = table[table["species"] == "ant"]
    rows = [ants.index[ants["split"] == word][0] for word in ("train", "test")]
    table.loc[rows, "split"] = table.loc[rows[::-1], "split"].to_numpy()
    table.to_csv(zoo / f"{name}-2.csv", index=False)
    after = unit_keys(shifted(zoo, **{name: {"path": f"{name}-2.csv"}}))
    assert not set(before.values()) & set(after.values())


@pytest.mark.parametrize("room", ["FEATURES", "SPLITS", "HEADS"])
def test_keys_of_units_change_with_the_version_of_each_room(
    zoo: Path, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = unit_keys(experiment(zoo))
    monkeypatch.setattr(f"td_ray.versions.{room}", 999)
    assert not set(before.values()) & set(unit_keys(experiment(zoo)).values())


def test_keys_of_tiles_change_with_the_version_of_measures(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tiles() -> set[str]:
        wanted = experiment(zoo)
        return {tile.key for tile in plan_tiles(planned(wanted), Parts(wanted.output_folder))}

    run(experiment(zoo), backend="inline")
    before = tiles()
    monkeypatch.setattr("td_ray.versions.MEASURES", 999)
    assert len(before) == 2
    assert not before & tiles()


def test_keys_change_with_the_names_of_classes(zoo: Path) -> None:
    """Absent classes and stored predictions go by these names."""

    def keys(name: str) -> set[str | None]:
        task = {**TASKS[0], "classes": {name: ["ant"], "other": ["bee", "cat"]}}
        return set(unit_keys(experiment(zoo, tasks=[task])).values())

    assert not keys("one") & keys("two")
