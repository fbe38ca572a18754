"""A zoo of given predictions whose discrepancies, floors and excesses are known in closed form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from td_ray.results.tables import open_results
from td_ray.spec import Experiment
from td_ray.sweep import run

JOB = Path(__file__).parents[2] / "jobs/simulated_predictions.py"


def simulate(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(JOB), str(folder), *words]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.ray
@pytest.mark.parametrize("seeds", [3, 0])
def test_shares_are_those_of_the_closed_form(tmp_path: Path, ray_session: None, seeds: int) -> None:
    size = ("--models", "150", "--seeds", str(seeds), "--examples", "2000")
    assert simulate(tmp_path, *size).returncode == 0
    experiment = Experiment.load(tmp_path / "zoo.yaml", [f"resources.cache={tmp_path / 'cache'}"])
    results = run(experiment)
    assert results.failures().empty
    pairs = results.pairs()
    assert len(pairs) == 150 * 149 // 2  # over three tiles
    assert (pairs["n_seeds"] == seeds).all()
    assert results.floors("label").notna().all() == bool(seeds)
    checked = simulate(tmp_path, "--check")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count("deviations off") == (3 if seeds else 1)


def test_the_check_can_fail(tmp_path: Path) -> None:
    simulate(tmp_path, "--models", "3", "--seeds", "1", "--examples", "2000")
    other = tmp_path / "outputs/net-00001.npz"
    (tmp_path / "outputs/net-00002.npz").write_bytes(other.read_bytes())
    experiment = Experiment.load(tmp_path / "zoo.yaml", [f"resources.cache={tmp_path / 'cache'}"])
    run(experiment, backend="inline")
    assert open_results(tmp_path / "output").matrix("label").to_pandas().iloc[1, 2] == 0
    checked = simulate(tmp_path, "--check")
    assert checked.returncode == 1
    assert "is not what the closed form says" in checked.stderr
