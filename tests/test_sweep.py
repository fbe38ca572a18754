"""A sweep in one process: what it leaves behind, what it repeats, what one bad model costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from small_zoo import SAMPLES, content, experiment, write_features, write_zoo

from td_ray import pairwise_discrepancy
from td_ray.errors import InputError, MachineError, PartialMatrixWarning, RunError
from td_ray.results.schemas import TABLES
from td_ray.results.tables import Results, open_results
from td_ray.sweep import run


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    write_zoo(tmp_path)
    return tmp_path


def parts_of(folder: Path) -> dict[Path, tuple[int, bytes]]:
    files = sorted((folder / "output/parts").rglob("*.parquet"))
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def stored(results: Results, model: str, task: str, seed: int | None, half: str | None) -> Any:
    """Predictions decoded here, independently of the code that reads tiles."""
    table = results.predictions()
    rows = table[(table["model"] == model) & (table["task"] == task)]
    rows = rows[rows["seed"].isna() if seed is None else rows["seed"] == seed]
    rows = rows[rows["half"].isna() if half is None else rows["half"] == half]
    (row,) = rows.to_dict("records")
    return np.frombuffer(row["predictions"], dtype=row["encoding"])


def test_the_matrix_is_what_the_array_function_returns(zoo: Path) -> None:
    results = run(experiment(zoo), backend="inline")
    table = pd.read_csv(zoo / "points.csv")
    train = (table["split"] == "train").to_numpy()
    features = {
        f"net-{number}": np.load(zoo / f"features/net-{number}.npz")["features"]
        for number in range(4)
    }
    for task, head in (("species", "logistic"), ("size", "ridge")):
        expected = pairwise_discrepancy(
            {name: array[train] for name, array in features.items()},
            {name: array[~train] for name, array in features.items()},
            table[task].to_numpy()[train],
            head=head,
        )
        matrix = results.matrix(task)
        assert list(matrix) == list(expected)
        np.testing.assert_allclose(matrix, expected, atol=1e-6)
        assert matrix.to_numpy()[np.triu_indices(4, 1)].min() > 0


@pytest.mark.parametrize("task", ["species", "size"])
def test_floor_tdx_and_excess_follow_their_formulas(zoo: Path, task: str) -> None:
    results = run(experiment(zoo), backend="inline")

    def distance(a: Any, b: Any) -> float:
        if task == "species":
            return float(np.mean(a != b))
        cosine = np.dot(a.astype(float), b.astype(float))
        return float(2 - 2 * cosine / (np.linalg.norm(a) * np.linalg.norm(b)))

    def halves(model: str, seed: int) -> tuple[Any, Any]:
        return stored(results, model, task, seed, "a"), stored(results, model, task, seed, "b")

    pairs = results.pairs()
    for row in pairs[pairs["task"] == task].to_dict("records"):
        one, other = row["model_a"], row["model_b"]
        floors, crossed = [[], []], []
        for seed in (0, 1):
            (a1, b1), (a2, b2) = halves(one, seed), halves(other, seed)
            floors[0].append(distance(a1, b1))
            floors[1].append(distance(a2, b2))
            crossed.append((distance(a1, b2) + distance(b1, a2)) / 2)
        full = distance(
            stored(results, one, task, None, None), stored(results, other, task, None, None)
        )
        assert row["value"] == pytest.approx(full, abs=1e-5)
        assert row["floor_a"] == pytest.approx(np.mean(floors[0]), abs=1e-5)
        assert row["floor_b"] == pytest.approx(np.mean(floors[1]), abs=1e-5)
        assert row["tdx"] == pytest.approx(np.mean(crossed), abs=1e-5)
        assert row["excess"] == pytest.approx(
            row["tdx"] - (row["floor_a"] + row["floor_b"]) / 2, abs=1e-12
        )
        assert row["n_seeds"] == 2
        assert row["n_examples"] == SAMPLES * 2 // 5


def test_tables_have_their_schemas_and_plain_parquet(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    for name, schema in TABLES.items():
        folder = zoo / "output/results" / name
        assert pa.dataset.dataset(folder).schema.equals(schema), name
        assert len(pd.read_parquet(folder)) > 0 or name == "failures"
    pairs = pd.read_parquet(zoo / "output/results/pairs")
    for column in ("se", "ci_low", "ci_high", "p", "reason"):
        assert pairs[column].isna().all()


def test_metadata_of_models_is_kept(zoo: Path) -> None:
    results = run(experiment(zoo), backend="inline")
    models = results.models()
    assert models["kind"].tolist() == ["net"] * 4
    assert models["number"].tolist() == [0, 1, 2, 3]


def test_running_again_repeats_nothing(zoo: Path) -> None:
    first = run(experiment(zoo), backend="inline").table("timings")
    before = parts_of(zoo)
    again = run(experiment(zoo), backend="inline").table("timings")
    assert parts_of(zoo) == before
    assert len(again) == len(first)


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


def test_a_model_that_left_is_not_in_the_tables(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    (zoo / "features/net-1.npz").unlink()
    results = run(experiment(zoo), backend="inline")
    assert results.models()["model"].tolist() == ["net-0", "net-2", "net-3"]
    assert list(results.matrix("species")) == ["net-0", "net-2", "net-3"]
    assert set(results.heads()["model"]) == {"net-0", "net-2", "net-3"}


def test_one_bad_model_costs_its_own_rows(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    features = np.ones((SAMPLES, 6))
    features[7, 2] = np.nan
    write_features(zoo / "features/net-9.npz", table["id"], features)
    results = run(experiment(zoo), backend="inline")
    failures = results.failures()
    assert failures["model"].unique().tolist() == ["net-9"]
    assert set(failures["stage"]) == {"features"}
    assert failures["error"].str.contains("NaN or infinite features, first at sample 's007'").all()
    assert len(results.pairs()) == 2 * 6
    with pytest.warns(PartialMatrixWarning, match="4 of 10 pairs"):
        matrix = results.matrix("species")
    assert matrix.attrs["missing"] == 4


def test_failures_are_not_repeated_unless_asked_for(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    write_features(zoo / "features/net-9.npz", table["id"], np.full((SAMPLES, 2), np.inf))
    first = run(experiment(zoo), backend="inline")
    again = run(experiment(zoo), backend="inline")
    assert len(again.table("timings")) == len(first.table("timings"))
    retried = run(experiment(zoo), backend="inline", retry_failed=True)
    assert len(retried.failures()) == 2
    assert len(retried.table("timings")) == len(first.table("timings")) + 2


def test_a_run_in_which_all_fails_is_an_error(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    for number in range(4):
        bad = np.full((SAMPLES, 2), np.nan)
        write_features(zoo / f"features/net-{number}.npz", table["id"], bad)
    with pytest.raises(RunError, match="all 8 units failed; the first: model 'net-0'"):
        run(experiment(zoo), backend="inline")
    assert len(open_results(zoo / "output").failures()) == 8


def test_dead_units_are_ordinary(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    features = np.load(zoo / "features/net-0.npz")["features"]
    dead = np.concatenate([features, np.full((SAMPLES, 3), 0.1, dtype=np.float32)], axis=1)
    write_features(zoo / "features/dead-0.npz", table["id"], dead)
    results = run(experiment(zoo), backend="inline")
    assert results.failures().empty
    assert results.matrix("species").loc["dead-0", "net-0"] == 0
    assert results.matrix("size").loc["dead-0", "net-0"] == pytest.approx(0, abs=1e-10)


def test_a_constant_prediction_is_null_with_a_reason(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    write_features(zoo / "features/flat-0.npz", table["id"], np.ones((SAMPLES, 4)))
    results = run(experiment(zoo), backend="inline")
    pairs = results.pairs()
    flat = pairs[(pairs["model_a"] == "flat-0") & (pairs["task"] == "size")]
    assert flat["value"].isna().all()
    assert flat["reason"].str.contains("constant").all()
    others = pairs[(pairs["model_a"] != "flat-0") & (pairs["task"] == "size")]
    assert others["value"].notna().all()
    assert others["reason"].isna().all()
    with pytest.warns(PartialMatrixWarning):
        assert results.matrix("size").attrs["missing"] == 4


def test_a_task_is_evaluated_on_other_data(zoo: Path) -> None:
    """Shift: heads of one data set predict another; one fit serves both."""
    data = [
        {
            "name": name,
            "source": "table",
            "path": f"{name}.csv",
            "split": {"column": "split"},
            "stratify": "species",
        }
        for name in ("points", "moved")
    ]
    table = pd.read_csv(zoo / "points.csv")
    kept = table.iloc[::-1].iloc[:100]
    kept.to_csv(zoo / "moved.csv", index=False)
    for number in range(4):
        with np.load(zoo / f"features/net-{number}.npz") as arrays:
            features = arrays["features"][::-1][:100] + 0.5
        write_features(zoo / f"both/moved/net-{number}.npz", kept["id"], features)
        source = (zoo / f"features/net-{number}.npz").read_bytes()
        target = zoo / f"both/points/net-{number}.npz"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source)
    shift = experiment(
        zoo,
        data=data,
        models=[{"source": "features", "path": "both/{data}/net-*.npz"}],
        tasks=[
            {
                "name": "species",
                "data": "points",
                "target": "species",
                "evaluate": ["points", "moved"],
            }
        ],
    )
    results = run(shift, backend="inline")
    assert len(results.heads()) == 4 * 5 * 2
    at_home, away = (results.matrix("species", data=name) for name in ("points", "moved"))
    plain = run(experiment(zoo, output="plain"), backend="inline")
    pd.testing.assert_frame_equal(at_home, plain.matrix("species"))
    assert not np.allclose(at_home, away)
    scores = results.heads().groupby("data")["score"].mean()
    assert scores["moved"] < scores["points"]
    sizes = results.pairs().groupby("data")["n_examples"].unique()
    assert sizes["moved"].tolist() == [int((kept["split"] == "test").sum())]


def test_stored_predictions_enter_as_they_are(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    test = table[table["split"] == "test"].sample(frac=1, random_state=0)
    outputs = {"right": test["species"], "constant": ["ant"] * len(test)}
    for name, labels in outputs.items():
        columns = {"id": test["id"].astype(str), "species": list(labels)}
        path = zoo / f"outputs/{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame(columns).to_parquet(path)
    models = [
        {"source": "features", "path": "features/{kind}-{number}.npz"},
        {"source": "predictions", "path": "outputs/*.parquet", "tasks": ["species"]},
    ]
    results = run(experiment(zoo, models=models), backend="inline")
    matrix = results.matrix("species")
    heads = results.heads()
    full = heads[heads["seed"].isna() & (heads["task"] == "species")].set_index("model")["score"]
    assert full["right"] == 1
    for name in ("net-0", "net-3", "constant"):
        assert matrix.loc["right", name] == pytest.approx(1 - full[name])
    assert results.floors("species")[["right", "constant"]].isna().all()
    assert results.floors("species")[["net-0", "net-1"]].notna().all()
    pairs = results.pairs()
    assert (pairs[pairs["model_b"] == "right"]["n_seeds"] == 0).all()
    assert set(results.pairs().query("task == 'size'")["model_a"]) <= set(full.index)
    assert "right" not in set(pairs[pairs["task"] == "size"]["model_b"])


def test_a_class_absent_from_a_half_is_recorded(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    rare = table["species"].to_numpy(copy=True)
    train = np.flatnonzero(table["split"] == "train")
    rare[train[0]] = "dodo"
    table.assign(rare=rare).to_csv(zoo / "points.csv", index=False)
    tasks = [{"name": "rare", "data": "points", "target": "rare"}]
    heads = run(experiment(zoo, tasks=tasks), backend="inline").heads()
    absent = heads["absent_classes"].map(list)
    assert (absent[heads["seed"].isna()].map(len) == 0).all()
    halves = heads[heads["seed"].notna()].assign(absent=absent)
    for _, both in halves.groupby(["model", "seed"]):
        assert sorted(both["absent"].map(tuple)) == [(), ("dodo",)]


def test_a_penalty_is_chosen_once_and_held(zoo: Path) -> None:
    grid = [1e-6, 1e-3, 1e3]
    heads = [{"kind": "logistic", "l2": grid}, {"kind": "ridge", "l2": grid}]
    table = run(experiment(zoo, heads=heads), backend="inline").heads()
    assert (table["penalty_source"] == "grid").all()
    assert (table.groupby(["model", "task"])["penalty"].nunique() == 1).all()
    assert set(table["penalty"]) <= set(grid)
    assert (table["penalty_at_edge"] == table["penalty"].isin([1e-6, 1e3])).all()


def test_recorded_gradients_are_within_the_bound(zoo: Path) -> None:
    heads = run(experiment(zoo), backend="inline").heads()
    assert (heads["gradient_norm"] <= 1e-2 * np.minimum(heads["penalty"], 1e-3)).all()


def test_the_manifest_says_whose_output_it_is(zoo: Path) -> None:
    wanted = experiment(zoo)
    run(wanted, backend="inline")
    manifest = json.loads((zoo / "output/manifest.json").read_text())
    assert manifest["experiment"] == "small"
    assert manifest["representations"] == [f"net-{number}@output" for number in range(4)]
    assert type(wanted).load(zoo / "output") == wanted


def test_a_tile_that_cannot_be_compared_is_a_failure(zoo: Path) -> None:
    """Predictions on other samples under one name: refused, the rest is delivered."""
    wanted = experiment(zoo)
    run(wanted, backend="inline")
    for part in (zoo / "output/parts/pairs").glob("*.parquet"):
        part.unlink()
    heads = run(wanted, backend="inline").table("heads")
    assert len(heads) == 4 * 2 * 5
    part = sorted((zoo / "output/parts/heads").glob("*/*.parquet"))[0]
    table = pa.parquet.read_table(part)
    other = table.set_column(
        table.column_names.index("ids_digest"), "ids_digest", pa.array(["other"] * len(table))
    )
    pa.parquet.write_table(other, part)
    for pairs in (zoo / "output/parts/pairs").glob("*.parquet"):
        pairs.unlink()
    results = run(wanted, backend="inline")
    (failure,) = results.failures().to_dict("records")
    assert failure["stage"] == "pairs"
    assert "evaluated on other samples" in failure["error"]
    assert len(results.pairs()) == 6


def test_groups_of_models_with_and_without_metadata(zoo: Path) -> None:
    models = [
        {
            "source": "features",
            "path": f"features/net-{number}.npz",
            "name": f"net-{number}",
            "metadata": {"width": 6, "kind": "floor"} if number < 2 else {},
        }
        for number in range(4)
    ]
    results = run(experiment(zoo, models=models), backend="inline")
    table = results.by_group("species", "width")
    assert list(table.columns) == ["6", "(none)", "floor"]
    assert table.loc["6", "6"] == results.matrix("species").loc["net-0", "net-1"]
    named = results.by_group("species", "kind")
    assert list(named.columns) == ["floor (group)", "(none)", "floor"]
    assert named.loc["(none)", "floor"] == results.floors("species").iloc[2:].mean()


def test_a_full_disk_is_no_failure_of_a_unit(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from td_ray.results.parts import Parts

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Parts, "write_heads", full)
        with pytest.raises(OSError, match="No space left"):
            run(experiment(zoo), backend="inline")
    assert run(experiment(zoo), backend="inline").failures().empty


def test_a_device_that_is_not_there_is_no_failure_of_a_unit(zoo: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(MachineError, match="no CUDA device"):
        run(experiment(zoo, resources={"device": "cuda"}), backend="inline")
    assert run(experiment(zoo), backend="inline").failures().empty


def test_a_file_that_changes_under_way_is_refused(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its features would answer for the bytes that were there while planning."""
    from td_ray.zoo.feature_arrays import FeatureArrays

    path = zoo / "features/net-2.npz"
    original = path.read_bytes()
    extract = FeatureArrays.extract

    def meddle(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.name == "net-2":
            path.write_bytes((zoo / "features/net-0.npz").read_bytes())
        return extract(self, *arguments, **options)

    with monkeypatch.context() as meddling:
        meddling.setattr(FeatureArrays, "extract", meddle)
        with pytest.raises(MachineError, match="'net-2' changed while it was at work"):
            run(experiment(zoo), backend="inline")
    path.write_bytes(original)
    results = run(experiment(zoo), backend="inline")
    assert results.failures().empty
    fresh = experiment(zoo, output="fresh", resources={"cache": str(zoo / "other")})
    pd.testing.assert_frame_equal(results.pairs(), run(fresh, backend="inline").pairs())


def test_a_block_that_starts_again_repeats_no_finished_unit(zoo: Path) -> None:
    from td_ray.engine import open_from_store, run_block
    from td_ray.features import FeatureStore
    from td_ray.files import DigestMemory
    from td_ray.plan import make_plan
    from td_ray.resolve import resolve
    from td_ray.results.manifest import read_manifest
    from td_ray.results.parts import Parts

    wanted = experiment(zoo)
    parts = Parts(wanted.output_path)
    digest = DigestMemory(wanted.cache_path).computed
    plan = make_plan(resolve(wanted), read_manifest(wanted.output_path, wanted), parts, digest)
    store = FeatureStore(wanted.cache_path, wanted.resources.cache_size)
    block = plan.blocks[0]
    opened = open_from_store(block, wanted, store)
    assert run_block(block, wanted, parts, opened) == (2, 0)
    before = parts_of(zoo)
    assert run_block(block, wanted, parts, opened) == (2, 0)
    assert parts_of(zoo) == before


def test_a_folder_in_use_is_refused(zoo: Path) -> None:
    from td_ray.files import held

    with held(zoo / "output"), pytest.raises(InputError, match=r"in use by another run \(pid \d+"):
        run(experiment(zoo), backend="inline")
    assert run(experiment(zoo), backend="inline").failures().empty


def test_one_model_has_a_matrix_of_one(zoo: Path) -> None:
    models = [{"source": "features", "path": "features/net-0.npz"}]
    results = run(experiment(zoo, models=models), backend="inline")
    assert results.matrix("species").to_numpy().tolist() == [[0.0]]


def test_metadata_called_like_a_column_is_kept(zoo: Path) -> None:
    models = run(experiment(zoo), backend="inline").models()
    assert models["number"].tolist() == models["metadata.number"].tolist() == [0, 1, 2, 3]


def test_a_half_whose_head_is_constant_gives_a_reason(zoo: Path) -> None:
    """The full split tells the feature's direction, one half sees it constant."""
    from td_ray.resolve import resolve
    from td_ray.tasks import halves

    wanted = experiment(zoo, seeds=1)
    data = resolve(wanted).tasks[0].data
    assert data.strata is not None
    train = np.flatnonzero(data.training)
    first, _ = halves(data.ids[train], data.strata[train], data.split_digest, 0)
    features = np.random.default_rng(0).normal(size=(SAMPLES, 1))
    features[train[first]] = 0.0
    write_features(zoo / "features/half-0.npz", data.ids, features)
    results = run(experiment(zoo, seeds=1), backend="inline")
    pairs = results.pairs().query("task == 'size' and model_a == 'half-0'")
    assert pairs["value"].notna().all()
    assert pairs[["floor_a", "tdx", "excess"]].isna().all(axis=None)
    assert pairs["reason"].str.contains("half the training split").all()


def test_whitening_sees_through_the_rounding_of_float32(zoo: Path) -> None:
    """A map to more dimensions adds no information, so nothing may change."""
    with np.load(zoo / "features/net-0.npz") as arrays:
        ids, features = arrays["id"], arrays["features"]
    wider = features.astype(float) @ np.random.default_rng(0).normal(size=(features.shape[1], 40))
    write_features(zoo / "features/wide-0.npz", ids, wider)
    heads = [
        {"kind": "logistic", "scaling": "whiten"},
        {"kind": "ridge", "scaling": "whiten"},
    ]
    results = run(experiment(zoo, heads=heads), backend="inline")
    assert results.matrix("species").loc["wide-0", "net-0"] == 0
    assert results.matrix("size").loc["wide-0", "net-0"] == pytest.approx(0, abs=1e-8)


def test_many_seeds_have_parts_with_short_names(zoo: Path) -> None:
    seeds = list(range(0, 200, 2))
    run(experiment(zoo, seeds=seeds, models=content()["models"]), backend="inline")
    again = run(experiment(zoo, seeds=[*seeds, 201]), backend="inline")
    assert len(again.heads()) == 4 * 2 * (1 + 2 * 101)
