"""An experiment with its files looked at: everything that planning can see is found here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_zoo import experiment, write_features, write_zoo

from td_ray.errors import InputError
from td_ray.plan.resolve import Problem, resolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_zoo(tmp_path, models=3)
    return tmp_path


def resolved(folder: Path, **changes: Any) -> Problem:
    return resolve(experiment(folder, **changes))


def names(problem: Problem) -> list[str]:
    return [item.model_name for item in problem.representations]


def wanted(problem: Problem) -> set[tuple[str, str]]:
    items = problem.representations
    places = problem.wanted.positions(items)
    block = problem.wanted.block(places, places)
    assert (block == block.T).all()
    return {
        (items[a].model_name[-1], items[b].model_name[-1])
        for a, b in np.argwhere(np.triu(block)).tolist()
    }


def test_everything(folder: Path) -> None:
    problem = resolved(folder)
    assert names(problem) == ["net-0", "net-1", "net-2"]
    assert [task.name for task in problem.tasks] == ["species", "size"]
    assert problem.tasks[0].classes == ("ant", "bee", "cat")
    assert list(problem.data) == ["points"]
    assert wanted(problem) == {("0", "1"), ("0", "2"), ("1", "2")}


def test_data_sets_that_no_task_uses_are_not_read(folder: Path) -> None:
    entry = {
        "name": "points",
        "source": "table",
        "path": "points.csv",
        "split": {"column": "split"},
    }
    unused = {"name": "unused", "source": "table", "path": "nowhere.csv"}
    assert list(resolved(folder, data=[entry, unused]).data) == ["points"]


def test_models_that_no_pair_wants_are_not_checked(folder: Path) -> None:
    (folder / "features/net-2.npz").write_bytes(b"damaged")
    assert names(resolved(folder, pairs=[["net-0", "net-1"]])) == ["net-0", "net-1"]
    with pytest.raises(InputError, match=r"model 'net-2': .*net-2\.npz cannot be read"):
        resolved(folder)


def test_other_sample_ids_name_the_model_and_the_data_set(folder: Path) -> None:
    ids = [f"s{number:03d}" for number in range(1, 121)]
    write_features(folder / "features/net-1.npz", ids, np.zeros((120, 2)))
    with pytest.raises(InputError, match=r"^model 'net-1': .* of data set 'points': 1 missing"):
        resolved(folder)


def test_a_csv_with_leading_zeros_fits_its_features(tmp_path: Path) -> None:
    ids = [f"{number:03d}" for number in range(30)]
    frame = pd.DataFrame({"id": ids, "species": [number % 2 for number in range(30)]})
    frame.to_csv(tmp_path / "points.csv", index=False)
    write_features(tmp_path / "features/net-0.npz", ids, np.zeros((30, 2)))
    task = {"name": "species", "data": "points", "target": "species"}
    data = {"name": "points", "source": "table", "path": "points.csv"}
    assert resolved(tmp_path, data=[data], tasks=[task]).data["points"].ids[7] == "007"


def test_models_that_run_need_inputs(folder: Path) -> None:
    (folder / "nets.py").write_text("def build(): pass")
    (folder / "a.pt").write_bytes(b"x")
    entry = {"source": "checkpoints", "path": "a.pt", "factory": "nets:build"}
    with pytest.raises(InputError, match="model 'a': data set 'points' has labels but no inputs"):
        resolved(folder, models=[entry])


def test_stored_predictions_name_their_tasks(folder: Path) -> None:
    table = pd.read_csv(folder / "points.csv")
    evaluated = table[table["split"] == "test"]
    evaluated[["id", "species"]].to_parquet(folder / "p.parquet")
    entry = {"source": "predictions", "path": "p.parquet", "tasks": "species"}
    problem = resolved(folder, models=[entry])
    (model,) = problem.representations
    assert [problem.has_task(model, task) for task in problem.tasks] == [True, False]
    with pytest.raises(InputError, match="model 'p': no task is called 'specie': did you mean"):
        resolved(folder, models=[{**entry, "tasks": ["specie"]}])
    with pytest.raises(InputError, match=r"model 'p': .*p\.parquet has no column 'size'"):
        resolved(folder, models=[{**entry, "tasks": []}])
    evaluated[["id", "species", "size"]].to_parquet(folder / "p.parquet")
    everything = resolved(folder, models=[{**entry, "tasks": []}])
    assert everything.has_task(everything.representations[0], everything.tasks[1])


def test_resolving_imports_no_heavy_library(folder: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from td_ray.plan.resolve import resolve; from td_ray.spec import Experiment\n"
        "resolve(Experiment.load(Path(sys.argv[1]) / 'x.yaml'))\n"
        "heavy = {'torch', 'ray', 'sklearn', 'scipy', 'plotly'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    (folder / "x.yaml").write_text(experiment(folder).to_yaml())
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
