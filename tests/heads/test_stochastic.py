"""Stochastic heads: against torch.optim, against exact heads, and what must not matter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stochastic_problems import assert_close, assert_same, how, problem, values
from torch.nn.functional import cross_entropy

from td_ray.errors import InputError, WorkError
from td_ray.heads.logistic import fit_logistic
from td_ray.heads.ridge import fit_ridge
from td_ray.heads.stochastic import fit_stochastic, train


def test_a_long_descent_in_full_batches_reaches_the_exact_logistic_head() -> None:
    features, codes, weights = problem(200, 5, 3, 2)
    wanted = how(optimizer="sgd", learning_rate=0.5, weight_decay=0.0, epochs=1500, batch_size=1000)
    heads = fit_stochastic(features, codes, weights, torch.tensor([1, 2]), [wanted] * 2, 3)
    exact = fit_logistic(features, codes, weights, torch.full((2,), 1e-9).double(), 3)
    torch.testing.assert_close(heads.loss, exact.loss, atol=1e-5, rtol=0)
    assert (heads.loss >= exact.loss - 1e-7).all()
    assert (heads.gradient_norm < 1e-3).all()
    scores = heads.scores(features)
    expected = exact.weight @ features.double().T + exact.intercept[:, :, None]
    assert (scores.argmax(2) != expected.argmax(1)).double().mean() <= 0.005


def test_a_long_descent_in_full_batches_reaches_least_squares() -> None:
    features, _, weights = problem(200, 5, 3, 2)
    target = values(features)
    wanted = how(optimizer="sgd", learning_rate=0.1, weight_decay=0.0, epochs=800, batch_size=1000)
    heads = fit_stochastic(features, target, weights, torch.tensor([1, 2]), [wanted] * 2, None)
    exact = fit_ridge(features, target[:, None], weights, torch.zeros(1))
    torch.testing.assert_close(heads.loss, exact.loss[:, 0, 0], atol=1e-6, rtol=0)
    assert heads.present is None
    expected = features.double() @ exact.weight[:, 0, 0].T + exact.intercept[:, 0, 0]
    torch.testing.assert_close(heads.scores(features)[:, :, 0].T, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("memory_bytes", [1, 2**30])
@pytest.mark.parametrize("hidden", [None, 4])
@pytest.mark.parametrize("regression", [False, True])
def test_loss_and_gradient_norm_are_those_of_the_returned_heads(
    regression: bool, hidden: int | None, memory_bytes: int
) -> None:
    features, codes, weights = problem(90, 4, 3, 2)
    weights[1, codes == 2] = 0
    target = 7 * values(features) if regression else codes
    wanted = [how(hidden=hidden)] * 2
    c, seeds = None if regression else 3, torch.tensor([3, 4])
    heads = fit_stochastic(features, target, weights, seeds, wanted, c, memory_bytes=memory_bytes)
    for k in range(2):
        leaves = [x.clone().requires_grad_() for x in heads.parameters[k]]
        *first, weight, bias = leaves
        used = weights[k] > 0
        x = features[used].double()
        if first:
            x = torch.relu(x @ first[0].T + first[1])
        scores = x @ weight.T + bias
        torch.testing.assert_close(scores.detach(), heads.scores(features)[k, used])
        if regression:
            losses = (scores[:, 0] - target[used]) ** 2
        else:
            losses = cross_entropy(scores, codes[used], reduction="none")
        loss = weights[k, used] @ losses / weights[k].sum()
        gradients = torch.autograd.grad(loss, leaves)
        norm = max(float(gradient.abs().max()) for gradient in gradients)
        assert float(heads.loss[k]) == pytest.approx(float(loss.detach()), rel=1e-12)
        assert float(heads.gradient_norm[k]) == pytest.approx(norm, rel=1e-9)


def test_batches_descend_the_weighted_loss_without_bias() -> None:
    # Heads that hardly move meet, over an epoch of 7 batches, the loss of all rows.
    features, codes, weights = problem(100, 4, 3, 4)
    wanted = [how(learning_rate=1e-9, batch_size=15, epochs=1)] * 4
    arguments = (features, codes, weights, torch.arange(4), wanted, 3)
    (epoch,) = train(*arguments)
    heads = fit_stochastic(*arguments)
    torch.testing.assert_close(epoch.loss.double(), heads.loss, atol=1e-6, rtol=0)


def test_weights_count_rows_and_their_scale_does_not_matter() -> None:
    features, codes, _ = problem(40, 4, 3)
    counts = torch.from_numpy(np.random.default_rng(1).integers(0, 4, 40))
    counts[:3] = 1
    wanted, seed = [how(batch_size=1000, epochs=40)], torch.tensor([8])
    heads = fit_stochastic(features, codes, 7.0 * counts[None], seed, wanted, 3)
    repeated, labels = features.repeat_interleave(counts, 0), codes.repeat_interleave(counts)
    expected = fit_stochastic(repeated, labels, torch.ones(1, len(labels)), seed, wanted, 3)
    assert_close(heads.parameters[0], expected.parameters[0], atol=1e-4)


@pytest.mark.parametrize("regression", [False, True])
def test_rows_without_weight_never_matter(regression: bool) -> None:
    features, codes, _ = problem(60, 5, 3)
    target = values(features) if regression else codes
    weights = torch.ones(1, 60)
    weights[0, 40:] = 0
    other_features, other_target = features.clone(), target.clone()
    other_features[40:] = 1e30
    other_target[40:] = 2
    c = None if regression else 3
    for batch_size in (16, 1000):
        wanted = [how(batch_size=batch_size, hidden=4)]
        assert_same(
            fit_stochastic(features, target, weights, torch.tensor([1]), wanted, c),
            fit_stochastic(other_features, other_target, weights, torch.tensor([1]), wanted, c),
        )


@pytest.mark.parametrize("hidden", [None, 4])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_class_without_weight_is_never_predicted(optimizer: str, hidden: int | None) -> None:
    features, codes, weights = problem(90, 5, 4, 2)
    weights[1, codes == 2] = 0
    wanted = [how(optimizer=optimizer, hidden=hidden)] * 2
    heads = fit_stochastic(features, codes, weights, torch.tensor([1, 2]), wanted, 4)
    assert heads.present is not None
    assert heads.present.tolist() == [[True] * 4, [True, True, False, True]]
    scores = heads.scores(features)
    assert (scores[1, :, 2] == -torch.inf).all()
    assert scores[1, :, [0, 1, 3]].isfinite().all()
    assert (heads.parameters[1][-2][2] == 0).all()
    assert scores[0].isfinite().all()
    assert heads.loss.isfinite().all()
    assert heads.gradient_norm.isfinite().all()


@pytest.mark.parametrize("hidden", [None, 8])
@pytest.mark.parametrize(("scale", "shift"), [(-3.0, 0.0), (1e-6, 5.0), (1e6, -1e7), (1.0, 1e5)])
def test_values_may_have_any_unit(scale: float, shift: float, hidden: int | None) -> None:
    features, _, weights = problem(80, 4, 3, 2)
    target = values(features)
    arguments = (weights, torch.tensor([1, 2]), [how(hidden=hidden)] * 2, None)
    scores = fit_stochastic(features, target, *arguments).scores(features)
    moved = fit_stochastic(features, scale * target + shift, *arguments).scores(features)
    if scale > 0:
        torch.testing.assert_close((moved - shift) / scale, scores, atol=1e-3, rtol=0)
    else:  # the same network does not start from the mirrored initial values
        mirrored = fit_stochastic(features, -target, *arguments).scores(features)
        torch.testing.assert_close((moved - shift) / -scale, mirrored, atol=1e-3, rtol=0)


def test_a_constant_value_is_predicted_exactly() -> None:
    features, _, weights = problem(50, 4, 3, 2)
    target = values(features)
    target[weights[1] > 0] = 3.7
    weights[0] = weights[1]
    heads = fit_stochastic(features, target, weights, torch.tensor([1, 2]), [how()] * 2, None)
    assert (heads.scores(features) == 3.7).all()
    assert heads.loss.tolist() == [0, 0]


def test_a_hidden_layer_learns_exclusive_or_and_a_linear_head_cannot() -> None:
    corners = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]).repeat(8, 1)
    codes = (corners.prod(1) > 0).long()
    wanted = [
        how(learning_rate=0.05, epochs=100, hidden=16, weight_decay=0.0),
        how(learning_rate=0.05, epochs=100, weight_decay=0.0),
    ]
    heads = fit_stochastic(corners, codes, torch.ones(2, 32), torch.tensor([0, 0]), wanted, 2)
    right = (heads.scores(corners).argmax(2) == codes).double().mean(1)
    assert right[0] == 1
    assert right[1] <= 0.75
    assert float(heads.loss[1]) == pytest.approx(math.log(2), abs=1e-2)


def test_a_hundred_classes() -> None:
    centres = torch.randn(100, 20, generator=torch.Generator().manual_seed(0))
    codes = torch.arange(1000) % 100
    features = centres[codes] + 0.05 * torch.randn(1000, 20, generator=torch.Generator())
    wanted = [how(learning_rate=0.05, epochs=30, batch_size=64)]
    heads = fit_stochastic(features, codes, torch.ones(1, 1000), torch.tensor([0]), wanted, 100)
    scores = heads.scores(features)
    assert scores.shape == (1, 1000, 100)
    assert (scores[0].argmax(1) == codes).double().mean() > 0.99


def test_noise_of_a_short_training_is_disagreement_that_exact_heads_do_not_have() -> None:
    features, codes, _ = problem(1500, 20, 5, noise=2.0)
    held_out = features[500:]
    shuffled = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    weights, l2 = torch.ones(1, 500), torch.full((1,), 1e-3).double()
    exact = [
        fit_logistic(features[:500][rows], codes[:500][rows], weights, l2, 5)
        for rows in (torch.arange(500), shuffled)
    ]
    first, second = (
        (x.weight[0] @ held_out.double().T + x.intercept[0][:, None]).argmax(0) for x in exact
    )
    assert (first != second).double().mean() <= 1e-3  # the order of the rows is nothing to them

    def disagreement(epochs: int) -> float:
        wanted = [how(epochs=epochs, learning_rate=5e-3)] * 2
        heads = fit_stochastic(
            features[:500], codes[:500], torch.ones(2, 500), torch.tensor([1, 2]), wanted, 5
        )
        a, b = heads.scores(held_out).argmax(2)
        return float((a != b).double().mean())

    short, long = disagreement(2), disagreement(100)
    assert short > 0.05
    assert long < short / 3


def test_a_head_that_diverges_is_refused_but_does_not_end_a_race() -> None:
    features, _, weights = problem(60, 5, 3, 2)
    weights[1] = weights[0]
    target, seeds = values(features), torch.tensor([1, 2])
    wanted = [how(optimizer="sgd", epochs=30, learning_rate=rate) for rate in (0.01, 90.0)]
    endless = [replace(x, epochs=10**7) for x in wanted]  # refused as soon as it is seen
    for asked in (wanted, endless):
        with pytest.raises(WorkError, match=r"head 1 diverged.*learning rate 90"):
            fit_stochastic(features, target, weights, seeds, asked, None)
    *_, last = train(features, target, weights, seeds, wanted, None)
    assert last.loss.isfinite().tolist() == [True, False]
    alone = fit_stochastic(features, target, weights[:1], seeds[:1], wanted[:1], None)
    assert_close(last.heads.parameters[0], alone.parameters[0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"learning_rate": 0.0}, "learning_rate must be finite and > 0"),
        ({"learning_rate": -1.0}, "learning_rate must be finite and > 0"),
        ({"learning_rate": math.nan}, "learning_rate must be finite and > 0"),
        ({"learning_rate": math.inf}, "learning_rate must be finite and > 0"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"weight_decay": 100.0}, "less than 1 / learning_rate"),
        ({"weight_decay": math.nan}, "weight_decay must be"),
        ({"momentum": 1.0}, "momentum must be"),
        ({"momentum": -0.1}, "momentum must be"),
        ({"epochs": 0}, "epochs must be a whole number >= 1"),
        ({"epochs": 1.5}, "epochs must be a whole number >= 1"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"hidden": 0}, "hidden must be"),
    ],
)
def test_bad_hyperparameters(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        how(**change)


@pytest.mark.parametrize("entrance", [fit_stochastic, train])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": torch.ones(4)}, "features must be"),
        ({"features": torch.ones(4, 0)}, "features must be"),
        ({"features": torch.ones(4, 2, dtype=torch.int64)}, "features must be"),
        ({"features": torch.full((4, 2), torch.nan)}, "NaN or infinity"),
        ({"target": torch.tensor([0, 1, 2])}, "codes must be int64"),
        ({"target": torch.tensor([0.0, 1, 0, 1])}, "codes must be int64"),
        ({"target": torch.tensor([0, 1, 0, 2])}, r"0\.\.1"),
        ({"target": torch.tensor([0, 1, 0, -1])}, r"0\.\.1"),
        ({"n_classes": None}, "values must be floating point"),
        ({"target": torch.ones(4, 1), "n_classes": None}, "values must be floating point"),
        ({"target": torch.full((4,), torch.nan), "n_classes": None}, "NaN or infinity"),
        ({"weights": torch.ones(1, 3)}, "weights must be"),
        ({"weights": torch.zeros(1, 4)}, "positive"),
        ({"weights": torch.tensor([[1.0, 1, 1, -1]])}, ">= 0"),
        ({"weights": torch.tensor([[1.0, 1, 1, torch.nan]])}, "finite"),
        ({"weights": torch.tensor([[1.0, 0, 1, 0]])}, "single class"),
        ({"seeds": torch.tensor([1, 2])}, "seeds must be"),
        ({"seeds": torch.tensor([1.0])}, "seeds must be"),
        ({"hyperparameters": [how()] * 2}, "1 heads but 2"),
    ],
)
def test_bad_input(entrance: Callable[..., Any], change: dict[str, Any], words: str) -> None:
    arguments = {
        "features": torch.rand(4, 2),
        "target": torch.tensor([0, 1, 0, 1]),
        "weights": torch.ones(1, 4),
        "seeds": torch.tensor([0]),
        "hyperparameters": [how()],
        "n_classes": 2,
    }
    with pytest.raises(InputError, match=words):
        entrance(**(arguments | change))


def test_scores_refuse_another_width() -> None:
    features, codes, weights = problem()
    heads = fit_stochastic(features, codes, weights, torch.tensor([0]), [how()], 3)
    with pytest.raises(InputError, match="trained on 5 features"):
        heads.scores(features[:, :4])
