"""Stand-ins in runs: how well one representation can do what heads on others do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_zoo import TASKS, content, experiment, parts_of, planned, write_shift

from td_ray import directed_discrepancy
from td_ray.errors import InputError
from td_ray.plan.estimate import estimate
from td_ray.plan.tiles import StandInTile, plan_tiles
from td_ray.results.parts import Parts
from td_ray.results.tables import Results
from td_ray.sweep import run

SPECIES, SIZE = TASKS
MIMIC = {"measures": ["td", "mimic"], "seeds": 0}


def on_arrays(folder: Path, target: str, head: str, l2: float = 1e-3) -> pd.DataFrame:
    table = pd.read_csv(folder / "points.csv")
    files = sorted((folder / "features").glob("*.npz"))
    features = {file.stem: np.load(file)["features"] for file in files}
    train, test = ((table["split"] == part).to_numpy() for part in ("train", "test"))
    return directed_discrepancy(
        {name: each[train] for name, each in features.items()},
        {name: each[test] for name, each in features.items()},
        table[target].to_numpy(dtype=float if target == "size" else str)[train],
        head=head,
        l2=l2,
    )


def mimic(results: Results, task: str) -> pd.DataFrame:
    return results.matrix(task, "mimic").to_pandas()


@pytest.mark.parametrize(
    ("task", "head"), [(SPECIES, "logistic"), (SPECIES, "ridge"), (SIZE, "ridge")]
)
@pytest.mark.parametrize("tile", [1, 3, None])
def test_a_run_gives_what_the_arrays_give(
    zoo: Path, task: dict[str, Any], head: str, tile: int | None
) -> None:
    heads = [{"kind": head, "targets": task.get("kind", "classification")}]
    wanted = experiment(zoo, tasks=[task], heads=heads, resources={"tile": tile}, **MIMIC)
    results = run(wanted, backend="inline")
    assert results.failures().empty
    expected = on_arrays(zoo, task["target"], head)
    pd.testing.assert_frame_equal(mimic(results, task["name"]), expected, atol=1e-6)
    pairs = results.pairs().query("measure == 'mimic'").set_index(["model_a", "model_b"])
    assert len(pairs) == 12
    for (a, b), row in pairs.iterrows():
        assert row["floor_a"] == pytest.approx(expected.loc[a, a], abs=1e-6)
        assert row["floor_b"] == pytest.approx(expected.loc[b, b], abs=1e-6)
    assert pairs["se"].notna().all()
    assert pairs[["tdx", "excess"]].isna().all(axis=None)


@pytest.mark.parametrize("distance", ["cosine", "mean", "none"])
def test_values_are_compared_by_the_distance_of_their_task(zoo: Path, distance: str) -> None:
    """By the definition: scikit-learn's head on one, and one on the other that reproduces it."""
    task = {**SIZE, "distance": distance}
    heads = [{"kind": "ridge", "l2": 0.1}]
    results = run(experiment(zoo, tasks=[task], heads=heads, **MIMIC), backend="inline")
    table = pd.read_csv(zoo / "points.csv")
    train = (table["split"] == "train").to_numpy()
    y = table["size"].to_numpy()[train]
    a, b = (np.load(zoo / f"features/net-{k}.npz")["features"].astype(float) for k in (0, 1))

    def fitted(x: Any, target: Any) -> Any:
        head = make_pipeline(StandardScaler(), Ridge(alpha=0.1 * train.sum()))
        return head.fit(x[train], target).predict(x) - y.mean()

    def gap(x: Any, other: Any) -> float:
        whole = fitted(x, y)
        u, v = whole[~train], fitted(other, whole[train] + y.mean())[~train]
        defined = {
            "cosine": 2 - 2 * u @ v / np.sqrt((u @ u) * (v @ v)),
            "mean": 2 * (u - v) @ (u - v) / (u @ u + v @ v),
            "none": np.square(u - v).mean(),
        }
        return float(defined[distance])

    found = mimic(results, "size")
    assert found.loc["net-0", "net-1"] == pytest.approx(gap(a, b), rel=1e-4)
    assert found.loc["net-1", "net-0"] == pytest.approx(gap(b, a), rel=1e-4)
    assert gap(a, b) != pytest.approx(gap(b, a), rel=1e-2)
    assert not results.matrix("size", "mimic").scale.is_symmetric


def test_values_at_the_end_of_float32_are_targets_like_others(zoo: Path) -> None:
    """So large that some heads' values are beyond it on one of the two splits alone."""
    ridge = {"tasks": [SIZE], "heads": ["ridge"], **MIMIC}
    expected = mimic(run(experiment(zoo, **ridge), backend="inline"), "size")
    table = pd.read_csv(zoo / "points.csv")
    centred = (table["size"] - table["size"][table["split"] == "train"].mean()).abs()
    largest = centred.groupby(table["split"]).max()
    assert largest["train"] != largest["test"]
    edge = float(np.finfo(np.float32).max) / np.linspace(*largest, 7)[1:-1]
    for place, scale in enumerate(edge):
        table.assign(size=table["size"] * scale).to_csv(zoo / "points.csv", index=False)
        results = run(experiment(zoo, output=f"scaled-{place}", **ridge), backend="inline")
        assert results.failures().empty
        pd.testing.assert_frame_equal(mimic(results, "size"), expected, atol=1e-6)


