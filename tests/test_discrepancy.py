"""The one-call interface: results against scikit-learn, and one clear message per mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from td_ray.arrays.discrepancy import (
    pairwise_disagreement,
    pairwise_discrepancy,
    transferred_discrepancy,
)
from td_ray.errors import InputError, WorkError
from td_ray.heads import logistic

Array = np.ndarray[Any, Any]
N, M = 120, 90


@pytest.fixture
def data() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((N + M, 6))
    a = latent @ rng.standard_normal((6, 8)) + 0.5 * rng.standard_normal((N + M, 8))
    b = latent[:, :3] @ rng.standard_normal((3, 5)) + 4
    values = latent[:, 0] + np.abs(latent[:, 1]) + 3
    codes = np.digitize(values, np.quantile(values, [0.3, 0.7]))
    return {
        "a_train": a[:N],
        "b_train": b[:N],
        "a_eval": a[N:],
        "b_eval": b[N:],
        "y_train": codes[:N],
        "values": values[:N],
    }


def arguments(data: dict[str, Array], **changes: Any) -> dict[str, Any]:
    names = ("a_train", "b_train", "y_train", "a_eval", "b_eval")
    return {name: data[name] for name in names} | changes


def test_classification_agrees_with_scikit_learn(data: dict[str, Array]) -> None:
    predicted = []
    for name in "ab":
        head = make_pipeline(
            StandardScaler(), LogisticRegression(C=1 / (1e-3 * N), tol=1e-9, max_iter=10_000)
        )
        head.fit(data[f"{name}_train"], data["y_train"])
        predicted.append(head.predict(data[f"{name}_eval"]))
    expected = (predicted[0] != predicted[1]).mean()
    assert expected > 0.1
    assert transferred_discrepancy(**arguments(data)) == expected


def test_regression_agrees_with_scikit_learn(data: dict[str, Array]) -> None:
    predicted = []
    for name in "ab":
        head = make_pipeline(StandardScaler(), Ridge(alpha=0.1 * N))
        head.fit(data[f"{name}_train"], data["values"])
        predicted.append(head.predict(data[f"{name}_eval"]) - data["values"].mean())
    u, v = predicted
    expected = 2 - 2 * (u @ v) / np.sqrt((u @ u) * (v @ v))
    found = transferred_discrepancy(**arguments(data, y_train=data["values"]), head="ridge", l2=0.1)
    assert found == pytest.approx(expected, rel=1e-9)
    assert 0.01 < found < 4


def test_ridge_takes_labels_and_may_go_without_a_penalty(data: dict[str, Array]) -> None:
    found = transferred_discrepancy(**arguments(data), head="ridge", l2=0.0)
    predicted = []
    for name in "ab":
        design = np.column_stack([data[f"{name}_train"], np.ones(N)])
        held_out = np.column_stack([data[f"{name}_eval"], np.ones(M)])
        weight = np.linalg.lstsq(design, np.eye(3)[data["y_train"]], rcond=None)[0]
        predicted.append((held_out @ weight).argmax(1))
    assert found == (predicted[0] != predicted[1]).mean()


@pytest.mark.parametrize(
    "labels",
    [
        lambda codes: codes.astype("int8"),
        lambda codes: codes * 1000 - 7,
        lambda codes: np.array(["x", "longer", "y"])[codes],
        lambda codes: np.array(["x", "longer", "y"], dtype=object)[codes],
        lambda codes: ["xyz"[code] for code in codes],
        torch.from_numpy,
        list,
    ],
)
def test_labels_are_names_only(data: dict[str, Array], labels: Any) -> None:
    expected = transferred_discrepancy(**arguments(data))
    found = transferred_discrepancy(**arguments(data, y_train=labels(data["y_train"])))
    assert found == expected


def test_booleans_are_classes(data: dict[str, Array]) -> None:
    large = data["y_train"] == 2
    found = transferred_discrepancy(**arguments(data, y_train=large))
    assert found == transferred_discrepancy(**arguments(data, y_train=large.astype(int)))


@pytest.mark.parametrize(
    "convert",
    [
        torch.from_numpy,
        lambda array: torch.from_numpy(array).requires_grad_(),
        lambda array: array.tolist(),
        np.asfortranarray,
        lambda array: array[::-1][::-1],
    ],
)
def test_kinds_of_arrays_do_not_matter(data: dict[str, Array], convert: Any) -> None:
    changes = {name: convert(data[name]) for name in ("a_train", "b_train", "a_eval", "b_eval")}
    found = transferred_discrepancy(**arguments(data, **changes))
    assert found == transferred_discrepancy(**arguments(data))


def test_inputs_are_left_as_they_are(data: dict[str, Array]) -> None:
    copies = {name: array.copy() for name, array in data.items()}
    for array in data.values():
        array.setflags(write=False)
    transferred_discrepancy(**arguments(data))
    assert all(np.array_equal(data[name], copies[name]) for name in data)


@pytest.mark.parametrize("regression", [False, True])
def test_pairwise_holds_every_pair(data: dict[str, Array], regression: bool) -> None:
    task: dict[str, Any] = {"y_train": data["values" if regression else "y_train"]}
    task |= {"head": "ridge" if regression else "logistic", "l2": 1e-2}
    train = {"wide": data["a_train"], "narrow": data["b_train"], "few": data["a_train"][:, :2]}
    held_out = {"few": data["a_eval"][:, :2], "wide": data["a_eval"], "narrow": data["b_eval"]}
    table = pairwise_discrepancy(train, held_out, **task)
    assert list(table.index) == list(table.columns) == ["wide", "narrow", "few"]
    assert (np.diag(table) == 0).all()
    assert np.array_equal(table, table.T)
    assert table.attrs["reasons"] == {}
    for first in train:
        for second in train:
            alone = transferred_discrepancy(
                train[first],
                train[second],
                task["y_train"],
                held_out[first],
                held_out[second],
                head=task["head"],
                l2=task["l2"],
            )
            assert table.loc[first, second] == pytest.approx(alone, rel=1e-12)


def test_a_constant_prediction_has_no_discrepancy(data: dict[str, Array]) -> None:
    blind = {"b_train": np.ones((N, 2)), "b_eval": np.ones((M, 2))}
    with pytest.raises(WorkError, match=r"b: its predictions .* are all alike"):
        transferred_discrepancy(**arguments(data, y_train=data["values"], **blind), head="ridge")
    table = pairwise_discrepancy(
        {"a": data["a_train"], "blind": blind["b_train"], "c": data["b_train"]},
        {"a": data["a_eval"], "blind": blind["b_eval"], "c": data["b_eval"]},
        data["values"],
        head="ridge",
    )
    assert np.isnan(table.to_numpy()).tolist() == [
        [False, True, False],
        [True, True, True],
        [False, True, False],
    ]
    assert list(table.attrs["reasons"]) == ["blind"]
    with pytest.raises(WorkError, match="representation a"):
        transferred_discrepancy(**arguments(data, y_train=np.full(N, 0.1)), head="ridge")


def test_a_head_that_does_not_converge_is_named(
    data: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "MAX_EVALUATIONS", 2)
    with pytest.raises(WorkError, match="representation a: 1 of 1 logistic heads"):
        transferred_discrepancy(**arguments(data))


def _with_nan(array: Array) -> Array:
    changed = array.astype(float)
    changed[3] = np.nan
    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: {"a_train": d["a_train"][:, 0]}, "training features of a must be a non-empty"),
        (lambda d: {"b_eval": d["b_eval"][:0]}, "evaluation features of b must be a non-empty"),
        (lambda d: {"b_eval": d["b_eval"].astype(str)}, "must be numbers"),
        (lambda d: {"a_train": [[1.0], [1.0, 2.0]]}, "not a rectangular array"),
        (lambda d: {"b_train": d["b_train"][:-1]}, "training features must be on the same rows"),
        (lambda d: {"b_eval": d["b_eval"][1:]}, "evaluation features must be on the same rows"),
        (lambda d: {"b_eval": d["b_eval"][:, 1:]}, "5 columns in training but 4 in evaluation"),
        (lambda d: {"a_eval": _with_nan(d["a_eval"])}, "evaluation features of a .* row 3"),
        (lambda d: {"y_train": d["y_train"][1:]}, "one entry per training row"),
        (lambda d: {"y_train": np.eye(3)[d["y_train"]]}, "one entry per training row"),
        (lambda d: {"y_train": _with_nan(d["values"]), "head": "ridge"}, "y_train contains NaN"),
        (lambda d: {"y_train": np.zeros(N, int)}, "single class, .*0"),
        (lambda d: {"y_train": np.array([None, 1.5] * (N // 2))}, "classes"),
        (lambda d: {"y_train": np.full(N, 1j)}, "classes"),
        (lambda d: {"y_train": d["values"]}, 'use head "ridge"'),
        (lambda d: {"head": "forest"}, "unknown head 'forest'"),
        (lambda d: {"l2": 0.0}, "> 0"),
        (lambda d: {"l2": -1.0}, "> 0"),
        (lambda d: {"l2": -1.0, "head": "ridge"}, ">= 0"),
        (lambda d: {"l2": float("nan")}, "finite"),
    ],
)
def test_bad_input(data: dict[str, Array], change: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        transferred_discrepancy(**arguments(data, **change(data)))


def test_names_must_match(data: dict[str, Array]) -> None:
    train, held_out = {"a": data["a_train"]}, {"b": data["b_eval"]}
    with pytest.raises(InputError, match=r"same names; see \['a', 'b'\]"):
        pairwise_discrepancy(train, held_out, data["y_train"])
    with pytest.raises(InputError, match="no representations"):
        pairwise_discrepancy({}, {}, data["y_train"])


def test_predictions_that_are_there_already() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, 3, (5, 200))
    expected = (codes[:, None] != codes[None]).mean(2)
    words = np.array(["ant", "bee", "cat"])[codes]
    names = [f"net-{number}" for number in range(5)]
    for kind in (codes, codes.astype(np.uint8), codes - 1, words, words.astype(object), codes > 1):
        found = pairwise_disagreement(dict(zip(names, kind, strict=True)))
        same = expected if kind.dtype != bool else (kind[:, None] != kind[None]).mean(2)
        np.testing.assert_array_equal(found.to_numpy(), same)
        assert list(found) == list(found.index) == names
        there = pairwise_disagreement(dict(zip(names, kind, strict=True)), device="cpu")
        pd.testing.assert_frame_equal(there, found)
    alone = pairwise_disagreement({"a": [1, 2, 2]}, threads=1)
    assert alone.to_numpy().tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("gpu", "no device is called 'gpu'; say 'cuda', 'mps' or 'cpu'"),
        ("cuda:0", "no device is called 'cuda:0'; say 'cuda'"),
        ("cuda", "device is 'cuda', and torch sees none here"),
        ("mps", "device is 'mps', and torch sees none here"),
    ],
)
def test_devices_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, device: str, words: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=words):
        pairwise_disagreement({"a": [1, 2, 2]}, device=device)


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        ({}, "no predictions given"),
        ({"a": [1, 2], "b": [1, 2, 3]}, "same examples: a has 2, b has 3"),
        ({"a": [1, 2], "b": [0.1, 0.2]}, r"predictions of b must be .* not \(2,\) float64"),
        ({"a": [[1, 2]]}, r"predictions of a must be .* not \(1, 2\) int64"),
        ({"a": np.array([], dtype=int)}, "at least one"),
    ],
)
def test_predictions_that_are_no_labels(predictions: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        pairwise_disagreement(predictions)
