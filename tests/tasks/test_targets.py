"""Targets: from columns to codes and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.files import sha256
from td_ray.spec import TaskSpec
from td_ray.tasks import DataSet, Task, resolve_tasks
from td_ray.tasks.dataset import DataSource, Samples
from td_ray.tasks.text import as_text


class Fixed(DataSource):
    """A source that is never read."""

    def read(self, folder: Path, cache: Path) -> Samples:
        raise NotImplementedError

    def inputs_identity(self, folder: Path, digest: Any) -> Any:
        return None


def dataset(name: str = "d", train: int = 4, **columns: Any) -> DataSet:
    """The first ``train`` rows are the training split, the others are evaluated."""
    arrays = {key: np.asarray(values) for key, values in columns.items()}
    n = len(next(iter(arrays.values())))
    training = np.arange(n) < train
    samples = Samples(np.arange(n).astype(str), arrays)
    return DataSet(name, samples, training, ~training, None, Fixed(source="fixed", name=name))


def identity(task: Task) -> str | None:
    return task.target.identity(sha256)


def task(*data: DataSet, **spec: Any) -> Task:
    values = {"name": "t", "data": "d", "target": "y", **spec}
    (found,) = resolve_tasks([TaskSpec(**values)], {item.name: item for item in data})
    return found


def test_codes_follow_the_sorted_labels() -> None:
    found = task(dataset(y=["b", "a", "c", "a", "c", "b"]))
    assert found.classes == ("a", "b", "c")
    assert found.train_target.tolist() == [1, 0, 2, 0]
    assert found.evaluation_targets["d"].tolist() == [2, 1]
    assert found.train_target.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([10, 9, 2, -1, 10], ("-1", "2", "9", "10")),
        (["10", "9", "2", "-1", "10"], ("-1", "2", "9", "10")),
        ([10.0, 9.0, 2.0, -0.0, 10.0], ("0", "2", "9", "10")),
        ([True, False, True, False, True], ("False", "True")),
        (["10", "9", "x", "10", "9"], ("10", "9", "x")),
        (["²", "1", "2", "1", "1"], ("1", "2", "²")),
        (["--5", "1", "2", "1", "1"], ("--5", "1", "2")),
        (["9" * 5000, "1", "2", "1", "1"], ("1", "2", "9" * 5000)),
        (["01", "1", "2", "1", "1"], ("01", "1", "2")),
        (np.array([b"b", b"a", b"a", b"b", b"b"]), ("a", "b")),
        (np.array(["b", "a", "a", "b", "b"], dtype=object), ("a", "b")),
    ],
)
def test_order_of_classes(labels: Any, classes: tuple[str, ...]) -> None:
    assert task(dataset(y=labels)).classes == classes


def test_whole_floats_and_integers_are_the_same_labels() -> None:
    whole = task(dataset(y=[1, 2, 3, 1, 2]))
    floats = task(dataset(y=[1.0, 2.0, 3.0, 1.0, 2.0]))
    text = task(dataset(y=["1", "2", "3", "1", "2"]))
    assert whole.classes == floats.classes == text.classes
    assert identity(whole) == identity(floats) == identity(text)


def test_grouping() -> None:
    data = dataset(y=[0, 1, 2, 3, 0, 3])
    found = task(data, classes={"odd": (1, 3), "even": (0, "2")})
    assert found.classes == ("odd", "even")
    assert found.train_target.tolist() == [1, 0, 1, 0]
    assert found.evaluation_targets["d"].tolist() == [1, 0]
    assert identity(found) != identity(task(data))


def test_shift_evaluates_another_data_set() -> None:
    other = dataset("other", train=1, y=["b", "a", "b"])
    found = task(dataset(y=["a", "b", "a", "b", "a"]), other, evaluate=("other", "d"))
    assert found.evaluation_targets["other"].tolist() == [0, 1]
    assert set(found.evaluation) == {"other", "d"}


def test_regression() -> None:
    found = task(dataset(y=[1, 2, 3, 6, 5]), kind="regression")
    assert found.classes == ()
    assert found.center == 3.0
    assert found.train_target.dtype == np.float64
    assert task(dataset(y=[True, False, True, True, False]), kind="regression").center == 0.75


ODD = np.array([{}, [], "a", 1.5, None], dtype=object)


@pytest.mark.parametrize(
    ("labels", "spec", "words"),
    [
        ([1, 2, 1, 2, 1], {"target": "z"}, "no column 'z': known: y"),
        ([1, 1, 1, 1, 1], {}, "at least two classes"),
        (["a", "b", "a", "b", "c"], {}, "class 'c' is evaluated but missing from the training"),
        ([0.5, 1, 2, 3, 4], {}, "'y' has fractions.*kind: regression"),
        ([1, 1e300, 2, 1, 1], {}, "too large"),
        ([1, np.inf, 2, 1, 1], {}, "too large"),
        ([1, 2, np.nan, 1, 2], {}, "empty labels"),
        (["a", "", "b", "a", "b"], {}, "empty labels"),
        (ODD, {}, "holds a dict"),
        ([1j, 2, 1, 2, 1], {}, "complex128"),
        ([[1, 2]] * 5, {}, r"shape \(5, 2\)"),
        (["a", "b", "a", "b", "a"], {"classes": {"x": ("a",)}}, "at least two classes"),
        (
            ["a", "b", "a", "b", "c"],
            {"classes": {"x": ("a",), "y": ("b",)}},
            "label 'c' is in none of the task's 'classes', which hold a, b",
        ),
        (["a", "b"] * 3, {"classes": {"x": ("a", "b"), "y": ("a",)}}, "'a' is in two"),
        (["a", "b"] * 3, {"classes": {"x": ("a", "b"), "y": ()}}, "'y' is missing from the train"),
        ([1, 2, np.nan, 1, 2], {"kind": "regression"}, "has nan among its values"),
        ([1, 2, 3, 1, np.inf], {"kind": "regression"}, "has inf among its values"),
        (["a", "b", "a", "b", "a"], {"kind": "regression"}, "holds text"),
        (ODD[:1].repeat(5), {"kind": "regression"}, "holds text or gaps"),
        (np.array(["2020-01-01"] * 5, dtype="M8[D]"), {"kind": "regression"}, "holds dates"),
    ],
)
def test_targets_that_cannot_be(labels: Any, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^task 't': [^\n]*{words}[^\n]*$"):
        task(dataset(y=labels), **spec)


def test_a_class_that_only_the_other_data_set_has() -> None:
    other = dataset("other", train=1, y=["b", "a", "z"])
    with pytest.raises(InputError, match="data set 'other': class 'z' is evaluated but missing"):
        task(dataset(y=["a", "b", "a", "b", "a"]), other, evaluate=("other",))


def test_rows_outside_the_split_are_not_looked_at() -> None:
    data = dataset(y=["a", "b", "a", "b", "a", ""])
    data.evaluation[-1] = False
    assert task(data).classes == ("a", "b")


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_identity_is_of_the_target_alone(kind: str) -> None:
    values = [1, 2, 1, 2, 2, 1]

    def of(y: list[int], z: int) -> str | None:
        return identity(task(dataset(y=y, z=[z] * len(y)), kind=kind))

    assert of(values, 0) == of(values, 1)
    for row in range(len(values)):
        changed = list(values)
        changed[row] = 3 - changed[row]
        assert of(changed, 0) != of(values, 0)


@given(st.lists(st.sampled_from([3, 10, -2, 7]), min_size=5, max_size=20))
def test_decoding_gives_the_labels_back(labels: list[int]) -> None:
    train = len(labels) - 1
    if len(set(labels[:train])) < 2 or labels[-1] not in labels[:train]:
        return
    found = task(dataset(train=train, y=labels))
    decoded = [found.classes[code] for code in found.train_target]
    assert decoded == [str(label) for label in labels[:train]]
    assert [int(name) for name in found.classes] == sorted(set(labels[:train]))


def test_text_of_labels() -> None:
    def words(values: NDArray[Any]) -> list[str]:
        return list(as_text(values).tolist())

    assert words(np.array([1.0, np.nan, -0.0], dtype=np.float32)) == ["1", "", "0"]
    assert words(np.array(["a", None, b"b", True, 3], dtype=object)) == ["a", "", "b", "True", "3"]
    assert words(np.array([], dtype=float)) == []
    with pytest.raises(ValueError, match="decode"):
        words(np.array([b"\xff"]))
