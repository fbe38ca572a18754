"""The directed discrepancy on arrays: closed forms, invariances, a naive loop by scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import td_ray
from td_ray.arrays.discrepancy import pairwise_discrepancy
from td_ray.errors import InputError
from td_ray.heads import ClassTarget, ValueTarget, fit_heads, fit_targets
from td_ray.heads.stand_ins import predict_stand_ins

N, M = 150, 90
Views = dict[str, Any]


def views() -> tuple[Views, Views, Any, Any]:
    """Three views on the same latent variables: training, held out, values, labels."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(N + M, 6))
    whole = {
        "wide": latent @ rng.normal(size=(6, 9)) + 0.5 * rng.normal(size=(N + M, 9)),
        "narrow": latent[:, :3] + 0.1 * rng.normal(size=(N + M, 3)),
        "other": latent[:, 2:] @ rng.normal(size=(4, 4)) + 5,
    }
    values = latent[:, 0] + np.abs(latent[:, 1]) + 3
    labels = np.digitize(values, np.quantile(values, [0.3, 0.7]))
    train = {name: view[:N] for name, view in whole.items()}
    held_out = {name: view[N:] for name, view in whole.items()}
    return train, held_out, values[:N], labels[:N]


def naive(
    make: Callable[[], Any], train: Views, held_out: Views, y: Any, distance: Callable[..., float]
) -> pd.DataFrame:
    """By the definition: one fit for each cell."""
    table = pd.DataFrame(np.nan, index=list(train), columns=list(train))
    for stood_for in train:
        head = make().fit(train[stood_for], y)
        for stand_in in train:
            copy = make().fit(train[stand_in], head.predict(train[stood_for]))
            predicted = head.predict(held_out[stood_for]), copy.predict(held_out[stand_in])
            table.loc[stood_for, stand_in] = distance(*predicted)
    return table


def test_ridge_agrees_with_a_naive_loop() -> None:
    train, held_out, y, _ = views()

    def distance(u: Any, v: Any) -> float:
        u, v = u - y.mean(), v - y.mean()
        return float(2 - 2 * (u @ v) / np.sqrt((u @ u) * (v @ v)))

    expected = naive(
        lambda: make_pipeline(StandardScaler(), Ridge(alpha=0.1 * N)), train, held_out, y, distance
    )
    found = td_ray.directed_discrepancy(train, held_out, y, head="ridge", l2=0.1)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-8)
    assert (found.to_numpy() != found.to_numpy().T)[~np.eye(3, dtype=bool)].all()


def test_logistic_agrees_with_a_naive_loop() -> None:
    train, held_out, _, labels = views()

    def make() -> Any:
        head = LogisticRegression(C=1 / (1e-3 * N), tol=1e-10, max_iter=10_000)
        return make_pipeline(StandardScaler(), head)

    expected = naive(make, train, held_out, labels, lambda u, v: float((u != v).mean()))
    found = td_ray.directed_discrepancy(train, held_out, labels)
    pd.testing.assert_frame_equal(found, expected, atol=1e-12)
    assert expected.to_numpy().max() > 0.1


def test_ridge_on_labels_agrees_with_a_naive_loop() -> None:
    train, held_out, _, labels = views()

    class OneHot:
        def fit(self, x: Any, y: Any) -> OneHot:
            self.head = make_pipeline(StandardScaler(), Ridge(alpha=1e-2 * N))
            self.head.fit(x, np.eye(3)[y])
            return self

        def predict(self, x: Any) -> Any:
            return self.head.predict(x).argmax(1)

    expected = naive(OneHot, train, held_out, labels, lambda u, v: float((u != v).mean()))
    found = td_ray.directed_discrepancy(train, held_out, labels, head="ridge", l2=1e-2)
    pd.testing.assert_frame_equal(found, expected, atol=1e-12)


def test_a_larger_span_mimics_a_smaller_one_without_loss() -> None:
    """Least squares: the head on a sub-span lies in the larger span, but not the reverse."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(80, 8)), rng.normal(size=80)
    small, large = x[:, :3], x @ rng.normal(size=(8, 8))
    both = {"small": small, "large": large}
    found = td_ray.directed_discrepancy(both, both, y, head="ridge", l2=0.0)
    assert found.loc["small", "large"] == pytest.approx(0, abs=1e-12)
    assert np.diag(found) == pytest.approx(0, abs=1e-12)  # without a penalty, a projection
    share = 1.0
    for name, view in both.items():  # nested spans: 2 - 2 sqrt(R2_small / R2_large)
        design = np.column_stack([view, np.ones(80)])
        fit = design @ np.linalg.lstsq(design, y, rcond=None)[0]
        r2 = ((fit - y.mean()) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        share = r2 if name == "small" else share / r2
    assert found.loc["large", "small"] == pytest.approx(2 - 2 * np.sqrt(share), rel=1e-9)
    assert pairwise_discrepancy(both, both, y, head="ridge", l2=0.0).loc[
        "large", "small"
    ] == pytest.approx(found.loc["large", "small"], rel=1e-9)


def test_the_diagonal_is_a_head_fitted_to_itself() -> None:
    """With a penalty, what is fitted twice shrinks twice: p = H y, then H p."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=60)
    found = td_ray.directed_discrepancy({"a": x}, {"a": x}, y, head="ridge", l2=0.5)
    scaled = (x - x.mean(0)) / x.std(0)
    hat = scaled @ np.linalg.solve(scaled.T @ scaled / 60 + 0.5 * np.eye(5), scaled.T / 60)
    once = hat @ (y - y.mean())
    twice = hat @ once
    cosine = once @ twice / np.sqrt((once @ once) * (twice @ twice))
    assert found.loc["a", "a"] == pytest.approx(2 - 2 * cosine, rel=1e-9)
    assert found.loc["a", "a"] > 1e-3


