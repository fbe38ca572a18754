"""Heads evaluated on other data, and models that come with their outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_zoo import (
    TASKS,
    content,
    experiment,
    write_features,
)

from td_ray.sweep import run


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
    at_home, away = (
        results.matrix("species", data=name).to_pandas() for name in ("points", "moved")
    )
    plain = run(experiment(zoo, output="plain"), backend="inline")
    pd.testing.assert_frame_equal(at_home, plain.matrix("species").to_pandas())
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
    matrix = results.matrix("species").to_pandas()
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
