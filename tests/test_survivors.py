"""What a mutation attack on the path from spec to tables showed no other test to hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_zoo import content, experiment, write_features, write_zoo

from td_ray.files import DigestMemory
from td_ray.plan import make_plan, plan_tiles
from td_ray.resolve import resolve
from td_ray.results.manifest import read_manifest
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.sweep import run
from td_ray.tasks import halves, validation_part


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    write_zoo(tmp_path)
    return tmp_path


def standardised(zoo: Path, model: int, train: Any) -> Any:
    features = np.load(zoo / f"features/net-{model}.npz")["features"].astype(float)
    return (features - features[train].mean(0)) / features[train].std(0)


def ridge(x: Any, y: Any, l2: float) -> tuple[Any, float]:
    """The optimum of mean squared error + l2 ||w||^2, in closed form."""
    center, level = x.mean(0), y.mean()
    gram = (x - center).T @ (x - center) / len(x) + l2 * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, (x - center).T @ (y - level) / len(x))
    return weight, level - center @ weight


def r2(y: Any, predicted: Any) -> float:
    return float(1 - np.mean((predicted - y) ** 2) / np.mean((y - y.mean()) ** 2))


def test_heads_and_scores_are_those_of_their_own_rows(zoo: Path) -> None:
    """Full split and stratified halves against a closed form: predictions and both scores."""
    wanted = experiment(zoo, tasks=content()["tasks"][1:])
    results = run(wanted, backend="inline")
    data = resolve(wanted).tasks[0].data
    train, test = np.flatnonzero(data.training), np.flatnonzero(data.evaluation)
    y = pd.read_csv(zoo / "points.csv")["size"].to_numpy()
    assert data.strata is not None
    rows = results.heads().merge(results.predictions())
    for row in rows.to_dict("records"):
        chosen = np.ones(len(train), dtype=bool)
        if not pd.isna(row["seed"]):
            cut = halves(data.ids[train], data.strata[train], data.split_digest, int(row["seed"]))
            chosen = cut["ab".index(row["half"])]
        x = standardised(zoo, int(row["model"][-1]), train)
        weight, intercept = ridge(x[train][chosen], y[train][chosen], row["penalty"])
        predicted = x @ weight + intercept
        stored = np.frombuffer(row["predictions"], dtype=row["encoding"])
        np.testing.assert_allclose(stored, (predicted - y[train].mean())[test], atol=1e-5)
        assert row["n_train"] == chosen.sum()
        expected = r2(y[train][chosen], predicted[train][chosen])
        assert row["train_score"] == pytest.approx(expected, abs=1e-9)
        assert row["score"] == pytest.approx(r2(y[test], predicted[test]), abs=1e-9)


def test_a_penalty_is_the_best_on_the_stratified_validation_part(zoo: Path) -> None:
    grid = np.logspace(-4, 1, 41).tolist()
    heads = [{"kind": "ridge", "l2": grid}]
    wanted = experiment(zoo, heads=heads, tasks=content()["tasks"][1:], seeds=0)
    chosen = run(wanted, backend="inline").heads().set_index("model")["penalty"]
    data = resolve(wanted).tasks[0].data
    train = np.flatnonzero(data.training)
    y = pd.read_csv(zoo / "points.csv")["size"].to_numpy()[train]
    assert data.strata is not None
    held = validation_part(data.ids[train], data.strata[train], data.split_digest)
    for model in range(4):
        x = standardised(zoo, model, train)[train]
        losses = []
        for l2 in grid:
            weight, intercept = ridge(x[~held], y[~held], l2)
            losses.append(np.mean((x[held] @ weight + intercept - y[held]) ** 2))
        assert chosen[f"net-{model}"] == grid[int(np.argmin(losses))]


def test_heads_with_several_scalings_do_not_share_one(zoo: Path) -> None:
    kinds = ("column", "global", "none", "whiten")
    heads = [{"name": kind, "kind": "ridge", "scaling": kind} for kind in kinds]
    tasks = content()["tasks"][1:]
    together = run(experiment(zoo, heads=heads, tasks=tasks), backend="inline")
    for head in heads:
        alone = experiment(zoo, heads=[head], tasks=tasks, output=head["name"])
        pd.testing.assert_frame_equal(
            together.matrix("size", head=head["name"]),
            run(alone, backend="inline").matrix("size"),
        )


def moved_features(zoo: Path) -> None:
    with np.load(zoo / "features/net-0.npz") as arrays:
        write_features(zoo / "features/net-0.npz", arrays["id"], arrays["features"][::-1])


TASKS = content()["tasks"]


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
    pd.testing.assert_frame_equal(*tables, atol=1e-6)


def test_measures_have_tiles_of_their_own(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from td_ray.measures import find_measure
    from td_ray.registry import MEASURES

    half = {
        name: replace(form, between=lambda a, b, form=form: form.between(a, b) / 2)
        for name, form in find_measure("td").forms.items()
    }
    measure = replace(find_measure("td"), name="half-td", forms=half)
    monkeypatch.setitem(MEASURES._found, "half-td", measure)
    results = run(experiment(zoo, measures=["td", "half-td"]), backend="inline")
    pd.testing.assert_frame_equal(
        results.matrix("species", "half-td"), results.matrix("species", "td") / 2
    )


def unit_keys(wanted: Experiment) -> dict[tuple[str, str, str], str | None]:
    manifest = read_manifest(wanted.output_path, wanted)
    digest = DigestMemory(wanted.cache_path).computed
    plan = make_plan(resolve(wanted), manifest, Parts(wanted.output_path), digest)
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
        manifest = read_manifest(wanted.output_path, wanted)
        parts = Parts(wanted.output_path)
        digest = DigestMemory(wanted.cache_path).computed
        plan = make_plan(resolve(wanted), manifest, parts, digest)
        return {tile.key for tile in plan_tiles(plan, parts)}

    run(experiment(zoo), backend="inline")
    before = tiles()
    monkeypatch.setattr("td_ray.versions.MEASURES", 999)
    assert len(before) == 2
    assert not before & tiles()


def test_stored_predictions_of_two_tasks_with_one_target_are_two_units(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    outputs = {"id": table["id"], "species": table["species"], "again": "ant"}
    pd.DataFrame(outputs).to_parquet(zoo / "oracle.parquet")
    models = [*content()["models"], {"source": "predictions", "path": "oracle.parquet"}]
    tasks = [{**TASKS[0], "name": name} for name in ("species", "again")]
    results = run(experiment(zoo, models=models, tasks=tasks), backend="inline")
    heads = results.heads().set_index(["model", "task"])["score"]
    assert heads["oracle", "species"] == 1
    assert heads["oracle", "again"] == pytest.approx((table["species"] == "ant").mean(), abs=0.03)


def test_keys_change_with_the_names_of_classes(zoo: Path) -> None:
    """Absent classes and stored predictions go by these names."""

    def keys(name: str) -> set[str | None]:
        task = {**TASKS[0], "classes": {name: ["ant"], "other": ["bee", "cat"]}}
        return set(unit_keys(experiment(zoo, tasks=[task])).values())

    assert not keys("one") & keys("two")


def test_floors_are_those_of_either_side(zoo: Path) -> None:
    """The first model is always on side a, the last one on side b."""
    results = run(experiment(zoo), backend="inline")
    pairs = results.pairs().query("task == 'species'")
    floors = results.floors("species")
    assert floors.notna().all()
    for side, model in (("a", "net-0"), ("b", "net-3")):
        (floor,) = pairs[pairs[f"model_{side}"] == model][f"floor_{side}"].unique()
        assert floors[model] == floor


def test_the_diagonal_of_tdx_is_the_floor_and_missing_counts_pairs(zoo: Path) -> None:
    results = run(experiment(zoo), backend="inline")
    tdx = results.matrix("species", value="tdx")
    assert np.diag(tdx).tolist() == results.floors("species").tolist()
    assert np.diag(results.matrix("species", value="excess")).tolist() == [0] * 4


def test_a_part_of_another_unit_is_not_trusted(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    before = run(experiment(zoo), backend="inline").heads()
    one, other = sorted((zoo / "output/parts/heads").glob("*/*.parquet"))[:2]
    one.write_bytes(other.read_bytes())
    pd.testing.assert_frame_equal(run(experiment(zoo), backend="inline").heads(), before)
    one, other = sorted((zoo / "output/parts/pairs").glob("*.parquet"))
    before = run(experiment(zoo), backend="inline").pairs()
    one.write_bytes(other.read_bytes())
    pd.testing.assert_frame_equal(run(experiment(zoo), backend="inline").pairs(), before)


def test_a_unit_that_fails_for_a_new_seed_costs_no_tile(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from td_ray import engine

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


def test_a_unit_that_is_done_after_all_has_no_failure(zoo: Path) -> None:
    """As when a trial runs again after its process was lost."""
    from td_ray.engine import open_from_store, run_block
    from td_ray.errors import WorkError
    from td_ray.features import FeatureStore

    wanted = experiment(zoo)
    parts = Parts(wanted.output_path)
    manifest = read_manifest(wanted.output_path, wanted)
    digest = DigestMemory(wanted.cache_path).computed
    block = make_plan(resolve(wanted), manifest, parts, digest).blocks[0]

    def broken(key: str, data: Any) -> Any:
        raise WorkError("not now")

    assert run_block(block, wanted, parts, broken) == (0, 2)
    store = FeatureStore(wanted.cache_path, 2**30)
    opened = open_from_store(block, wanted, store)
    assert run_block(block, wanted, parts, opened) == (2, 0)
    assert not list(parts.root.glob("failures/*"))