def test_what_the_head_does_not_see_changes_nothing() -> None:
    train, held_out, y, labels = views()
    change: dict[str, Callable[[Any], Any]] = {
        "wide": lambda x: x[:, ::-1] * -3,
        "narrow": lambda x: x + 7,
        "other": lambda x: x * [1, 2, 3, 4],
    }
    moved = ({name: change[name](part[name]) for name in part} for part in (train, held_out))
    moved_train, moved_held_out = moved
    for target, head in ((y, "ridge"), (labels, "logistic")):
        before = td_ray.directed_discrepancy(train, held_out, target, head=head)
        after = td_ray.directed_discrepancy(moved_train, moved_held_out, target, head=head)
        pd.testing.assert_frame_equal(before, after, rtol=1e-7)
    scaled = td_ray.directed_discrepancy(train, held_out, -100 * y + 4, head="ridge")
    plain = td_ray.directed_discrepancy(train, held_out, y, head="ridge")
    pd.testing.assert_frame_equal(scaled, plain, rtol=1e-7)


def test_a_column_depends_on_its_stand_in_and_a_row_on_its_head() -> None:
    train, held_out, y, _ = views()
    whole = td_ray.directed_discrepancy(train, held_out, y, head="ridge")
    two = ("narrow", "other")
    some = [{name: part[name] for name in two} for part in (train, held_out)]
    part = td_ray.directed_discrepancy(*some, y, head="ridge")
    pd.testing.assert_frame_equal(part, whole.loc[list(two), list(two)], rtol=1e-9)


def test_a_head_that_predicts_a_constant() -> None:
    """Values have no direction; a class that is predicted always is easily reproduced."""
    train, held_out, y, _ = views()
    train["none"], held_out["none"] = np.ones((N, 2)), np.ones((M, 2))
    found = td_ray.directed_discrepancy(train, held_out, y, head="ridge")
    assert found.loc["none"].isna().all()
    assert found["none"].isna().all()
    assert found.loc["wide", ["wide", "narrow", "other"]].notna().all()
    rare = np.zeros(N, dtype=int)
    rare[:20] = 1
    for head in ("logistic", "ridge"):
        found = td_ray.directed_discrepancy(train, held_out, rare, head=head)
        assert (found.loc["none"] == 0).all()  # it predicts class 0, and so does every stand-in


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_targets_together_are_targets_one_by_one(kind: str) -> None:
    """In one stack, in several that memory allows, and alone."""
    rng = np.random.default_rng(3)
    features = torch.from_numpy(rng.normal(size=(N, 7)))
    targets = [ClassTarget(torch.from_numpy(rng.integers(0, 4, N)), 5) for _ in range(6)]
    ones = torch.ones(1, N, dtype=torch.float64)
    alone = torch.cat([fit_heads(kind, features, x, ones, 1e-2).scores(features) for x in targets])
    for memory in (2**30, 2**15):
        heads = list(fit_targets(kind, features, targets, 1e-2, memory_bytes=memory))
        assert (len(heads) == 1) == (memory == 2**30)
        together = torch.cat([each.scores(features) for each in heads])
        assert (together[:, :, 4] == -torch.inf).all()  # a class that no row has
        torch.testing.assert_close(together[:, :, :4], alone[:, :, :4], atol=2e-2, rtol=0)
    (ridge,) = fit_targets("ridge", features, [ValueTarget(features[:, 0])] * 2, 0.0)
    predicted = ridge.predict(features)
    torch.testing.assert_close(predicted, features[:, 0].expand(2, -1))


def test_targets_of_one_class_are_not_fitted() -> None:
    target = ClassTarget(torch.full((5,), 2), 3)

    def fit(targets: Any) -> Any:
        raise AssertionError("there is nothing to fit")

    (found,) = predict_stand_ins(fit, [target, target], [torch.zeros(4, 1)])
    assert found.tolist() == [[2] * 4] * 2


def test_mistakes() -> None:
    train, held_out, y, labels = views()
    with pytest.raises(InputError, match='use head "ridge"'):
        td_ray.directed_discrepancy(train, held_out, y)
    with pytest.raises(InputError, match="same names"):
        td_ray.directed_discrepancy(train, {}, labels)
    features = torch.zeros(4, 2, dtype=torch.float64)
    with pytest.raises(InputError, match="the target has 3 rows"):
        list(fit_targets("ridge", features, [ValueTarget(torch.zeros(3))], 1.0))
    with pytest.raises(InputError, match="l2 of head"):
        list(fit_targets("ridge", features, [ValueTarget(torch.zeros(4))], -1.0))
