"""Parts: whole, of their unit, one for each run, in a folder of their own experiment."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from small_zoo import (
    experiment,
    planned,
)

from td_ray.errors import InputError, RunError
from td_ray.results.parts import name_of_runs, runs_of_name
from td_ray.sweep import run


@pytest.mark.parametrize(
    ("runs", "name"),
    [
        ([None], "full"),
        ([None, 0, 1, 2, 3, 4], "full,0-4"),
        ([3], "3"),
        ([7, 1, 2], "1-2,7"),
    ],
)
def test_names_of_runs(runs: list[int | None], name: str) -> None:
    assert name_of_runs(runs) == name
    assert sorted(runs_of_name(name), key=str) == sorted(runs, key=str)


def test_two_parts_with_the_same_run_are_refused(zoo: Path) -> None:
    wanted = experiment(zoo)
    run(wanted, backend="inline")
    part = next((wanted.output_path / "parts/heads").glob("*/full,0-1.parquet"))
    part.with_name("0.parquet").write_bytes(part.read_bytes())
    with pytest.raises(RunError, match="hold the same run"):
        planned(wanted)


def test_a_part_cut_short_is_not_trusted(zoo: Path) -> None:
    wanted = experiment(zoo)
    run(wanted, backend="inline")
    part = next((wanted.output_path / "parts/heads").glob("*/*.parquet"))
    part.write_bytes(part.read_bytes()[:-7])
    assert planned(wanted).count("missing") == 1
    run(wanted, backend="inline")
    assert planned(wanted).count("finished") == 8


def test_a_folder_with_another_experiment_is_refused(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    with pytest.raises(InputError, match="holds another experiment, 'small'"):
        planned(experiment(zoo, name="other"))


def test_a_folder_with_other_files_is_refused(zoo: Path) -> None:
    with pytest.raises(InputError, match="holds no td-ray results"):
        planned(experiment(zoo, output="features"))


def test_a_part_of_another_unit_is_not_trusted(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    before = run(experiment(zoo), backend="inline").heads()
    one, other = sorted((zoo / "output/parts/heads").glob("*/*.parquet"))[:2]
    one.write_bytes(other.read_bytes())
    pd.testing.assert_frame_equal(run(experiment(zoo), backend="inline").heads(), before)
    one, other = sorted((zoo / "output/parts/pairs").glob("*.parquet"))
    before = run(experiment(zoo), backend="inline").pairs()
    one.write_bytes(other.read_bytes())
    pd.testing.assert_frame_equal(run(experiment(zoo), backend="inline").pairs(), before)
