"""Searches raced through Ray Tune: early stops, one race per unit, failures, resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_zoo import SAMPLES, content, experiment, parts_of, planned, write_features

from td_ray.errors import MachineError
from td_ray.spec import Experiment
from td_ray.sweep import run

pytestmark = pytest.mark.ray

# The first is by far the best, so that the others are stopped when they meet it.
SEARCHED: dict[str, Any] = {
    "kind": "linear",
    "learning_rate": [3e-2, 1e-6, 1e-7],
    "epochs": 27,
    "batch_size": 16,
}


def wanted(zoo: Path, **changes: Any) -> Experiment:
    return experiment(zoo, **{"heads": [SEARCHED, "ridge"], **changes})


def test_a_sweep_with_a_search(zoo: Path, ray_session: None) -> None:
    results = run(wanted(zoo))
    assert results.failures().empty
    searches = results.searches()
    rates = searches["hyperparameters"].map(json.loads).map(lambda x: x["learning_rate"])
    assert len(searches) == 4 * 2 * 3
    assert (rates[searches["chosen"]] == 3e-2).all()
    assert (searches["epochs"][searches["chosen"]] == 27).all()
    stopped = searches[~searches["chosen"]]["epochs"]
    assert set(stopped) <= {3, 9, 27}
    assert (stopped < 27).any()
    linear = results.heads().query("head == 'linear'")
    assert (linear["iterations"] == 27 * np.ceil(linear["n_train"] / 16)).all()
    assert not list((zoo / "output").glob(".tune*"))

    # what the race chose is what training all to the end chooses, and heads are the same
    inline = run(wanted(zoo, output="inline"), backend="inline")
    pd.testing.assert_frame_equal(results.heads(), inline.heads())
    pd.testing.assert_frame_equal(results.pairs(), inline.pairs())

    # going on, and adding seeds, searches nothing again
    before = parts_of(zoo)
    run(wanted(zoo))
    assert parts_of(zoo) == before
    more = run(wanted(zoo, seeds=3))
    assert before.items() <= parts_of(zoo).items()
    assert more.heads().query("head == 'linear'")["hyperparameters"].nunique() == 1


def test_failures_of_a_search(zoo: Path, ray_session: None) -> None:
    """Features that are not there, and candidates that all diverge, cost their own units."""
    ids = pd.read_csv(zoo / "points.csv")["id"]
    write_features(zoo / "features/nan-0.npz", ids, np.full((SAMPLES, 3), np.nan))
    diverging = {"optimizer": "sgd", "learning_rate": [1e6, 1e7], "weight_decay": 0}
    partly = {**SEARCHED, **diverging, "name": "partly", "learning_rate": [1e6, 1e-2]}
    heads = [{**SEARCHED, **diverging}, partly, "ridge"]
    results = run(wanted(zoo, heads=heads, tasks=content()["tasks"][1:]))
    inline = run(
        wanted(zoo, heads=heads, tasks=content()["tasks"][1:], output="inline"), backend="inline"
    )
    pd.testing.assert_frame_equal(results.searches(), inline.searches())
    failures = results.failures().set_index(["model", "head"])
    assert set(failures.xs("nan-0")["stage"]) == {"features"}
    assert failures.loc[("net-0", "linear"), "stage"] == "search"
    assert "model 'net-0' at 'output'" in failures.loc[("net-0", "linear"), "error"]
    assert set(results.heads()["head"]) == {"partly", "ridge"}


@pytest.mark.parametrize("path", ["cache/features", "output/parts/choices"])
def test_trouble_of_a_machine_is_no_failure_of_a_unit(
    zoo: Path, ray_session: None, path: str
) -> None:
    """In a trial's process or in the one that judges: it ends the run, and nothing is on record."""
    searched, plain = (
        wanted(zoo, heads=[head], tasks=content()["tasks"][:1], seeds=0)
        for head in (SEARCHED, "logistic")
    )
    run(plain, backend="inline")  # its folders are there
    shutil.rmtree(zoo / path, ignore_errors=True)
    (zoo / path).write_text("in the way")
    with pytest.raises(MachineError, match=path):
        run(searched)
    assert not list((zoo / "output/parts").glob("failures/*"))
    (zoo / path).unlink()
    assert run(searched).failures().empty


def test_candidates_of_different_units_never_meet(zoo: Path) -> None:
    """The worst of one unit is far better than the best of another; neither stops the other."""
    from ray.tune.schedulers import TrialScheduler

    from td_ray.sweep.races import Races, rungs
    from td_ray.sweep.trials import Work

    plan = planned(wanted(zoo))
    races = Races(Work(plan.problem.experiment, plan.searches))
    trials = {
        (block, number): SimpleNamespace(
            trial_id=f"{block}-{number}", config={"candidate": (block, 0, number)}
        )
        for block in (0, 1)
        for number in (0, 1)
    }
    for trial in trials.values():
        races.on_trial_add(None, trial)

    def report(block: int, number: int, loss: float, reason: str = "") -> str:
        result = {"epochs": rungs(27)[0], "loss": loss, "reason": reason, "trouble": ""}
        return races.on_trial_result(None, trials[block, number], result)

    assert report(0, 0, 0.1) == TrialScheduler.CONTINUE
    assert report(1, 0, 9.0) == TrialScheduler.CONTINUE
    assert report(1, 1, float("inf"), "diverged") == TrialScheduler.CONTINUE
    assert report(0, 1, 0.2) == TrialScheduler.STOP


def test_rungs() -> None:
    from td_ray.sweep.races import rungs

    assert rungs(100) == [11, 33, 100]
    assert rungs(27) == [3, 9, 27]
    assert rungs(3) == [1, 3]
    assert rungs(1) == [1]
