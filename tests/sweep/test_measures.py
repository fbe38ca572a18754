"""Runs with several measures: their rows, their errors, and tasks that they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_zoo import TASKS, content, experiment, planned

from td_ray.errors import InputError
from td_ray.plan.estimate import count_pairs
from td_ray.plan.resolve import resolve
from td_ray.plan.tiles import plan_tiles
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.sweep import run
from td_ray.work.pairs import examples_of

NAMES = ["td", "cohen_kappa", "td_macro", "negative_flip_rate", "td_over_errors"]


def test_measures_are_compared_where_they_fit(zoo: Path) -> None:
    wanted = experiment(zoo, measures=NAMES)
    results = run(wanted, backend="inline")
    assert results.failures().empty
    pairs = results.pairs()
    rows = pairs.groupby(["task", "measure"]).size().to_dict()
    once = {("species", name): 6 for name in NAMES} | {("size", "td"): 6}
    assert rows == once | {("species", "negative_flip_rate"): 12}
    assert count_pairs(planned(wanted)) == sum(once.values())
    assert pairs[["value", "se", "tdx", "excess", "floor_a"]].notna().all(axis=None)
    td, kappa = (pairs[pairs["measure"] == name] for name in ("td", "cohen_kappa"))
    assert (td[td["task"] == "species"]["se"] < 0.1).all()
    assert (kappa["value"] > 0).all()
    flips = pairs[pairs["measure"] == "negative_flip_rate"].set_index(["model_a", "model_b"])
    scores = results.heads().query("task == 'species' and seed.isna()").set_index("model")["score"]
    for a, b in flips.index:
        # What is lost less what is won is the difference of the accuracies.
        lost, won = flips.loc[(a, b), "value"], flips.loc[(b, a), "value"]
        assert lost - won == pytest.approx(scores[a] - scores[b])
        assert flips.loc[(a, b), "floor_a"] == flips.loc[(b, a), "floor_b"]


def test_other_measures_change_nothing_of_the_first(zoo: Path) -> None:
    alone = run(experiment(zoo), backend="inline").pairs()
    more = run(experiment(zoo, measures=NAMES), backend="inline").pairs()
    td = more[more["measure"] == "td"].reset_index(drop=True)
    pd.testing.assert_frame_equal(td, alone.reset_index(drop=True))


def test_errors_do_not_depend_on_the_order_of_the_samples(zoo: Path) -> None:
    first = run(experiment(zoo), backend="inline").pairs()
    table = pd.read_csv(zoo / "points.csv")
    table.sample(frac=1, random_state=0).to_csv(zoo / "points.csv", index=False)
    shuffled = run(experiment(zoo, output="shuffled"), backend="inline").pairs()
    np.testing.assert_allclose(shuffled["se"], first["se"], atol=1e-5)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_measure_that_fits_no_task_is_refused(zoo: Path, kind: str) -> None:
    tasks = [task for task in TASKS if task.get("kind", "classification") == kind]
    wanted = experiment(zoo, tasks=tasks, measures=["td", "td_macro"])
    if kind == "classification":
        resolve(wanted)
        return
    with pytest.raises(InputError) as caught:
        resolve(wanted)
    assert str(caught.value) == (
        "measure 'td_macro' compares tasks of kind classification, and there is none: 'size' "
        "(regression); leave it out of 'measures', or add such a task"
    )


def test_a_misspelt_measure_has_a_hint() -> None:
    with pytest.raises(InputError, match="did you mean 'cohen_kappa'"):
        Experiment.parse(content(measures=["cohens_kappa"]))


def test_patients_stay_together_in_blocks(zoo: Path) -> None:
    """Samples of one group are no evidence of their own: the same values have other errors."""
    table = pd.read_csv(zoo / "points.csv")
    table["patient"] = [f"p{number // 15}" for number in range(len(table))]
    table["split"] = np.where(np.arange(len(table)) // 15 % 2, "train", "test")
    table.to_csv(zoo / "points.csv", index=False)
    data = [{**content()["data"][0], "groups": "patient"}]
    wanted = experiment(zoo, data=data)
    pairs = run(wanted, backend="inline").pairs()
    plan = planned(wanted)
    for (task, _), examples in examples_of(plan, plan_tiles(plan, Parts(wanted.output_folder))):
        (found,) = (each for each in plan.problem.tasks if each.name == task)
        patients = table["patient"][found.evaluation_rows("points")].to_numpy()
        of_patient = pd.Series(examples.blocks.of_example).groupby(patients).nunique()
        assert of_patient.to_dict() == {f"p{number}": 1 for number in (0, 2, 4, 6)}
        assert examples.blocks.sizes.tolist() == [15] * 4
    apart = run(experiment(zoo, output="apart"), backend="inline").pairs()
    np.testing.assert_allclose(pairs["value"], apart["value"], atol=1e-6)
    assert (pairs["se"] - apart["se"]).abs().mean() > 0.002


@pytest.mark.parametrize("classes", [256, 257, 65_536, 65_537])
def test_classes_beyond_a_type_of_codes(tmp_path: Path, classes: int) -> None:
    """Predicted as the first class and as the last ones, where a type that is too small wraps."""
    ids = [f"s{number}" for number in range(classes + 4)]
    labels = [*range(classes), 0, classes - 1, 1, classes - 1]
    split = ["train"] * classes + ["test"] * 4
    pd.DataFrame({"id": ids, "label": labels, "split": split}).to_csv(
        tmp_path / "labels.csv", index=False
    )
    for name, codes in (("one", [0, classes - 1, 1, 0]), ("two", [0, 0, 1, classes - 1])):
        np.savez(tmp_path / f"{name}.npz", id=ids[-4:], label=codes)
    data = {"name": "d", "source": "table", "path": "labels.csv", "split": {"column": "split"}}
    changes = {
        "models": [{"source": "predictions", "path": "*.npz"}],
        "data": [data],
        "tasks": [{"name": "label", "data": "d", "target": "label"}],
        "heads": ["logistic"],
        "measures": ["td", "cohen_kappa", "negative_flip_rate", "td_macro"],
        "seeds": 0,
    }
    pairs = run(experiment(tmp_path, **changes), backend="inline").pairs()
    value = pairs.set_index(["measure", "model_a"])["value"]
    assert value["td", "one"] == 0.5
    assert value["cohen_kappa", "one"] == pytest.approx(1 - 0.5 / (1 - (4 + 1 + 1) / 16))
    assert value["negative_flip_rate", "one"] == value["negative_flip_rate", "two"] == 0.25
    assert value["td_macro", "one"] == pytest.approx((0 + 1 + 0) / 3)


def test_what_a_model_is_to_itself_is_not_guessed(zoo: Path) -> None:
    """Where outputs decide it, the diagonal is empty: floors are at half the training split."""
    results = run(experiment(zoo, measures=["td_upper_bound", "td_macro"]), backend="inline")
    bound, macro = (results.matrix("species", name) for name in ("td_upper_bound", "td_macro"))
    assert np.isnan(np.diagonal(bound.values)).all()
    assert bound.n_missing == 0
    assert not np.isnan(bound.floors).any()
    assert (np.diagonal(macro.values) == 0).all()
