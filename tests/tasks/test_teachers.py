"""Random linear teachers: linear in the inputs, balanced, and not read before they are needed."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kurtosis
from small_data import dataset

from td_ray.errors import InputError
from td_ray.files import sha256
from td_ray.spec import TaskSpec
from td_ray.tasks import DataSet, Task, resolve_tasks, teachers
from td_ray.tasks.inputs import Texts

RANDOM = np.random.default_rng(0)
POINTS = RANDOM.normal(size=(300, 7)) * np.arange(1, 8) + 50
TRAINING = slice(0, 200)  # the first two thirds, see small_data.dataset


def data_of(inputs: Any, name: str = "d", inputs_are: str = "bytes") -> DataSet:
    ids = [f"s{number}" for number in range(len(inputs))]
    return dataset(ids, inputs, name, inputs_are=inputs_are)


def tasks(*data: DataSet, count: int = 5, classes: int | None = None, **spec: Any) -> list[Task]:
    family = {"kind": "teachers", "count": count, "classes": classes, "seed": spec.pop("seed", 0)}
    line = TaskSpec(name="t", data="d", family=family, **spec)
    return resolve_tasks([line], {each.name: each for each in data})


def values(*data: DataSet, of: str = "d", **spec: Any) -> NDArray[Any]:
    by_name = {each.name: each for each in data}
    return np.stack([task.target.values(by_name[of]) for task in tasks(*data, **spec)])


def test_a_score_is_a_linear_function_of_the_input_with_mean_0_and_deviation_1() -> None:
    found = values(data_of(POINTS), kind="regression")
    design = np.column_stack([POINTS, np.ones(300)])
    fitted = design @ np.linalg.lstsq(design, found.T, rcond=None)[0]
    np.testing.assert_allclose(fitted.T, found, atol=1e-9)
    np.testing.assert_allclose(found[:, TRAINING].mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(found[:, TRAINING].std(1), 1)
    assert np.linalg.matrix_rank(found) == 5


def test_two_classes_are_cut_at_the_median_of_the_training_split() -> None:
    scores = values(data_of(POINTS), kind="regression")
    codes = values(data_of(POINTS))
    middle = np.median(scores[:, TRAINING], axis=1, keepdims=True)
    np.testing.assert_array_equal(codes, scores > middle)
    assert (codes[:, TRAINING].sum(1) == 100).all()
    assert {task.classes for task in tasks(data_of(POINTS))} == {("-1", "+1")}


def test_more_classes_are_the_largest_of_as_many_scores() -> None:
    found = tasks(data_of(POINTS), classes=4)
    weights = found[2].target.teachers._weights(2, 7)  # type: ignore[attr-defined]
    scores = POINTS @ weights
    scores = (scores - scores[TRAINING].mean(0)) / scores[TRAINING].std(0)
    np.testing.assert_array_equal(found[2].target.values(found[2].data), scores.argmax(1))
    assert found[2].classes == ("0", "1", "2", "3")
    assert found[2].target.values(found[2].data).dtype == np.int64


def test_weights_are_standard_normal_and_independent() -> None:
    """Unit vectors as inputs show them."""
    scores = values(data_of(np.eye(3000)), count=12, kind="regression")
    np.testing.assert_allclose(np.corrcoef(scores), np.eye(12), atol=0.08)
    assert abs(kurtosis(scores.ravel())) < 0.1
    others = values(data_of(np.eye(3000)), count=2, kind="regression", seed=1)
    assert abs(np.corrcoef(scores[0], others[0])[0, 1]) < 0.08


@pytest.mark.parametrize("classes", [None, 3])
def test_a_teacher_depends_neither_on_the_others_nor_on_memory(
    classes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = values(data_of(POINTS), count=9, classes=classes)
    np.testing.assert_array_equal(values(data_of(POINTS), count=4, classes=classes), many[:4])
    monkeypatch.setattr(teachers, "BYTES_AT_ONCE", 1)
    np.testing.assert_array_equal(values(data_of(POINTS), count=9, classes=classes), many)


def test_images_are_averaged_over_cells() -> None:
    image = RANDOM.random((64, 96, 3))
    cells = image.reshape(32, 2, 32, 3, 3).mean((1, 3))
    np.testing.assert_allclose(teachers.averaged(image), cells)
    np.testing.assert_allclose(
        teachers.averaged(np.full((45, 70), 7, np.uint8)), np.full((32, 32), 7)
    )
    small = RANDOM.integers(0, 255, (28, 28), np.uint8)
    np.testing.assert_array_equal(teachers.averaged(small), small)


def test_images_of_different_sizes_are_alike() -> None:
    small = [RANDOM.random((32, 32)) for _ in range(30)]
    large = [np.kron(image, np.ones((2, 3))) for image in small]
    found = values(data_of(small), kind="regression")
    np.testing.assert_allclose(values(data_of(large), kind="regression"), found, atol=1e-9)


def test_a_shifted_data_set_is_judged_by_the_same_teachers() -> None:
    shifted = data_of(POINTS[:30] + 5, "shifted")
    data = data_of(POINTS)
    both = values(data, shifted, of="shifted", kind="regression", evaluate=("d", "shifted"))
    whole = values(data_of(np.concatenate([POINTS, POINTS[:30] + 5])), kind="regression")
    slope = [np.polyfit(whole[k, :300], values(data, kind="regression")[k], 1) for k in range(5)]
    expected = np.stack([np.polyval(slope[k], whole[k, 300:]) for k in range(5)])
    np.testing.assert_allclose(both, expected, atol=1e-9)


def never() -> Any:
    raise AssertionError("inputs are read")


def test_neither_tasks_nor_their_identity_read_inputs() -> None:
    data = data_of(POINTS)
    object.__setattr__(data.samples, "inputs", never)
    for task in tasks(data, classes=3):
        assert task.n_train == 200
        assert task.evaluation_rows("d").sum() == 100
        assert task.target.identity(sha256) is not None
        assert task.target.reads_inputs
    with pytest.raises(AssertionError, match="inputs are read"):
        task.train_target  # noqa: B018


def test_what_was_read_travels() -> None:
    data = data_of(POINTS)
    object.__setattr__(data.samples, "inputs", partial(np.array, POINTS))
    task = tasks(data)[3]
    expected = task.train_target
    object.__setattr__(task.data.samples, "inputs", never)
    travelled = pickle.loads(pickle.dumps(task))
    np.testing.assert_array_equal(travelled.train_target, expected)
    with pytest.raises(AssertionError, match="inputs are read"):
        travelled.data.inputs  # noqa: B018


def test_identity_covers_inputs_seed_classes_and_the_training_split() -> None:
    def found(data: DataSet, **spec: Any) -> list[str | None]:
        return [task.target.identity(sha256) for task in tasks(data, **spec)]

    data = data_of(POINTS)
    first = found(data)
    assert len(set(first)) == 5
    assert found(data, count=2) == first[:2]
    for other in (
        found(data, seed=1),
        found(data, classes=3),
        found(data, kind="regression"),
        found(data_of(POINTS, inputs_are="others")),
        found(data_of(POINTS[:90])),
    ):
        assert not set(other) & set(first)
    assert set(found(data_of(POINTS, inputs_are=None))) == {None}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "spec", "words"),
    [
        (Texts(("a",) * 9), {}, "numbers, and it has texts"),
        (np.ones((9, 3)), {}, "do not vary over its training split"),
        ([np.ones((8, 8)), np.ones((8, 9))] * 5, {}, "inputs of 64 and of 72 numbers; .* 32 x 32"),
        (POINTS[:9], {"classes": 8}, r"into [2-7] of 8 classes; ask for fewer classes"),
    ],
)
def test_inputs_that_cannot_be_taught(inputs: Any, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^task 't'.*{words}"):
        values(data_of(inputs), **spec)


def test_inputs_of_another_width() -> None:
    other = data_of(POINTS[:9, :4], "e")
    with pytest.raises(InputError, match="'e': inputs of 4 numbers at sample 's0' and of 7 at the"):
        values(data_of(POINTS), other, evaluate=("d", "e"))


def test_a_data_set_without_inputs() -> None:
    with pytest.raises(InputError, match="'d' has labels but no inputs"):
        tasks(dataset(["a", "b", "c"]))
