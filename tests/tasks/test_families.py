"""Families of tasks: what is drawn, how it is named, and what cannot be."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from small_data import dataset

from td_ray.errors import InputError
from td_ray.files import sha256
from td_ray.spec import TaskSpec
from td_ray.tasks import DataSet, Task, resolve_tasks


def data_of(n_classes: int, copies: int = 9, ids: Any = None) -> DataSet:
    """Every class is in both splits."""
    labels = np.tile([f"c{number}" for number in range(n_classes)], copies)
    names = np.arange(len(labels)).astype(str) if ids is None else ids
    return dataset(names.tolist(), columns={"y": labels})


def identity(task: Task) -> str | None:
    return task.target.identity(sha256)


def tasks(data: DataSet, **spec: Any) -> list[Task]:
    return resolve_tasks([TaskSpec(name="t", data="d", **spec)], {"d": data})


@given(st.integers(3, 12), st.integers(2, 12), st.integers(0, 5), st.data())
def test_partitions_have_every_class_once(n: int, size: int, seed: int, draw: Any) -> None:
    if size >= n:
        return
    family = {"kind": "superclasses", "classes": size, "count": 3, "seed": seed}
    found = tasks(data_of(n), target="y", family=family)
    assert len({task.classes for task in found}) == 3
    for task in found:
        parts = [part.split("+") for part in task.classes]
        assert sorted(name for part in parts for name in part) == sorted(
            f"c{number}" for number in range(n)
        )
        sizes = {len(part) for part in parts}
        assert max(sizes) - min(sizes) <= 1
        labels = task.data.samples.columns["y"][task.training]
        for label, code in zip(labels, task.train_target, strict=True):
            assert label in parts[code]


@given(st.integers(3, 8), st.integers(2, 7), st.integers(0, 5))
def test_subsets_have_their_size_and_only_their_samples(n: int, size: int, seed: int) -> None:
    if size >= n:
        return
    family = {"kind": "subsets", "classes": size, "count": 3, "seed": seed}
    found = tasks(data_of(n), target="y", family=family)
    assert len({task.classes for task in found}) == 3
    for task in found:
        assert len(task.classes) == size
        labels = task.data.samples.columns["y"]
        expected = task.data.training & np.isin(labels, task.classes)
        assert (task.training == expected).all()
        decoded = [task.classes[code] for code in task.train_target]
        assert decoded == labels[expected].tolist()
        assert task.n_train == len(task.validation) == len(task.halves(0)[0])
        assert (np.logical_xor(*task.halves(0))).all()


def test_all_subsets_there_are_and_none_twice() -> None:
    family = {"kind": "subsets", "classes": 2, "count": 10}
    assert len({identity(task) for task in tasks(data_of(5), target="y", family=family)}) == 10


def test_a_larger_family_begins_with_the_smaller_one() -> None:
    for family in ({"kind": "subsets", "classes": 2}, {"kind": "superclasses", "classes": 2}):
        few = tasks(data_of(6), target="y", family={**family, "count": 4})
        many = tasks(data_of(6), target="y", family={**family, "count": 8})
        both = zip(few, many[:4], strict=True)
        assert all((a.name, identity(a)) == (b.name, identity(b)) for a, b in both)


def test_one_vs_rest_adds_up() -> None:
    found = tasks(data_of(4), target="y", family="one_vs_rest")
    assert [task.name for task in found] == [f"t-c{number}" for number in range(4)]
    assert {task.family for task in found} == {"t"}
    assert (sum(task.train_target for task in found) == 1).all()
    assert found[2].classes == ("not c2", "c2")
    named = {"kind": "one_vs_rest", "labels": ["c3"]}
    (alone,) = tasks(data_of(4), target="y", family=named)
    assert identity(alone) == identity(found[3])


def test_families_of_a_coarser_labelling_and_of_a_subset() -> None:
    classes = {"x": ("c0", "c1"), "y": ("c2",), "z": ("c3",)}
    found = tasks(data_of(4), target="y", classes=classes, subset=("z", "x"), family="one_vs_rest")
    assert [task.classes for task in found] == [("not x", "x"), ("not z", "z")]
    labels = found[0].data.samples.columns["y"]
    assert set(labels[found[0].training]) == {"c0", "c1", "c3"}


@pytest.mark.parametrize("kind", ["gaussian", "signs"])
def test_drawn_targets_belong_to_sample_ids(kind: str) -> None:
    spec: dict[str, Any] = {"family": {"kind": kind, "count": 10, "seed": 3}}
    if kind == "gaussian":
        spec["kind"] = "regression"
    ids = np.arange(60).astype(str)
    order = np.random.default_rng(0).permutation(60)[:50]
    for whole, part in zip(
        tasks(data_of(2, 30, ids), **spec), tasks(data_of(2, 25, ids[order]), **spec), strict=True
    ):
        values = whole.target.values(whole.data)
        assert (part.target.values(part.data) == values[order]).all()


def test_gaussian_targets_are_standard_and_uncorrelated() -> None:
    family = {"kind": "gaussian", "count": 20}
    found = tasks(data_of(2, 2000), kind="regression", family=family)
    values = np.stack([task.target.values(task.data) for task in found])
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=0.07)
    np.testing.assert_allclose(np.cov(values), np.eye(20), atol=0.1)
    assert abs((values**4).mean() - 3) < 0.1
    assert len({identity(task) for task in found}) == 20


def test_signs_are_fair_and_uncorrelated() -> None:
    found = tasks(data_of(2, 2000), family={"kind": "signs", "count": 600})
    values = np.stack([task.target.values(task.data) for task in found[500:530]]) * 2 - 1
    np.testing.assert_allclose(np.corrcoef(values), np.eye(30), atol=0.07)
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=0.07)
    assert found[511].train_target.tolist() != found[512].train_target.tolist()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"subset": ["c0", "c9"]}, "no class is called 'c9': "),
        ({"subset": ["c0"]}, "'subset' needs at least two classes"),
        ({"family": {"kind": "one_vs_rest", "labels": ["x"]}}, "no class is called 'x'"),
        ({"family": {"kind": "subsets", "classes": 5, "count": 1}}, "there are only 4 classes"),
        (
            {"family": {"kind": "subsets", "classes": 3, "count": 5}},
            "only 4 subsets with 3 of 4 classes; ask for at most 4, not 5",
        ),
        (
            {"family": {"kind": "superclasses", "classes": 2, "count": 4}},
            "only 3 superclasses with 2 of 4 classes",
        ),
    ],
)
def test_families_that_the_data_does_not_have(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^task 't': [^\n]*{words}"):
        tasks(data_of(4), target="y", **spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"target": "y", "family": {"kind": "subsets", "classes": 2}}, "needs 'count'"),
        ({"target": "y", "family": {"kind": "subsets", "count": 2}}, "needs 'classes'"),
        ({"family": {"kind": "signs", "count": 0}}, "greater than or equal to 1"),
        ({"family": {"kind": "signs", "count": 2, "classes": 2}}, "'classes' means nothing"),
        ({"family": {"kind": "signs", "count": 2}, "target": "y"}, "draws its targets"),
        ({"family": {"kind": "gaussian", "count": 2}}, "gaussian is for kind: regression"),
        ({"target": "y", "kind": "regression", "family": "one_vs_rest"}, "kind: classification"),
        ({"target": "y", "kind": "regression", "subset": ["a"]}, "'subset' is for classification"),
        ({}, "'target' is missing"),
    ],
)
def test_lines_that_mean_nothing(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TaskSpec(name="t", data="d", **spec)


def test_two_tasks_of_one_name() -> None:
    specs = [
        TaskSpec(name="t", data="d", target="y", family="one_vs_rest"),
        TaskSpec(name="t-c1", data="d", target="y"),
    ]
    with pytest.raises(InputError, match="two tasks are called 't-c1'"):
        resolve_tasks(specs, {"d": data_of(3)})


def test_names_keep_their_order() -> None:
    found = tasks(data_of(2), family={"kind": "signs", "count": 120})
    assert found[7].name == "t-007"
    assert all(a.name < b.name for a, b in pairwise(found))
