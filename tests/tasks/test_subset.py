"""Subsets: drawn before the split, by id and seed, each within the larger ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from td_ray.errors import InputError
from td_ray.tasks.dataset import DataSet
from td_ray.tasks.image_folder import ImageFolder
from td_ray.tasks.inputs import ChosenInputs, Texts
from td_ray.tasks.splits import subset
from td_ray.tasks.table import Table

N = 200


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = np.arange(N)
    frame = pd.DataFrame(
        {
            "id": [f"s{row}" for row in rows],
            "kind": np.where(rows % 10 < 7, "common", "rare"),
            "part": np.where(rows % 4, "train", "test"),
            "text": [f"text {row}" for row in rows],
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame[::-1].to_csv(tmp_path / "reversed.csv", index=False)
    np.save(tmp_path / "i.npy", rows * 10)
    return tmp_path


def load(folder: Path, path: str = "t.csv", **options: Any) -> DataSet:
    values = {"source": "table", "name": "d", "path": path, **options}
    return Table.model_validate(values).load(folder, folder / "cache")


def test_ids_columns_and_inputs_stay_together(table: Path) -> None:
    for options in ({"inputs": "i.npy"}, {"text": "text"}):
        data = load(table, subset=50, stratify="kind", **options)
        numbers = [int(name[1:]) for name in data.ids.tolist()]
        assert data.n == len(data.inputs) == 50
        assert numbers == sorted(numbers)
        expected: list[Any] = [f"text {number}" for number in numbers]
        assert data.column("text", "task").tolist() == expected
        if "inputs" in options:
            expected = [number * 10 for number in numbers]
        assert list(data.inputs[0:50]) == expected
        assert list(data.inputs[20:23]) == expected[20:23]
        assert (data.column("kind", "task") == "rare").sum() == 15
        assert data.training.sum() == 35


def test_a_larger_subset_holds_the_smaller_ones(table: Path) -> None:
    whole = load(table)
    smaller: set[str] = set()
    for size in (10, 11, 50, 199, 200):
        data = load(table, subset=size, stratify="kind")
        assert smaller < set(data.ids.tolist())
        smaller = set(data.ids.tolist())
    assert load(table, subset=N).split_digest == whole.split_digest


def test_what_a_subset_depends_on(table: Path) -> None:
    first = load(table, subset=50)
    assert set(load(table, "reversed.csv", subset=50).ids) == set(first.ids)
    assert set(load(table, subset=50, split={"seed": 1}).ids) != set(first.ids)
    # the split of the subset is another draw: both parts have samples of both
    assert 0 < load(table, subset=50).evaluation.sum() < 50


def test_a_split_by_column_keeps_its_shares(table: Path) -> None:
    data = load(table, subset=40, stratify="kind", split={"column": "part"})
    assert data.evaluation.sum() == 10
    rare = data.column("kind", "task") == "rare"
    assert (rare & data.evaluation).sum() == 2  # one of 20, as in the whole


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    seed=st.integers(0, 5),
    share=st.floats(0.01, 1),
)
def test_strata_have_their_shares(sizes: list[int], seed: int, share: float) -> None:
    strata = np.repeat(np.arange(len(sizes)), sizes)
    ids = np.arange(len(strata)).astype(str)
    size = max(1, round(share * len(ids)))
    chosen = subset(ids, strata, size, seed)
    assert chosen.sum() == size
    smaller = subset(ids, strata, size - 1, seed)
    assert not (smaller & ~chosen).any()
    found = np.bincount(strata[chosen], minlength=len(sizes))
    assert (np.abs(found - size * np.array(sizes) / len(ids)) <= 1 + 0.5 * len(sizes)).all()


def test_images_are_read_by_their_rows(tmp_path: Path) -> None:
    for number in range(12):
        path = tmp_path / "images" / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2 + number % 3, 2), (number, 0, 0)).save(path)
    values = {"source": "image_folder", "name": "d", "path": "images", "subset": 7}
    data = ImageFolder.model_validate(values).load(tmp_path, tmp_path / "cache")
    found = [int(image[0, 0, 0]) for image in data.inputs[0:7]]
    assert found == [int(Path(name).stem) for name in data.ids.tolist()]
    for name in set(tmp_path.rglob("*.png")):
        if name.relative_to(tmp_path / "images").as_posix() not in data.ids:
            name.unlink()  # what is not chosen is not opened
    assert len(data.inputs[0:7]) == 7


def test_neighbours_are_read_together() -> None:
    reads: list[slice] = []

    class Counted(Texts):
        def __getitem__(self, rows: slice, /) -> list[str]:
            reads.append(rows)
            return super().__getitem__(rows)

    chosen = ChosenInputs(Counted(tuple("abcdefgh")), np.array([0, 1, 2, 5, 7]))
    assert chosen[0:5] == ["a", "b", "c", "f", "h"]
    assert reads == [slice(0, 3), slice(5, 6), slice(7, 8)]
    assert chosen[3:3] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"subset": 201}, "data set 'd': a subset of 201 samples is asked for, and there are 200"),
        ({"subset": 20, "stratify": "kid"}, "no column 'kid' to stratify by: did you mean 'kind'"),
        ({"subset": 20, "split": {"column": "p"}}, "no column 'p' for the split"),
    ],
)
def test_bad_subsets(table: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(table, **options)
    with pytest.raises(ValueError, match="greater than 0"):
        load(table, subset=0)
