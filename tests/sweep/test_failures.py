"""What one bad model costs, and what is held against no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from small_zoo import (
    SAMPLES,
    experiment,
    planned,
    write_features,
)

from td_ray.errors import MachineError, PartialMatrixWarning, RunError
from td_ray.plan.resolve import resolve
from td_ray.results.parts import Parts
from td_ray.results.sealing import sealed
from td_ray.results.tables import open_results
from td_ray.sweep import run
from td_ray.sweep.progress import Quiet
from td_ray.tasks import halves


def test_one_bad_model_costs_its_own_rows(zoo: Path) -> None:
    table = pd.read_csv(zoo / "points.csv")
    features = np.ones((SAMPLES, 6))
    features[7, 2] = np.nan
    write_features(zoo / "features/net-9.npz", table["id"], features)
    results = run(experiment(zoo), backend="inline")
    failures = results.failures()
    assert failures["model"].unique().tolist() == ["net-9"]
    assert set(failures["stage"]) == {"features"}
    assert (
        failures["error"]
        .str.contains("NaN or infinite features at layer 'output', samples 's007'")
        .all()
    )
    assert len(results.pairs()) == 2 * 6
    with pytest.warns(PartialMatrixWarning, match="4 of 10 pairs"):
        matrix = results.matrix("species").to_pandas()
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
    part.write_bytes(sealed(other, part.parent.name, table.schema.metadata[b"runs"].decode()))
    for pairs in (zoo / "output/parts/pairs").glob("*.parquet"):
        pairs.unlink()
    results = run(wanted, backend="inline")
    (failure,) = results.failures().to_dict("records")
    assert failure["stage"] == "pairs"
    assert "evaluated on other samples" in failure["error"]
    assert len(results.pairs()) == 6


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
        assert results.matrix("size").to_pandas().attrs["missing"] == 4


def test_a_half_whose_head_is_constant_gives_a_reason(zoo: Path) -> None:
    """The full split tells the feature's direction, one half sees it constant."""
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
    read = FeatureArrays.read

    def meddle(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.name == "net-2":
            path.write_bytes((zoo / "features/net-0.npz").read_bytes())
        return read(self, *arguments, **options)

    with monkeypatch.context() as meddling:
        meddling.setattr(FeatureArrays, "read", meddle)
        with pytest.raises(MachineError, match="'net-2' changed while it was at work"):
            run(experiment(zoo), backend="inline")
    path.write_bytes(original)
    results = run(experiment(zoo), backend="inline")
    assert results.failures().empty
    fresh = experiment(zoo, output="fresh", resources={"cache": str(zoo / "other")})
    pd.testing.assert_frame_equal(results.pairs(), run(fresh, backend="inline").pairs())


def test_a_unit_that_failed_is_left_alone_by_a_trial_that_runs_again(zoo: Path) -> None:
    """As after its process was lost, which the unit may be to blame for."""
    from td_ray.errors import WorkError
    from td_ray.features import FeatureStore
    from td_ray.work.extracting import open_from_store
    from td_ray.work.heads import run_block

    wanted = experiment(zoo)
    parts = Parts(wanted.output_folder)
    block = planned(wanted).blocks[0]

    def broken(key: str, data: Any) -> Any:
        raise WorkError("not now")

    assert run_block(block, wanted, parts, broken) == (0, 2)
    store = FeatureStore(wanted.cache_path, 2**30)
    opened = open_from_store(block.passes, wanted, store, Quiet().samples)
    assert run_block(block, wanted, parts, opened) == (0, 2)
    for unit in block.units:
        parts.clear_failure(str(unit.key))
    assert run_block(block, wanted, parts, opened) == (2, 0)
    assert not list((zoo / "output/parts/failures").glob("*"))


def test_a_fit_that_fails_names_all_that_it_was(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("td_ray.heads.logistic.MAX_EVALUATIONS", 1)
    failures = run(experiment(zoo), backend="inline").failures()
    assert set(failures["stage"]) == {"heads"}
    who = "model 'net-0' at 'output', task 'species', head 'logistic'"
    assert failures["error"].iloc[0].startswith(f"{who}: 5 of 5 logistic heads did not")
