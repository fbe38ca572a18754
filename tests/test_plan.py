"""The plan: what is asked for in pairs is paid for in models, and never twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_zoo import (
    described,
    experiment,
    planned,
    write_zoo,
)

from td_ray.files import DigestMemory
from td_ray.plan import make_plan
from td_ray.plan.estimate import BYTES_OF_PROCESS, count_pairs, process_bytes
from td_ray.plan.resolve import resolve
from td_ray.plan.tiles import COPIES, plan_tiles, tile_size
from td_ray.results.manifest import read_manifest
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.sweep import run


def test_heads_grow_with_models_and_pairs_with_their_square(zoo: Path) -> None:
    plan = planned(experiment(zoo))
    assert len(plan.units) == 4 * 2
    assert len(plan.blocks) == 4
    assert count_pairs(plan) == 2 * 6
    content = described(plan.problem.experiment)
    assert content["heads"] == 4 * 2 * (1 + 2 * 2)
    assert content["missing"] == 8


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
    return list(plan_tiles(planned(wanted), Parts(wanted.output_folder)))


def test_equal_models_are_fitted_once(zoo: Path) -> None:
    (zoo / "features/twin-0.npz").write_bytes((zoo / "features/net-0.npz").read_bytes())
    plan = planned(experiment(zoo))
    assert len(plan.units) == 5 * 2
    assert sum(len(block.units) for block in plan.blocks) == 4 * 2
    results = run(experiment(zoo), backend="inline")
    assert results.matrix("species").to_pandas().loc["net-0", "twin-0"] == 0


def test_large_files_that_were_never_read_are_unknown_to_a_plan(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("td_ray.files.SMALL_FILE_BYTES", 10)
    wanted = experiment(zoo)
    memory = DigestMemory(wanted.cache_path)
    manifest = read_manifest(wanted.output_folder, wanted)
    parts = Parts(wanted.output_folder)
    plan = make_plan(resolve(wanted), manifest, parts, memory.known)
    assert plan.count("unknown") == len(plan.units)
    make_plan(resolve(wanted), manifest, parts, memory.computed)
    again = make_plan(resolve(wanted), manifest, parts, memory.known)
    assert again.count("missing") == len(plan.units)


def test_tiles_shrink_with_the_memory_and_not_with_the_zoo(zoo: Path) -> None:
    wanted = experiment(zoo)
    unit = planned(wanted).units[0]
    of_model = COPIES * len(unit.task.evaluation_ids("points")) * (1 + 2 * len(wanted.seeds))

    def size(memory: int) -> int:
        return tile_size(experiment(zoo, resources={"memory": memory}), unit, "points")

    assert tile_size(wanted, unit, "points") == size(2 * 128 * of_model) == 128
    assert size(2 * 128 * of_model - 1) == 64
    assert size(2 * 8 * of_model) == 8
    assert size(1) == 1
    assert tile_size(experiment(zoo, resources={"tile": 3}), unit, "points") == 3


def test_what_trials_declare_of_memory_is_what_was_asked_for_or_what_they_are_likely_to_take(
    zoo: Path,
) -> None:
    """Small data does not declare the 2 GiB that it may take: fewer trials would share a node."""

    def taken(**resources: str) -> int:
        return process_bytes(planned(experiment(zoo, resources=resources))) - BYTES_OF_PROCESS

    assert taken(memory="3GiB") == 3 * 2**30
    assert 0 < taken() < 2**26
