"""Running again, and running more: what is there is not repeated and answers for nothing else."""

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
    parts_of,
    planned,
    write_features,
    write_zoo,
)

from td_ray.results.parts import Parts
from td_ray.sweep import run
from td_ray.sweep.progress import Quiet


def test_running_again_repeats_nothing(zoo: Path) -> None:
    first = run(experiment(zoo), backend="inline").table("timings")
    before = parts_of(zoo)
    again = run(experiment(zoo), backend="inline").table("timings")
    assert parts_of(zoo) == before
    assert len(again) == len(first)


def test_a_block_that_starts_again_repeats_no_finished_unit(zoo: Path) -> None:
    from td_ray.features import FeatureStore
    from td_ray.work.extracting import open_from_store
    from td_ray.work.heads import run_block

    wanted = experiment(zoo)
    parts = Parts(wanted.output_folder)
    store = FeatureStore(wanted.cache_path, wanted.resources.cache_size)
    block = planned(wanted).blocks[0]
    opened = open_from_store(block.passes, wanted, store, Quiet().samples)
    assert run_block(block, wanted, parts, opened) == (2, 0)
    before = parts_of(zoo)
    assert run_block(block, wanted, parts, opened) == (2, 0)
    assert parts_of(zoo) == before


@pytest.mark.parametrize("tile", [1, 3, 128])
def test_tiles_do_not_change_results(zoo: Path, tile: int) -> None:
    whole = run(experiment(zoo), backend="inline").pairs()
    changed = experiment(zoo, output="tiled", resources={"tile": tile})
    tiled = run(changed, backend="inline").pairs()
    order = ["task", "model_a", "model_b"]
    pd.testing.assert_frame_equal(
        whole.sort_values(order, ignore_index=True), tiled.sort_values(order, ignore_index=True)
    )


def test_a_grown_zoo_equals_a_zoo_run_at_once(zoo: Path) -> None:
    run(experiment(zoo, seeds=1), backend="inline")
    write_zoo(zoo, models=6)
    grown = run(experiment(zoo, seeds=3), backend="inline").pairs()
    once = run(experiment(zoo, seeds=3, output="once"), backend="inline").pairs()
    pd.testing.assert_frame_equal(grown, once, atol=1e-6)


ANTS = {**TASKS[0], "name": "ants", "classes": {"ant": ["ant"], "other": ["bee", "cat"]}}


@pytest.mark.parametrize(
    ("changes", "heads", "pairs"),
    [
        ({"models": 5}, 2, 2),  # a tile of each task has the new model
        ({"seeds": 3}, 8, 2),  # in parts of their own; pairs have other floors
        ({"tasks": [*TASKS, ANTS]}, 4, 1),
        ({"measures": ["td", "error_consistency"]}, 0, 1),
    ],
)
def test_only_what_is_new_is_computed(
    zoo: Path, changes: dict[str, Any], heads: int, pairs: int
) -> None:
    """What was there stays as it is, and all is as if it had been run at once."""
    run(experiment(zoo), backend="inline")
    before, changes = parts_of(zoo), dict(changes)
    if "models" in changes:
        write_zoo(zoo, models=changes.pop("models"))
    grown = run(experiment(zoo, **changes), backend="inline")
    after = parts_of(zoo)
    assert {path: after[path] for path in before} == before
    new = [path.relative_to(zoo / "output/parts").parts[0] for path in after.keys() - before]
    assert (new.count("heads"), new.count("pairs"), len(new)) == (heads, pairs, heads + pairs)
    once = run(experiment(zoo, **changes, output="once"), backend="inline")
    pd.testing.assert_frame_equal(grown.pairs(), once.pairs(), atol=1e-6)


def test_a_model_that_left_is_not_in_the_tables(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    (zoo / "features/net-1.npz").unlink()
    results = run(experiment(zoo), backend="inline")
    assert results.models()["model"].tolist() == ["net-0", "net-2", "net-3"]
    assert list(results.matrix("species").to_pandas()) == ["net-0", "net-2", "net-3"]
    assert set(results.heads()["model"]) == {"net-0", "net-2", "net-3"}


def test_many_seeds_have_parts_with_short_names(zoo: Path) -> None:
    seeds = list(range(0, 200, 2))
    run(experiment(zoo, seeds=seeds, models=content()["models"]), backend="inline")
    again = run(experiment(zoo, seeds=[*seeds, 201]), backend="inline")
    assert len(again.heads()) == 4 * 2 * (1 + 2 * 101)


def moved_features(zoo: Path) -> None:
    with np.load(zoo / "features/net-0.npz") as arrays:
        write_features(zoo / "features/net-0.npz", arrays["id"], arrays["features"][::-1])


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": 1},
        {"seeds": [0, 5]},
        {"pairs": [["net-0", "net-1"], ["net-2", "net-3"]]},
        {"tasks": [TASKS[0], {**TASKS[1], "distance": "mean"}]},
        {"tasks": [TASKS[0], {**TASKS[1], "distance": "none"}]},
        {"heads": ["logistic", {"kind": "ridge", "l2": 10.0}]},
        {"features": "moved"},
    ],
)
def test_pairs_of_a_changed_experiment_are_those_of_a_fresh_one(
    zoo: Path, changes: dict[str, Any]
) -> None:
    """Tiles that are there must not answer for other seeds, pairs, distances or heads."""
    changes = dict(changes)
    run(experiment(zoo), backend="inline")
    if changes.pop("features", None):
        moved_features(zoo)
    changed = run(experiment(zoo, **changes), backend="inline")
    fresh = run(experiment(zoo, **changes, output="fresh"), backend="inline")
    pd.testing.assert_frame_equal(changed.pairs(), fresh.pairs(), atol=1e-6)
    order = ["task", "model", "seed", "half"]
    tables = [each.heads().sort_values(order, ignore_index=True) for each in (changed, fresh)]
    # How many evaluations a head takes depends on the heads that are fitted with it.
    tables = [table.drop(columns="iterations") for table in tables]
    pd.testing.assert_frame_equal(*tables, atol=1e-6)


def test_measures_have_tiles_of_their_own(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from td_ray.measures import find_measure
    from td_ray.registry import MEASURES

    half = {
        name: replace(form, value=lambda *sums, form=form: form.value(*sums) / 2)
        for name, form in find_measure("td").forms.items()
    }
    measure = replace(find_measure("td"), name="half-td", forms=half)
    monkeypatch.setitem(MEASURES._found, "half-td", measure)
    results = run(experiment(zoo, measures=["td", "half-td"]), backend="inline")
    pd.testing.assert_frame_equal(
        results.matrix("species", "half-td").to_pandas(),
        results.matrix("species", "td").to_pandas() / 2,
    )


def test_a_unit_that_fails_for_a_new_seed_costs_no_tile(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from td_ray.work import heads as engine

    run(experiment(zoo, seeds=1), backend="inline")
    fit = engine.fit_unit

    def broken(unit: Any, *rest: Any) -> Any:
        if unit.representation.model_name == "net-1":
            raise ValueError("broken")
        return fit(unit, *rest)

    monkeypatch.setattr(engine, "fit_unit", broken)
    results = run(experiment(zoo, seeds=2), backend="inline")
    assert results.failures()[["model", "stage"]].to_numpy().tolist() == [["net-1", "heads"]] * 2
    assert len(results.pairs()) == 2 * 3
