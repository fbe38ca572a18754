"""Stochastic heads: against torch.optim, against exact heads, and what must not matter."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from td_ray.errors import InputError, WorkError
from td_ray.heads.logistic import fit_logistic
from td_ray.heads.networks import initial_layers, loss_and_gradients, stack_layers
from td_ray.heads.optimizers import Hyperparameters, Optimizer
from td_ray.heads.ridge import fit_ridge
from td_ray.heads.rows import ScaledRows
from td_ray.heads.stochastic import StochasticHeads, fit_stochastic, train


def how(**changes: Any) -> Hyperparameters:
    usual: dict[str, Any] = {
        "optimizer": "adamw",
        "learning_rate": 1e-2,
        "weight_decay": 1e-2,
        "epochs": 3,
        "batch_size": 16,
    }
    return Hyperparameters(**(usual | changes))


def problem(
    n: int = 60, d: int = 5, classes: int = 3, heads: int = 1, *, noise: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, overlapping classes, and weights: equal for the first head, else some zero."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, d))
    directions = np.random.default_rng(99).standard_normal((d, classes))
    codes = (features @ directions + noise * rng.gumbel(size=(n, classes))).argmax(1)
    codes[:classes] = np.arange(classes)
    weights = rng.random((heads, n)) * (rng.random((heads, n)) < 0.7)
    weights[:, :classes] = 1
    weights[0] = 1
    return torch.from_numpy(features).float(), torch.from_numpy(codes), torch.from_numpy(weights)


def values(features: Tensor, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    truth = features.double().numpy() @ rng.standard_normal(features.shape[1])
    return torch.from_numpy(3 + truth + 0.5 * rng.standard_normal(len(truth)))


def assert_same(left: StochasticHeads, right: StochasticHeads) -> None:
    """The same bytes."""
    for ours, theirs in zip(left.parameters, right.parameters, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert torch.equal(left.loss, right.loss)
    assert torch.equal(left.gradient_norm, right.gradient_norm)


def assert_close(left: tuple[Tensor, ...], right: tuple[Tensor, ...], atol: float) -> None:
    for ours, theirs in zip(left, right, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), atol=atol, rtol=0)


def by_torch(
    features: Tensor, codes: Tensor, weights: Tensor, seed: int, wanted: Hyperparameters, c: int
) -> list[tuple[Tensor, ...]]:
    """One head by torch.nn and torch.optim in a plain loop; its parameters after each epoch."""
    order = torch.Generator().manual_seed(seed)
    widths = [features.shape[1], *([] if wanted.hidden is None else [wanted.hidden]), c]
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    network = (
        nn.Sequential(*layers)
        if len(layers) == 1
        else nn.Sequential(layers[0], nn.ReLU(), layers[1])
    )
    parameters = list(network.parameters())
    with torch.no_grad():
        for ours, start in zip(parameters, initial_layers(order, widths), strict=True):
            ours.copy_(start)
    rate, decay = wanted.learning_rate, wanted.weight_decay
    optimizer: torch.optim.Optimizer
    if wanted.optimizer == "adamw":
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    else:
        optimizer = torch.optim.SGD(parameters, lr=rate, momentum=wanted.momentum, nesterov=True)
    used = torch.nonzero(weights).squeeze(1)
    steps = wanted.epochs * math.ceil(len(used) / wanted.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    history = []
    for _ in range(wanted.epochs):
        for part in torch.randperm(len(used), generator=order).split(wanted.batch_size):
            rows = used[part]
            losses = cross_entropy(network(features[rows]), codes[rows], reduction="none")
            optimizer.zero_grad()
            ((weights[rows] * losses).mean() / weights[used].mean()).backward()
            if wanted.optimizer == "sgd":
                with torch.no_grad():
                    for parameter in parameters:
                        parameter.mul_(1 - optimizer.param_groups[0]["lr"] * decay)
            optimizer.step()
            schedule.step()
        history.append(tuple(x.detach().clone() for x in parameters))
    return history


@pytest.mark.parametrize("batch_size", [7, 16, 1000])
@pytest.mark.parametrize("hidden", [None, 8])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("classes", [2, 5])
def test_every_epoch_is_that_of_torch_optim(
    optimizer: str, hidden: int | None, batch_size: int, classes: int
) -> None:
    features, codes, weights = problem(80, 6, classes, 3)
    wanted = [
        how(
            optimizer=optimizer,
            hidden=hidden,
            batch_size=batch_size,
            epochs=4,
            learning_rate=0.02 * (k + 1),
            weight_decay=0.1 * k,
            momentum=0.9 - 0.2 * k,
        )
        for k in range(3)
    ]
    seeds = torch.tensor([5, 6, 7])
    epochs = list(train(features, codes, weights, seeds, wanted, classes))
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    for k in range(3):
        expected = by_torch(features, codes, weights[k], 5 + k, wanted[k], classes)
        for epoch, parameters in zip(epochs, expected, strict=True):
            assert_close(epoch.heads.parameters[k], parameters, atol=2e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_updates_are_those_of_torch_optim_to_the_last_digits(optimizer: str) -> None:
    wanted = [
        how(optimizer=optimizer, learning_rate=0.3, weight_decay=0.0, momentum=0.5),
        how(optimizer=optimizer, learning_rate=0.003, weight_decay=0.7, momentum=0.9),
    ]
    generator = torch.Generator().manual_seed(0)
    stacked = [torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)]
    total = 30
    ours = Optimizer(wanted, stacked, total)
    alone = [nn.Parameter(stacked[0][k].clone()) for k in range(2)]
    theirs: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([p], lr=h.learning_rate, weight_decay=h.weight_decay)
        if optimizer == "adamw"
        else torch.optim.SGD([p], lr=h.learning_rate, momentum=h.momentum, nesterov=True)
        for p, h in zip(alone, wanted, strict=True)
    ]
    for step in range(total):
        gradient = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
        for k in range(2):
            rate = wanted[k].learning_rate * (1 + math.cos(math.pi * step / total)) / 2
            theirs[k].param_groups[0]["lr"] = rate
            if optimizer == "sgd":
                alone[k].data.mul_(1 - rate * wanted[k].weight_decay)
            alone[k].grad = gradient[k].clone()
            theirs[k].step()
        ours.step(stacked, [gradient])
        torch.testing.assert_close(stacked[0], torch.stack([*alone]).data, atol=0, rtol=1e-12)


@settings(derandomize=True, deadline=None, max_examples=30, database=None)
@given(
    k=st.integers(1, 3),
    b=st.integers(1, 6),
    d=st.integers(1, 4),
    c=st.integers(2, 4),
    hidden=st.sampled_from([None, 1, 5]),
    regression=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_gradients_are_those_of_the_loss(
    k: int, b: int, d: int, c: int, hidden: int | None, regression: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    c = 1 if regression else c
    widths = [d, *([] if hidden is None else [hidden]), c]
    networks = [initial_layers(generator, widths) for _ in range(k)]
    leaves = [[x.double().requires_grad_() for x in layers] for layers in networks]
    rows = torch.randn(k, b, d, dtype=torch.float64, generator=generator)
    factors = torch.rand(k, b, dtype=torch.float64, generator=generator)
    target = torch.randint(0, c, (k, b), generator=generator)
    if regression:
        target = torch.randn(k, b, dtype=torch.float64, generator=generator)
    stacked = stack_layers([tuple(x.detach() for x in layers) for layers in leaves])
    loss, gradients = loss_and_gradients(stacked, rows, target, factors)
    for number, (*first, weight, bias) in enumerate(leaves):
        x = rows[number]
        if first:
            x = torch.relu(x @ first[0].T + first[1])
        scores = x @ weight.T + bias
        if regression:
            losses = (scores[:, 0] - target[number]) ** 2
        else:
            losses = cross_entropy(scores, target[number], reduction="none")
        expected = (factors[number] * losses).sum()
        expected.backward()
        assert float(loss[number]) == pytest.approx(float(expected.detach()), rel=1e-12)
        for ours, leaf in zip(gradients, leaves[number], strict=True):
            assert leaf.grad is not None
            gradient = ours[number].view(leaf.shape)
            torch.testing.assert_close(gradient, leaf.grad, atol=1e-12, rtol=1e-10)


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


@pytest.mark.parametrize("hidden", [None, 6])
def test_the_same_seed_gives_the_same_bytes_and_another_one_another_head(
    hidden: int | None,
) -> None:
    features, codes, weights = problem(100, 5, 3, 2)
    weights[1] = weights[0]
    wanted = [how(hidden=hidden)] * 2

    def fit(*seeds: int) -> StochasticHeads:
        return fit_stochastic(features, codes, weights, torch.tensor(seeds), wanted, 3)

    assert_same(fit(0, 1), fit(0, 1))
    twins, others = fit(4, 4), fit(4, -5)
    assert_close(twins.parameters[0], twins.parameters[1], atol=0)
    assert (others.parameters[0][0] - others.parameters[1][0]).abs().max() > 1e-3


def test_heads_of_one_seed_see_the_rows_in_one_order_whatever_the_width() -> None:
    # Where all features are zero, a step maps the bias to (1 - 2 rate) bias + 2 rate y. Two heads
    # that meet the values in one order differ by what is left of their initial biases.
    features, _, weights = problem(50, 1, 2)
    target = values(features)
    wanted = [how(batch_size=1, epochs=1, optimizer="sgd", momentum=0.0, weight_decay=0.0)]

    def biases(width: int) -> tuple[float, float]:
        start = initial_layers(torch.Generator().manual_seed(3), [width, 1])[1]
        zeros = torch.zeros(50, width)
        heads = fit_stochastic(zeros, target, weights, torch.tensor([3]), wanted, None)
        return float(start), float(heads.parameters[0][1] / target.std(correction=0))

    (start, end), (other_start, other_end) = biases(1), biases(9)
    rates = [1e-2 * (1 + math.cos(math.pi * step / 50)) / 2 for step in range(50)]
    left = math.prod(1 - 2 * rate for rate in rates)
    assert end - other_end == pytest.approx(left * (start - other_start), abs=1e-6)


@pytest.mark.parametrize("memory_bytes", [1, 2**30])
def test_a_head_is_the_same_whatever_else_is_in_its_stack(memory_bytes: int) -> None:
    features, codes, weights = problem(150, 7, 4, 6)
    wanted = [
        how(),
        how(learning_rate=0.1, weight_decay=0.0),
        how(optimizer="sgd", momentum=0.3),
        how(hidden=5),
        how(epochs=2),
        how(batch_size=150),
    ]
    seeds = torch.arange(6)
    together = fit_stochastic(features, codes, weights, seeds, wanted, 4, memory_bytes=memory_bytes)
    assert together.steps.tolist()[0] == 30
    assert together.steps.tolist()[5] == 3
    for k in range(6):
        one = slice(k, k + 1)
        alone = fit_stochastic(features, codes, weights[one], seeds[one], wanted[one], 4)
        assert_close(together.parameters[k], alone.parameters[0], atol=1e-6)
        assert together.steps[k] == alone.steps[0]


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_streamed_features_give_the_heads_of_features_in_memory(dtype: torch.dtype) -> None:
    features, codes, weights = problem(100, 5, 3, 3)
    features = features.to(dtype)
    arguments = (codes, weights, torch.arange(3), [how(), how(hidden=3), how(epochs=1)], 3)
    assert_same(
        fit_stochastic(ScaledRows(features), *arguments), fit_stochastic(features, *arguments)
    )


def test_training_ends_where_fitting_ends_and_a_finished_head_stays() -> None:
    features, codes, _ = problem(100, 5, 3)
    wanted, seeds = [how(epochs=2), how(epochs=4)], torch.tensor([1, 2])
    arguments = (features, codes, torch.ones(2, 100), seeds, wanted, 3)
    heads = fit_stochastic(*arguments)
    epochs = list(train(*arguments))
    assert len(epochs) == 4
    torch.testing.assert_close(
        epochs[-1].heads.scores(features), heads.scores(features), atol=0, rtol=0
    )
    assert len({float(epoch.loss[1]) for epoch in epochs}) == 4
    second, last = epochs[1], epochs[-1]
    assert_close(second.heads.parameters[0], last.heads.parameters[0], atol=0)
    assert second.loss[0] == last.loss[0]
    assert (second.heads.parameters[1][0] != last.heads.parameters[1][0]).any()


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


def test_a_stack_keeps_to_its_memory() -> None:
    script = """
