"""Probabilities of the classes: written down where a measure needs them, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from small_zoo import content, experiment, planned

from td_ray.errors import InputError
from td_ray.plan.estimate import estimate
from td_ray.plan.resolve import resolve
from td_ray.results.parts import Parts
from td_ray.results.tables import Results
from td_ray.sweep import run

SPECIES = content()["tasks"][:1]
NEEDS = {"measures": ["td", "js_divergence"], "tasks": SPECIES}
CLASSES = ("ant", "bee", "cat")


def rows_of(results: Results) -> list[tuple[dict[str, Any], Any, Any]]:
    """Each head's row, its codes (n,) and its probabilities (n, C)."""
    found = []
    for row in results.heads().merge(results.predictions()).to_dict("records"):
        codes = np.frombuffer(row["predictions"], row["encoding"])
        values = np.frombuffer(row["probabilities"], "<f4").reshape(len(codes), -1)
        found.append((row, codes, values))
    return found


@pytest.mark.parametrize("head", ["logistic", "linear", "mlp"])
def test_probabilities_are_those_of_the_predictions(zoo: Path, head: str) -> None:
    heads = [{"kind": head, **({"epochs": 3} if head != "logistic" else {})}]
    results = run(experiment(zoo, heads=heads, **NEEDS), backend="inline")
    rows = rows_of(results)
    assert len(rows) == 4 * 5
    for row, codes, values in rows:
        assert values.shape == (row["n_evaluation"], 3)
        np.testing.assert_allclose(values.sum(1, dtype=np.float64), 1, atol=1e-6)
        assert (values >= 0).all()
        np.testing.assert_array_equal(values.argmax(1), codes)


def test_scikit_learn_believes_the_same(zoo: Path) -> None:
    wanted = experiment(zoo, heads=["logistic"], seeds=0, **NEEDS)
    data = resolve(wanted).tasks[0].data
    label = pd.read_csv(zoo / "points.csv")["species"].to_numpy()
    for row, _, values in rows_of(run(wanted, backend="inline")):
        features = np.load(zoo / f"features/{row['model']}.npz")["features"].astype(float)
        train = features[data.training]
        scaled = (features - train.mean(0)) / train.std(0)
        head = LogisticRegression(C=1 / (1e-3 * len(train)), tol=1e-10, max_iter=10_000)
        head.fit(scaled[data.training], label[data.training])
        expected = head.predict_proba(scaled[data.evaluation])
        np.testing.assert_allclose(values, expected, atol=1e-3)


