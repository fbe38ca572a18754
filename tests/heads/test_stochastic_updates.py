"""Trained heads step by step: those of torch.optim, by gradients of the loss."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stochastic_problems import assert_close, how, problem
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from td_ray.heads.networks import initial_layers, loss_and_gradients, stack_layers
from td_ray.heads.optimizers import Hyperparameters, Optimizer
from td_ray.heads.stochastic import train


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