import resource, torch
from td_ray.heads.stochastic import Hyperparameters, fit_stochastic
torch.set_num_threads(1)
features, codes = torch.randn(2000, 1000), torch.arange(2000) % 10
def fit(heads):
    wanted = Hyperparameters(
        optimizer="adamw", learning_rate=1e-3, weight_decay=0.0, epochs=1, batch_size=1000
    )
    weights = torch.ones(1, 2000).expand(heads, 2000)
    fit_stochastic(
        features, codes, weights, torch.arange(heads), [wanted] * heads, 10, memory_bytes=2**26
    )
fit(4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fit(100)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # A hundred batches at once would take 400 MB; the heads returned take 8 MB.
    assert int(run.stdout) < 2**27


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("regression", [False, True])
def test_cuda_agrees_with_cpu(regression: bool) -> None:
    features, codes, weights = problem(400, 30, 5, 6)
    target, c = (values(features), None) if regression else (codes, 5)
    seeds = torch.arange(6)
    wanted = [how(learning_rate=1e-3 * (k + 1), hidden=8 if k % 2 else None) for k in range(6)]
    here = fit_stochastic(features, target, weights, seeds, wanted, c)
    there = fit_stochastic(features.cuda(), target.cuda(), weights.cuda(), seeds, wanted, c)
    again = fit_stochastic(features.cuda(), target.cuda(), weights.cuda(), seeds, wanted, c)
    assert_same(there, again)
    assert there.loss.is_cuda
    torch.testing.assert_close(there.loss.cpu(), here.loss, atol=1e-4, rtol=0)
    scores = there.scores(features.cuda()).cpu()
    torch.testing.assert_close(scores, here.scores(features), atol=1e-2, rtol=0)
