"""Families of each kind through a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from small_zoo import SAMPLES, content, experiment, planned

from td_ray.plan.resolve import resolve
from td_ray.spec import Experiment
from td_ray.sweep import run
from td_ray.tasks.teachers import Teachers, TeacherTarget

TASKS: list[dict[str, Any]] = [
    {"name": "species", "target": "species"},
    {"name": "two", "target": "species", "subset": ["bee", "cat"]},
    {"name": "some", "target": "species", "family": {"kind": "subsets", "classes": 2, "count": 3}},
    {
        "name": "coarse",
        "target": "species",
        "family": {"kind": "superclasses", "classes": 2, "count": 3},
    },
    {"name": "one", "target": "species", "family": "one_vs_rest"},
    {"name": "noise", "kind": "regression", "family": {"kind": "gaussian", "count": 4}},
    {"name": "signs", "family": {"kind": "signs", "count": 4}},
]


def wanted(zoo: Path, **changes: Any) -> Any:
    return experiment(zoo, tasks=[{**task, "data": "points"} for task in TASKS], **changes)


def test_a_subset_is_what_scikit_learn_makes_of_its_rows(zoo: Path) -> None:
    results = run(wanted(zoo, heads=[{"kind": "logistic", "l2": 1e-2}, "ridge"]), backend="inline")
    assert results.failures().empty
    table = pd.read_csv(zoo / "points.csv")
    train = (table["split"] == "train").to_numpy()
    part = table["species"].isin(["bee", "cat"]).to_numpy()
    predicted = []
    for number in (0, 1):
        with np.load(zoo / f"features/net-{number}.npz") as arrays:
            raw = arrays["features"].astype(float)
        features = (raw - raw[train].mean(0)) / raw[train].std(0)  # of the whole training split
        rows = train & part
        head = LogisticRegression(C=2 / (1e-2 * rows.sum()), tol=1e-10, max_iter=10_000)
        head.fit(features[rows], table["species"][rows])
        predicted.append(head.predict(features[~train & part]))
    row = results.select("two").query("model_a == 'net-0' and model_b == 'net-1'").iloc[0]
    assert row["value"] == pytest.approx((predicted[0] != predicted[1]).mean(), abs=1e-12)
    assert row["n_examples"] == (~train & part).sum()
    stored = results.predictions().query("task == 'two' and model == 'net-0' and seed.isna()")
    samples = results.table("samples")
    ids = samples[samples["ids_digest"] == stored["ids_digest"].iloc[0]].sort_values("position")
    assert ids["id"].tolist() == table["id"][~train & part].tolist()
    codes = np.frombuffer(stored["predictions"].iloc[0], stored["encoding"].iloc[0])
    assert np.array(["bee", "cat"])[codes].tolist() == predicted[0].tolist()


def test_a_family_is_the_mean_over_its_tasks(zoo: Path) -> None:
    results = run(wanted(zoo), backend="inline")
    listed = results.tasks()
    sizes = listed.groupby("family")["task"].count().to_dict()
    assert sizes == {"some": 3, "coarse": 3, "one": 3, "noise": 4, "signs": 4}
    for family in sizes:
        members = listed.loc[listed["family"] == family, "task"]
        for value in ("value", "tdx", "excess"):
            mean = sum(results.matrix(name, value=value).to_pandas() for name in members) / len(
                members
            )
            pd.testing.assert_frame_equal(
                results.matrix(family, value=value).to_pandas(), mean, atol=1e-12
            )


def test_nothing_is_done_twice_and_a_family_grows(zoo: Path) -> None:
    plain = wanted(zoo)
    run(plain, backend="inline")
    assert planned(plain).count("missing") == 0
    tasks = [{**task, "data": "points"} for task in TASKS]
    tasks[-1]["family"] = {"kind": "signs", "count": 6}
    assert planned(experiment(zoo, tasks=tasks)).count("missing") == 4 * 2


def teachers_of(asked: Experiment) -> Teachers:
    target = resolve(asked).tasks[0].target
    assert isinstance(target, TeacherTarget)
    return target.teachers


def test_teachers_read_the_inputs_once_and_are_found_again(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = np.random.default_rng(5).normal(size=(SAMPLES, 6)).astype(np.float32)
    np.save(zoo / "inputs.npy", inputs)
    (points,) = content()["data"]
    family = {"kind": "teachers", "count": 3}
    asked = experiment(
        zoo,
        data=[{**points, "inputs": "inputs.npy"}],
        tasks=[
            {"name": "line", "data": "points", "family": family},
            {"name": "score", "data": "points", "family": family, "kind": "regression"},
        ],
    )
    read: list[str] = []
    taught = Teachers._taught

    def counted(self: Teachers, *given: Any) -> Any:
        read.append(self.where)
        return taught(self, *given)

    monkeypatch.setattr(Teachers, "_taught", counted)
    assert planned(asked).count("missing") == 4 * 6
    assert not read
    results = run(asked, backend="inline")
    assert read == ["task 'line'", "task 'score'"]
    assert results.failures().empty
    table = pd.read_csv(zoo / "points.csv")
    train = (table["split"] == "train").to_numpy()
    score = inputs.astype(float) @ teachers_of(asked)._weights(1, 6)[:, 0]
    label = score > np.median(score[train])
    heads = results.heads().query("task == 'line-001' and seed.isna()").set_index("model")
    stored = results.predictions().query("task == 'line-001' and seed.isna()")
    for row in stored.itertuples():
        codes = np.frombuffer(row.predictions, row.encoding)
        accuracy = (codes == label[~train]).mean()
        assert heads.loc[row.model, "score"] == pytest.approx(accuracy)
    run(asked, backend="inline")  # nothing is left to do, so nothing is read
    assert len(read) == 2
    # a measure that is new needs the classes of the evaluation split again, and no values
    more = run(asked.model_copy(update={"measures": ("td", "td_macro")}), backend="inline")
    assert read[2:] == ["task 'line'"]
    assert (more.pairs()["measure"] == "td_macro").sum() == 3 * 6
    centers = results.tasks().query("family == 'score'")["center"]
    assert centers.tolist() == [0, 0, 0]
    np.save(zoo / "inputs.npy", inputs + 1)
    assert planned(asked).count("missing") == 4 * 6


def test_gaussian_targets_measure_the_overlap_of_subspaces(zoo: Path) -> None:
    """E ||P z - P' z||^2 = r + r' - 2 sum rho^2: least squares, predicted where it was fitted."""
    table = pd.read_csv(zoo / "points.csv")
    train = (table["split"] == "train").to_numpy()
    table.assign(split=np.where(train, "test", "train")).to_csv(zoo / "again.csv", index=False)
    for name in ("points", "again"):
        (zoo / f"both/{name}").mkdir(parents=True)
        for path in (zoo / "features").glob("net-[01].npz"):
            (zoo / f"both/{name}/{path.name}").write_bytes(path.read_bytes())
    entry = {"source": "table", "split": {"column": "split"}}
    family = {"kind": "gaussian", "count": 300}
    task = {"name": "z", "data": "points", "kind": "regression", "evaluate": "again"}
    results = run(
        experiment(
            zoo,
            models=[{"source": "features", "path": "both/{data}/net-*.npz"}],
            data=[{**entry, "name": name, "path": f"{name}.csv"} for name in ("points", "again")],
            tasks=[{**task, "family": family, "distance": "none"}],
            heads=[{"kind": "ridge", "l2": 1e-9}],
            seeds=0,
        ),
        backend="inline",
    )
    projections = []
    for number in (0, 1):
        with np.load(zoo / f"features/net-{number}.npz") as arrays:
            raw = arrays["features"][train].astype(float)
        basis, _ = np.linalg.qr(raw - raw.mean(0))
        projections.append(basis @ basis.T)
    expected = 6 + 6 - 2 * np.trace(projections[0] @ projections[1])
    gap = results.matrix("z").to_pandas().loc["net-0", "net-1"] * train.sum()
    # the variance of a quadratic form of normal values, over 300 tasks
    squares = np.trace(np.linalg.matrix_power(projections[0] - projections[1], 4))
    assert gap == pytest.approx(expected, abs=4 * np.sqrt(2 * squares / 300))
