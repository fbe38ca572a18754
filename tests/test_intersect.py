"""`samples: intersect`: what not all models have is left out for all, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_zoo import SAMPLES, TASKS, content, described, experiment, write_features

from td_ray.errors import InputError
from td_ray.plan.resolve import resolve
from td_ray.sweep import run
from td_ray.terminal import print_plan

LACKING = [3, 57, 4, 60]  # two of each split
INTERSECT = {"samples": "intersect"}


def without(zoo: Path, model: str, rows: list[int], also: list[str]) -> None:
    """Take samples from a model's file, add others, and turn its rows around."""
    with np.load(zoo / f"features/{model}.npz") as arrays:
        ids, features = arrays["id"].tolist(), arrays["features"]
    kept = [row for row in range(SAMPLES) if row not in rows][::-1]
    more = np.full((len(also), features.shape[1]), 1e3)
    ids = [ids[row] for row in kept] + also
    write_features(zoo / f"features/{model}.npz", ids, np.concatenate([features[kept], more]))


def without_in_table(zoo: Path, rows: list[int]) -> None:
    table = pd.read_csv(zoo / "points.csv")
    table.drop(index=rows).to_csv(zoo / "points.csv", index=False)


def test_it_is_as_if_no_one_had_them(zoo: Path) -> None:
    without(zoo, "net-1", LACKING[:2], ["x", "y"])
    without(zoo, "net-2", LACKING[1:], [])
    with pytest.raises(InputError, match=r"model 'net-1': .* in any order, or say samples: inters"):
        resolve(experiment(zoo))
    found = run(experiment(zoo, **INTERSECT), backend="inline")
    assert set(found.heads()["n_train"].dropna()) == {70, 35}
    samples = found.table("samples")["id"]
    assert len(samples) == 46
    assert not set(samples) & {f"s{row:03d}" for row in LACKING}
    without_in_table(zoo, LACKING)
    for model in ("net-0", "net-3"):
        without(zoo, model, LACKING, [])
    for model, rest in (("net-1", LACKING[2:]), ("net-2", LACKING[:1])):
        with np.load(zoo / f"features/{model}.npz") as arrays:
            keep = ~np.isin(arrays["id"], [*(f"s{row:03d}" for row in rest), "x", "y"])
            ids, features = arrays["id"][keep], arrays["features"][keep]
        write_features(zoo / f"features/{model}.npz", ids, features)
    same = run(experiment(zoo, output="same"), backend="inline")
    pd.testing.assert_frame_equal(found.pairs(), same.pairs(), atol=1e-6)


def test_stored_predictions_need_the_evaluation_split_alone(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    held_out = table[table["split"] == "test"].sample(frac=1, random_state=0)
    held_out.iloc[5:][["id", "species"]].to_parquet(zoo / "short.parquet")
    strangers = pd.DataFrame({"id": ["x", "y"], "species": ["ant", "dodo"]})
    more = pd.concat([strangers, table[["id", "species"]]])
    more.to_parquet(zoo / "long.parquet")
    stored = {"source": "predictions", "path": ["short.parquet", "long.parquet"]}
    models = [*content()["models"], stored]
    wanted = experiment(zoo, models=models, tasks=TASKS[:1], **INTERSECT)
    results = run(wanted, backend="inline")
    assert results.failures().empty
    assert (results.pairs()["n_examples"] == 43).all()
    assert set(results.heads()["n_train"].dropna()) == {72, 36}
    assert results.matrix("species").to_pandas().loc["short", "long"] == 0


def test_a_plan_says_how_many_are_left_out(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without(zoo, "net-1", LACKING, [])
    wanted = experiment(zoo, **INTERSECT)
    print_plan(described(wanted))
    printed = " ".join(capsys.readouterr().out.split())
    assert "70 to train on, 46 held out, 4 left out as not all models have them" in printed


def test_models_of_unwanted_pairs_leave_nothing_out(zoo: Path) -> None:
    without(zoo, "net-3", LACKING, [])
    problem = resolve(experiment(zoo, pairs=[["net-0", "net-1"]], **INTERSECT))
    assert problem.data["points"].n == SAMPLES
    assert problem.data["points"].left_out == 0


def test_an_empty_intersection_names_the_model_with_the_fewest(zoo: Path) -> None:
    held_out = [row for row in range(SAMPLES) if row % 5 >= 3]
    without(zoo, "net-1", held_out[:24], [])
    without(zoo, "net-2", held_out[20:], [])
    with pytest.raises(InputError, match=r"none of the evaluation split .* 'net-2' .* 92 of 120"):
        resolve(experiment(zoo, **INTERSECT))


def test_rows_in_order_cannot_be_short(zoo: Path) -> None:
    without(zoo, "net-1", LACKING, [])
    np.save(zoo / "features/plain.npy", np.zeros((SAMPLES, 2)))
    plain = {"source": "features", "path": "features/plain.npy", "ids": "row-order"}
    with pytest.raises(InputError, match=r"model 'plain': .*120 rows, .* has 116 samples"):
        resolve(experiment(zoo, models=[*content()["models"], plain], **INTERSECT))
