"""A run of a sweep, in one process: what it leaves behind, against formulas written anew."""

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
from small_zoo import SAMPLES, content, experiment

from td_ray import pairwise_discrepancy
from td_ray.features import FeatureStore
from td_ray.results.schemas import TABLES
from td_ray.results.tables import Results
from td_ray.sweep import run


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
        matrix = results.matrix(task).to_pandas()
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


def test_features_stored_in_float16_give_nearly_the_same_heads(zoo: Path) -> None:
    (entry,) = content()["models"]
    models = [entry, {**entry, "storage": "float16", "name": "{kind}-{number}-half"}]
    results = run(experiment(zoo, models=models, seeds=0), backend="inline")
    matrix = results.matrix("species").to_pandas()
    assert len(matrix) == 8
    halves = [matrix.loc[name, f"{name}-half"] for name in matrix if not name.endswith("-half")]
    assert max(halves) <= 1 / 48 < matrix.to_numpy().max()
    sizes = {e.model: e.bytes for e in FeatureStore(zoo / "cache", 10**9).entries()}
    assert 2 * (sizes["net-0-half"] - 128) == sizes["net-0"] - 128  # beside the header


def test_tables_have_their_schemas_and_plain_parquet(zoo: Path) -> None:
    searched = {"kind": "linear", "learning_rate": [1e-2, 1e-1], "epochs": 2}
    run(experiment(zoo, heads=["logistic", "ridge", searched]), backend="inline")
    for name, schema in TABLES.items():
        folder = zoo / "output/results" / name
        assert pa.dataset.dataset(folder).schema.equals(schema), name
        assert len(pd.read_parquet(folder)) > 0 or name == "failures"
    pairs = pd.read_parquet(zoo / "output/results/pairs")
    assert pairs["se"].notna().all()
    for column in ("ci_low", "ci_high", "p", "reason"):
        assert pairs[column].isna().all()


def test_the_manifest_says_whose_output_it_is(zoo: Path) -> None:
    wanted = experiment(zoo)
    run(wanted, backend="inline")
    manifest = json.loads((zoo / "output/manifest.json").read_text())
    assert manifest["experiment"] == "small"
    assert manifest["representations"] == [f"net-{number}@output" for number in range(4)]
    assert type(wanted).load(zoo / "output") == wanted


def test_metadata_of_models_is_kept(zoo: Path) -> None:
    results = run(experiment(zoo), backend="inline")
    models = results.models()
    assert models["kind"].tolist() == ["net"] * 4
    assert models["number"].tolist() == [0, 1, 2, 3]


def test_metadata_called_like_a_column_is_kept(zoo: Path) -> None:
    models = run(experiment(zoo), backend="inline").models()
    assert models["number"].tolist() == models["metadata.number"].tolist() == [0, 1, 2, 3]


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
    table = results.matrix("species").group_means("width")
    assert list(table.columns) == ["6", "(none)", "floor"]
    assert table.loc["6", "6"] == results.matrix("species").to_pandas().loc["net-0", "net-1"]
    named = results.matrix("species").group_means("kind")
    assert list(named.columns) == ["floor (group)", "(none)", "floor"]
    assert named.loc["(none)", "floor"] == results.floors("species").iloc[2:].mean()


def test_one_model_has_a_matrix_of_one(zoo: Path) -> None:
    models = [{"source": "features", "path": "features/net-0.npz"}]
    results = run(experiment(zoo, models=models), backend="inline")
    assert results.matrix("species").to_pandas().to_numpy().tolist() == [[0.0]]


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
    tdx = results.matrix("species", value="tdx").to_pandas()
    assert np.diag(tdx).tolist() == results.floors("species").tolist()
    assert np.diag(results.matrix("species", value="excess").to_pandas()).tolist() == [0] * 4


def test_a_matrix_has_those_that_take_part_in_its_task(zoo: Path) -> None:
    one_task = {"source": "features", "tasks": "spec*"}
    models = [
        {**one_task, "path": ["features/net-0.npz", "features/net-1.npz"]},
        {"source": "features", "path": ["features/net-2.npz", "features/net-3.npz"]},
    ]
    results = run(experiment(zoo, models=models), backend="inline")
    species = results.matrix("species").to_pandas()
    assert list(species) == ["net-0", "net-1", "net-2", "net-3"]
    assert species.attrs["missing"] == 0
    size = results.matrix("size").to_pandas()
    assert list(size) == list(results.floors("size").index) == ["net-2", "net-3"]
    assert size.attrs["missing"] == 0
