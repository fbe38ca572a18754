"""The same trained head, whatever else changes: stacks, memory, streaming, devices."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from stochastic_problems import assert_close, assert_same, how, problem, values

from td_ray.heads.networks import initial_layers
from td_ray.heads.rows import ScaledRows
from td_ray.heads.stochastic import StochasticHeads, fit_stochastic, train


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