def test_a_class_without_training_weight_has_probability_zero(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    rare = table["species"].to_numpy(copy=True)
    rare[np.flatnonzero(table["split"] == "train")[0]] = "dodo"
    table.assign(species=rare).to_csv(zoo / "points.csv", index=False)
    absent = 0
    for row, _, values in rows_of(run(experiment(zoo, **NEEDS), backend="inline")):
        there = "dodo" not in row["absent_classes"]
        absent += not there
        assert (values[:, 3] > 0).all() if there else (values[:, 3] == 0).all()
    assert absent == 4 * 2


def test_nothing_moves_without_such_a_measure(zoo: Path) -> None:
    plain = experiment(zoo, tasks=SPECIES)
    before, after = planned(plain), planned(experiment(zoo, **NEEDS))
    assert not {unit.key for unit in before.units} & {unit.key for unit in after.units}
    assert estimate(before, Parts(plain.output_folder)).probability_bytes == 0
    results = run(plain, backend="inline")
    assert results.predictions()["probabilities"].isna().all()


def test_values_of_regression_have_none(zoo: Path) -> None:
    both = experiment(zoo, measures=NEEDS["measures"])
    sizes = [unit for unit in planned(both).units if not unit.task.is_classification]
    plain = [unit for unit in planned(experiment(zoo)).units if not unit.task.is_classification]
    assert [unit.key for unit in sizes] == [unit.key for unit in plain]


def test_the_plan_counts_their_bytes(zoo: Path) -> None:
    wanted = experiment(zoo, **NEEDS)
    counted = estimate(planned(wanted), Parts(wanted.output_folder)).probability_bytes
    results = run(wanted, backend="inline")
    assert counted == sum(len(stored) for stored in results.predictions()["probabilities"])
    assert estimate(planned(wanted), Parts(wanted.output_folder)).probability_bytes == 0


def test_ridge_on_labels_has_none(zoo: Path) -> None:
    heads = ["logistic", {"kind": "ridge", "targets": ["classification"]}]
    words = (
        r"measure 'js_divergence' needs probabilities .* head 'ridge' \(ridge\) .* task 'species'"
    )
    with pytest.raises(InputError, match=words):
        planned(experiment(zoo, heads=heads, **NEEDS))


def stored(zoo: Path, **arrays: Any) -> Path:
    """Predictions for all samples, as one file."""
    table = pd.read_csv(zoo / "points.csv")
    label = table["species"].to_numpy()
    sure = np.full((len(label), 3), 0.1) + 0.7 * (label[:, None] == np.array(CLASSES))
    columns = {"id": table["id"].to_numpy(str), "species": label.astype(str)}
    path = zoo / "oracle.npz"
    np.savez(path, **{**columns, "species-p": sure, **arrays})
    return path


def with_oracle(zoo: Path, **entry: Any) -> Any:
    models = [*content()["models"], {"source": "predictions", "path": "oracle.npz", **entry}]
    return experiment(zoo, models=models, **NEEDS)


def test_stored_probabilities_come_with_stored_predictions(zoo: Path) -> None:
    stored(zoo)
    results = run(with_oracle(zoo, probabilities="{task}-p"), backend="inline")
    assert results.failures().empty
    ((_, codes, values),) = [each for each in rows_of(results) if each[0]["model"] == "oracle"]
    np.testing.assert_allclose(values[np.arange(len(codes)), codes], 0.8, rtol=1e-6)
    np.testing.assert_allclose(values.sum(1), 1, atol=1e-6)


def test_stored_probabilities_of_halves(zoo: Path) -> None:
    path = stored(zoo)
    arrays = dict(np.load(path))
    for run_name in ("0a", "0b", "1a", "1b"):
        arrays[f"species-{run_name}"] = arrays["species"]
        arrays[f"species-{run_name}-p"] = arrays["species-p"]
    arrays["species-1b-p"] = (arrays["species-p"] > 0.5).astype(np.float16)
    np.savez(path, **arrays)
    entry = {"halves": "{task}-{seed}{half}", "probabilities": "{task}-p"}
    rows = rows_of(run(with_oracle(zoo, **entry), backend="inline"))
    sure = {
        (row["seed"], row["half"])
        for row, _, x in rows
        if row["model"] == "oracle" and x.max() > 0.9
    }
    assert sure == {(1, "b")}


def test_predictions_alone_are_refused_while_planning(zoo: Path) -> None:
    stored(zoo)
    with pytest.raises(InputError, match=r"'js_divergence' .* 'oracle' comes with predictions"):
        planned(with_oracle(zoo))
    with pytest.raises(InputError, match=r"'probabilities' needs \{task\}"):
        with_oracle(zoo, probabilities="p")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p[:, :2], r"has shape \(48, 2\) float64; probabilities .* its 3 classes"),
        (lambda p: np.log(p), "are at least 0 and sum to 1; row 0"),
        (lambda p: p * 2, "sums to 2"),
        (lambda p: p * np.nan, "sums to nan"),
        (lambda p: p[:, ::-1], r"in 32 rows another class .* order ant, bee, cat$"),
    ],
)
def test_stored_probabilities_that_do_not_fit(zoo: Path, change: Any, words: str) -> None:
    path = stored(zoo)
    stored(zoo, **{"species-p": change(np.load(path)["species-p"])})
    failures = run(with_oracle(zoo, probabilities="{task}-p"), backend="inline").failures()
    (error,) = failures["error"]
    assert "'species-p'" in error
    assert re.search(words, error)
