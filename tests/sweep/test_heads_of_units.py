"""The heads of a unit: their rows, scaling, penalty, and what is written down with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_zoo import (
    SAMPLES,
    content,
    experiment,
    write_features,
)

from td_ray.plan.resolve import resolve
from td_ray.sweep import run
from td_ray.tasks import halves, validation_part


def standardised(zoo: Path, model: int, train: Any) -> Any:
    """Scaled features are stored in float32, as the features are."""
    features = np.load(zoo / f"features/net-{model}.npz")["features"].astype(float)
    scaled = (features - features[train].mean(0)) / features[train].std(0)
    return scaled.astype(np.float32).astype(float)


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
        assert row["train_score"] == pytest.approx(expected, abs=1e-7)
        assert row["score"] == pytest.approx(r2(y[test], predicted[test]), abs=1e-7)


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
            together.matrix("size", head=head["name"]).to_pandas(),
            run(alone, backend="inline").matrix("size").to_pandas(),
        )


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


def test_dead_units_are_ordinary(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    features = np.load(zoo / "features/net-0.npz")["features"]
    dead = np.concatenate([features, np.full((SAMPLES, 3), 0.1, dtype=np.float32)], axis=1)
    write_features(zoo / "features/dead-0.npz", table["id"], dead)
    results = run(experiment(zoo), backend="inline")
    assert results.failures().empty
    assert results.matrix("species").to_pandas().loc["dead-0", "net-0"] == 0
    assert results.matrix("size").to_pandas().loc["dead-0", "net-0"] == pytest.approx(0, abs=1e-10)


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
    assert results.matrix("species").to_pandas().loc["wide-0", "net-0"] == 0
    assert results.matrix("size").to_pandas().loc["wide-0", "net-0"] == pytest.approx(0, abs=1e-8)