def test_a_grid_lends_the_penalty_that_the_stand_in_has_chosen(zoo: Path) -> None:
    grid = {"kind": "ridge", "l2": [1e-3, 10.0, 1e3]}
    results = run(experiment(zoo, tasks=[SIZE], heads=[grid], **MIMIC), backend="inline")
    chosen = results.heads().set_index("model")["penalty"].to_dict()
    heads = {l2: on_arrays(zoo, "size", "ridge", l2) for l2 in set(chosen.values())}
    found = mimic(results, "size")
    for name, l2 in chosen.items():
        # both heads have that penalty where the other has chosen the same
        same = [other for other in chosen if chosen[other] == l2]
        np.testing.assert_allclose(
            found.loc[same, name], heads[l2].loc[same, name], rtol=0, atol=1e-6
        )


def test_every_data_set_that_is_predicted_has_its_own(zoo: Path) -> None:
    results = run(experiment(zoo, **write_shift(zoo), **MIMIC), backend="inline")
    on_points = results.matrix("species", "mimic", data="points").to_pandas()
    pd.testing.assert_frame_equal(on_points, on_arrays(zoo, "species", "logistic"), atol=1e-9)
    pairs = results.pairs().query("measure == 'mimic'")
    assert pairs.groupby("data")["n_examples"].unique().map(list).to_dict() == {
        "points": [48],
        "moved": [20],
    }


def test_fewer_examples_fit_nothing_of_the_heads_anew(zoo: Path) -> None:
    tasks = [SPECIES]
    run(experiment(zoo, tasks=tasks, **MIMIC), backend="inline")
    before = parts_of(zoo)
    fewer = run(experiment(zoo, tasks=tasks, examples=30, **MIMIC), backend="inline")
    more = {path for path in parts_of(zoo) if path not in before}
    assert {path.parent.name for path in more} == {"pairs"}
    assert set(fewer.pairs()["n_examples"]) == {30}


def test_only_wanted_pairs_are_fitted(zoo: Path) -> None:
    wanted = experiment(zoo, tasks=[SPECIES], pairs=[["net-0", "net-1"]], **MIMIC)
    results = run(wanted, backend="inline")
    pairs = results.pairs().query("measure == 'mimic'")
    assert list(zip(pairs["model_a"], pairs["model_b"], strict=True)) == [
        ("net-1", "net-0"),
        ("net-0", "net-1"),
    ]
    expected = on_arrays(zoo, "species", "logistic")
    for row in pairs.itertuples():
        assert row.value == expected.loc[row.model_a, row.model_b]
        assert row.floor_a == expected.loc[row.model_a, row.model_a]


def test_a_tile_that_is_lost_is_fitted_again_alone(zoo: Path) -> None:
    wanted = experiment(zoo, tasks=[SPECIES], resources={"tile": 2}, **MIMIC)
    run(wanted, backend="inline")
    tiles = plan_tiles(planned(wanted), Parts(wanted.output_folder))
    lost = [tile for tile in tiles if isinstance(tile, StandInTile)][2]
    path = zoo / f"output/parts/pairs/{lost.key}.parquet"
    before = parts_of(zoo)
    path.write_bytes(path.read_bytes()[:-9])
    run(wanted, backend="inline")
    after = parts_of(zoo)
    assert after[path][1] == before[path][1]
    changed = {name for name in after if after[name][0] != before[name][0]}
    assert changed == {path}


def test_a_stand_in_that_fails_costs_its_own_tiles(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from td_ray.errors import WorkError
    from td_ray.work import stand_ins

    fit, calls = stand_ins.fit_targets, []

    def fit_or_fail(*given: Any, **options: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise WorkError("it did not converge")
        return fit(*given, **options)

    wanted = experiment(zoo, tasks=[SPECIES], **MIMIC)
    monkeypatch.setattr(stand_ins, "fit_targets", fit_or_fail)
    results = run(wanted, backend="inline")
    (failure,) = results.failures().to_dict("records")
    assert failure["stage"] == "pairs"
    assert failure["error"] == (
        "model 'net-0' at 'output', task 'species', head 'logistic': it did not converge"
    )
    pairs = results.pairs().query("measure == 'mimic'")
    assert len(pairs) == 9
    assert set(pairs["model_b"]) == {"net-1", "net-2", "net-3"}
    monkeypatch.undo()
    assert len(run(wanted, backend="inline").failures()) == 1  # it is not tried again unasked
    again = run(wanted, backend="inline", retry_failed=True)
    assert again.failures().empty
    assert len(again.pairs().query("measure == 'mimic'")) == 12


def test_a_head_that_is_trained_is_refused(zoo: Path) -> None:
    wanted = experiment(zoo, tasks=[SPECIES], heads=["logistic", "linear"], **MIMIC)
    with pytest.raises(InputError) as caught:
        planned(wanted)
    assert str(caught.value) == (
        "measure 'mimic' fits heads that stand in for others, which are solved (logistic, ridge), "
        "and head 'linear' (linear) of task 'species' is trained; leave out one of the two"
    )


def test_predictions_alone_cannot_stand_in(zoo: Path) -> None:
    model = {"source": "predictions", "path": "features/net-0.npz", "name": "given"}
    wanted = experiment(zoo, tasks=[SPECIES], models=[*content()["models"], model], **MIMIC)
    with pytest.raises(InputError, match="'given' comes with predictions alone"):
        planned(wanted)


def test_a_plan_counts_the_heads_of_stand_ins(zoo: Path) -> None:
    wanted = experiment(zoo, **MIMIC)
    left = estimate(planned(wanted), Parts(wanted.output_folder))
    assert left.stand_ins == 2 * 4 * 4
    assert (left.pairs, left.pairs_finished) == (2 * 2 * 6, 0)
    run(wanted, backend="inline")
    left = estimate(planned(wanted), Parts(wanted.output_folder))
    assert left.stand_ins == 0
    assert (left.pairs, left.pairs_finished) == (2 * 2 * 6, 2 * 2 * 6)
