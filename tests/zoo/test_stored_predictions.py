from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError
from small_data import dataset

from td_ray.errors import InputError, WorkError
from td_ray.files import sha256
from td_ray.spec import TaskSpec
from td_ray.tasks import Task, resolve_tasks
from td_ray.zoo.stored_predictions import StoredPredictions

IDS = list("abcdef")
DATA = dataset(
    IDS, columns={"y": ["u", "v", "u", "v", "u", "v"], "n": [3, 10, 3, 10, 3, 10], "x": range(6)}
)


def task(**spec: Any) -> Task:
    (found,) = resolve_tasks([TaskSpec(name="t", data="d", **spec)], {"d": DATA})
    return found


WORDS, NUMBERS = task(target="y"), task(target="n")
VALUES = task(target="x", kind="regression")


def model(folder: Path, **entry: Any) -> StoredPredictions:
    entry = {"source": "predictions", "path": "p.*", **entry}
    (found,) = StoredPredictions(**entry).expand(folder, ["d"], folder)
    return found


def predictions(folder: Path, task: Task, **entry: Any) -> list[Any]:
    return list(model(folder, **entry).predictions(folder, task, DATA, None, None).tolist())


def write(folder: Path, **columns: Any) -> None:
    parquet.write_table(pa.table(columns), folder / "p.parquet")


def test_labels_of_the_evaluation_split_in_any_order(tmp_path: Path) -> None:
    write(tmp_path, id=["f", "e"], t=["u", "v"], other=[1, 2])
    assert DATA.evaluation_ids.tolist() == ["e", "f"]
    assert predictions(tmp_path, WORDS) == [1, 0]


def test_labels_of_all_samples(tmp_path: Path) -> None:
    write(tmp_path, id=IDS[::-1], t=["u", "v", "u", "u", "u", "u"])
    assert predictions(tmp_path, WORDS) == [1, 0]


@pytest.mark.parametrize("labels", [[10, 3], [10.0, 3.0], ["10", "3"]])
def test_labels_of_any_type(tmp_path: Path, labels: Any) -> None:
    write(tmp_path, id=["e", "f"], t=labels)
    assert predictions(tmp_path, NUMBERS) == [1, 0]
    np.savez(tmp_path / "q.npz", id=["e", "f"], t=np.array(labels), u=np.array(labels))
    assert predictions(tmp_path, NUMBERS, path="q.npz") == [1, 0]
    np.save(tmp_path / "q.npy", np.array(labels))
    assert predictions(tmp_path, NUMBERS, path="q.npy", ids="row-order") == [1, 0]


def test_values(tmp_path: Path) -> None:
    write(tmp_path, id=["f", "e"], t=[0.5, 1.5])
    assert predictions(tmp_path, VALUES) == [1.5, 0.5]
    write(tmp_path, id=["f", "e"], mine=[1, 2])
    assert predictions(tmp_path, VALUES, columns={"t": "mine"}) == [2, 1]


@pytest.mark.parametrize(
    ("columns", "which", "words"),
    [
        ({"id": ["e", "f"], "t": ["u", "w"]}, WORDS, "'w' is no class of task 't'"),
        ({"id": ["e", "f"], "t": ["u", None]}, WORDS, "'' is no class"),
        ({"id": ["e", "f"], "t": [0.5, 1]}, NUMBERS, "has fractions"),
        ({"id": ["e", "f"], "t": [4, 3]}, NUMBERS, "'4' is no class"),
        ({"id": ["e", "f"], "s": ["u", "v"]}, WORDS, "no column 't'"),
        ({"id": ["e", "f"], "t": ["u", "v"]}, VALUES, "must be finite numbers"),
        ({"id": ["e", "f"], "t": [1.0, np.inf]}, VALUES, "must be finite numbers"),
        ({"id": ["e", "g"], "t": ["u", "v"]}, WORDS, "do not match those of data set 'd'"),
        ({"id": ["e", "e"], "t": ["u", "v"]}, WORDS, "'e' is there twice"),
        ({"t": ["u", "v"]}, WORDS, "carries no sample ids"),
        ({"id": ["e", "f"], "t": [[1.0], [2.0]]}, WORDS, "no column 't'"),
    ],
)
def test_outputs_that_do_not_fit(
    tmp_path: Path, columns: dict[str, Any], which: Task, words: str
) -> None:
    write(tmp_path, **columns)
    with pytest.raises(WorkError, match=rf"p\.parquet.*{words}"):
        predictions(tmp_path, which)


def test_logits_are_no_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", id=["e", "f"], t=np.zeros((2, 3)))
    with pytest.raises(WorkError, match=r"'t' has shape \(2, 3\); give one label a sample"):
        predictions(tmp_path, WORDS)


def test_planning_checks_ids(tmp_path: Path) -> None:
    write(tmp_path, id=["e", "g"], t=["u", "v"])
    with pytest.raises(InputError, match="do not match"):
        model(tmp_path).check(tmp_path, DATA, ["t"])
    with pytest.raises(InputError, match="no column 'tt': did you mean 't'"):
        model(tmp_path).check(tmp_path, DATA, ["tt"])
    (tmp_path / "p.parquet").unlink()
    np.savez(tmp_path / "p.npz", id=["e", "g"], t=["u", "v"], s=["u", "v"])
    with pytest.raises(InputError, match="do not match"):
        model(tmp_path, tasks="t").check(tmp_path, DATA, ["t"])
    with pytest.raises(InputError, match="no array 'r'"):
        model(tmp_path, tasks="r").check(tmp_path, DATA, ["r"])


def test_identity(tmp_path: Path) -> None:
    write(tmp_path, id=["e", "f"], t=["u", "v"])

    def identity(**entry: Any) -> Any:
        return model(tmp_path, **entry).identity(tmp_path, "d", "output", sha256)

    first = identity()
    assert identity(name="other") == first
    assert identity(columns={"t": "s"}) != first
    write(tmp_path, id=["e", "f"], t=["v", "u"])
    assert identity() != first


def test_halves_are_columns_of_their_own(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"id": ["e", "f"], "t": ["u", "v"]}
    for seed, half, labels in ((0, "a", "vv"), (0, "b", "uv"), (7, "a", "vu"), (7, "b", "uu")):
        columns[f"t/{seed}{half}"] = list(labels)
    write(tmp_path, **columns)
    found = model(tmp_path, halves="{task}/{seed}{half}")
    assert found.has_halves
    assert found.predictions(tmp_path, WORDS, DATA, None, None).tolist() == [0, 1]
    assert found.predictions(tmp_path, WORDS, DATA, 0, "a").tolist() == [1, 1]
    assert found.predictions(tmp_path, WORDS, DATA, 7, "b").tolist() == [0, 0]
    with pytest.raises(WorkError, match=r"no column 't/1a'"):
        found.predictions(tmp_path, WORDS, DATA, 1, "a")
    assert not model(tmp_path).has_halves
    with pytest.raises(ValidationError, match=r"'halves' needs \{seed\} and"):
        model(tmp_path, halves="{task}-{seed}")
