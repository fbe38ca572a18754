"""The plan: what is asked for in pairs is paid for in models, and never twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_zoo import experiment, write_features, write_zoo

from td_ray.errors import InputError, RunError
from td_ray.estimate import count_pairs, describe
from td_ray.files import DigestMemory
from td_ray.plan import Plan, make_plan, plan_tiles
from td_ray.resolve import resolve
from td_ray.results.manifest import read_manifest
from td_ray.results.parts import Parts, name_of_runs, runs_of_name
from td_ray.spec import Experiment
from td_ray.sweep import run


def planned(wanted: Experiment) -> Plan:
    manifest = read_manifest(wanted.output_path, wanted)
    digest = DigestMemory(wanted.cache_path).computed
    return make_plan(resolve(wanted), manifest, Parts(wanted.output_path), digest)


def keys(plan: Plan) -> dict[tuple[str, str], str | None]:
    return {(unit.representation.model_name, unit.task.name): unit.key for unit in plan.units}


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    write_zoo(tmp_path)
    return tmp_path


def test_heads_grow_with_models_and_pairs_with_their_square(zoo: Path) -> None:
    plan = planned(experiment(zoo))
    assert len(plan.units) == 4 * 2
    assert len(plan.blocks) == 4
    assert count_pairs(plan) == 2 * 6
    wanted = plan.problem.experiment
    content = describe(wanted, plan, Parts(wanted.output_path))
    assert content["heads"] == 4 * 2 * (1 + 2 * 2)
    assert content["missing"] == 8


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
    import numpy as np

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


def test_more_seeds_fit_only_the_new_ones(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    plan = planned(experiment(zoo, seeds=4))
    assert {unit.runs for block in plan.blocks for unit in block.units} == {(2, 3)}


def test_a_new_model_costs_its_own_heads(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    write_zoo(zoo, models=5)
    plan = planned(experiment(zoo))
    assert [block.representation.model_name for block in plan.blocks] == ["net-4"]
    assert plan.manifest.representations[-1] == "net-4@output"


def test_pairs_that_are_not_wanted_cost_no_heads(zoo: Path) -> None:
    plan = planned(experiment(zoo, pairs=[["net-0", "net-1"]]))
    assert {unit.representation.model_name for unit in plan.units} == {"net-0", "net-1"}
    assert count_pairs(plan) == 2


def test_tiles_of_full_ranges_survive_growth(zoo: Path) -> None:
    small = {"resources": {"tile": 2}}
    run(experiment(zoo, **small), backend="inline")
    before = {tile.key for tile in tiles(experiment(zoo, **small))}
    write_zoo(zoo, models=6)
    run(experiment(zoo, **small), backend="inline")
    after = {tile.key for tile in tiles(experiment(zoo, **small))}
    assert before < after


def tiles(wanted: Experiment) -> list[object]:
    return list(plan_tiles(planned(wanted), Parts(wanted.output_path)))


def test_equal_models_are_fitted_once(zoo: Path) -> None:
    (zoo / "features/twin-0.npz").write_bytes((zoo / "features/net-0.npz").read_bytes())
    plan = planned(experiment(zoo))
    assert len(plan.units) == 5 * 2
    assert sum(len(block.units) for block in plan.blocks) == 4 * 2
    results = run(experiment(zoo), backend="inline")
    assert results.matrix("species").loc["net-0", "twin-0"] == 0


def test_large_files_that_were_never_read_are_unknown_to_a_plan(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("td_ray.files.SMALL_FILE_BYTES", 10)
    wanted = experiment(zoo)
    memory = DigestMemory(wanted.cache_path)
    manifest = read_manifest(wanted.output_path, wanted)
    parts = Parts(wanted.output_path)
    plan = make_plan(resolve(wanted), manifest, parts, memory.known)
    assert plan.count("unknown") == len(plan.units)
    make_plan(resolve(wanted), manifest, parts, memory.computed)
    again = make_plan(resolve(wanted), manifest, parts, memory.known)
    assert again.count("missing") == len(plan.units)


@pytest.mark.parametrize(
    ("runs", "name"),
    [
        ([None], "full"),
        ([None, 0, 1, 2, 3, 4], "full,0-4"),
        ([3], "3"),
        ([7, 1, 2], "1-2,7"),
    ],
)
def test_names_of_runs(runs: list[int | None], name: str) -> None:
    assert name_of_runs(runs) == name
    assert sorted(runs_of_name(name), key=str) == sorted(runs, key=str)


def test_two_parts_with_the_same_run_are_refused(zoo: Path) -> None:
    wanted = experiment(zoo)
    run(wanted, backend="inline")
    part = next((wanted.output_path / "parts/heads").glob("*/full,0-1.parquet"))
    part.with_name("0.parquet").write_bytes(part.read_bytes())
    with pytest.raises(RunError, match="hold the same run"):
        planned(wanted)


def test_a_part_cut_short_is_not_trusted(zoo: Path) -> None:
    wanted = experiment(zoo)
    run(wanted, backend="inline")
    part = next((wanted.output_path / "parts/heads").glob("*/*.parquet"))
    part.write_bytes(part.read_bytes()[:-7])
    assert planned(wanted).count("missing") == 1
    run(wanted, backend="inline")
    assert planned(wanted).count("finished") == 8


def test_a_folder_with_another_experiment_is_refused(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    with pytest.raises(InputError, match="holds another experiment, 'small'"):
        planned(experiment(zoo, name="other"))


def test_a_folder_with_other_files_is_refused(zoo: Path) -> None:
    with pytest.raises(InputError, match="holds no td-ray results"):
        planned(experiment(zoo, output="features"))
