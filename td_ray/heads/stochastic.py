"""Heads trained by stochastic gradients: the field's usual linear probe, and a small network.

A head is linear, or has one hidden layer of rectified linear units. With sample weights w
(normalised to sum to one) it descends

    sum_i w_i [ log sum_c exp(z_ic) - z_{i, y_i} ]         for class labels
    sum_i w_i (z_i - y_i)^2                                for values

It stops after its epochs, not at an optimum, and where it stops depends on its seed.
`gradient_norm` says how far from an optimum that is. What is computed, exactly:

*   Values are shifted by their weighted mean and divided by their weighted deviation for training,
    and scores are mapped back, so that nothing depends on the unit of the target.
*   An epoch visits every row with weight once, in a new order; rows without weight never enter a
    batch. A batch of b rows descends sum_i w_i loss_i / (b mean w), with the mean over the rows
    with weight. Its expectation over the order is the weighted loss above, also for a last batch
    of fewer rows.
*   The updates are those of torch.optim (see `optimizers.py`). As there by default, all parameters
    decay, biases too. The learning rate falls to zero along a cosine.
*   Initial values and the order of rows come from the head's seed alone, drawn on the CPU. The
    order depends on the number of rows with weight and on nothing else: heads of one seed on two
    networks see their rows in the same order.
*   Training is in single precision; the loss and gradient reported are recomputed in float64.
*   A class without training weight is left out of the softmax: its bias is -inf from the start,
    where its gradient is zero.

Heads that agree in architecture, optimizer, epochs and steps per epoch advance together, by batched
products over stacked parameters. Its neighbours in a stack change nothing of a head but, for some
shapes, the last digit (2e-7 was seen; most shapes agree bit for bit). The same call gives the same
bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from td_ray.errors import InputError, WorkError
from td_ray.heads.networks import Layers, Networks
from td_ray.heads.optimizers import Hyperparameters
from td_ray.heads.rows import Features
from td_ray.heads.training import BLOCK_ROWS, Problem, Stack, judge
from td_ray.memory import default_memory

__all__ = ["Epoch", "Hyperparameters", "Networks", "StochasticHeads", "fit_stochastic", "train"]


@dataclass(frozen=True)
class StochasticHeads(Networks):
    """K heads at the end of their training.

    Attributes:
        present: (K, C) bool; the classes that have weight in each head's training data. None for
            values.
        loss: (K,) float64 weighted training loss over all rows, without decay, in the target's own
            unit.
        gradient_norm: (K,) float64 max |gradient| of that loss over the parameters as they are.
        steps: (K,) int64 updates made.
    """

    present: Tensor | None
    loss: Tensor
    gradient_norm: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Epoch:
    """K heads after an epoch; a head of fewer epochs stays as it ended.

    Attributes:
        number: from 1.
        loss: (K,) the weighted training loss met during each head's latest epoch, values in units
            of their deviation; not finite for a head that has diverged.
        heads: the heads so far.
    """

    number: int
    loss: Tensor
    heads: Networks


def fit_stochastic(
    features: Features,
    target: Tensor,
    weights: Tensor,
    seeds: Tensor,
    hyperparameters: Sequence[Hyperparameters],
    n_classes: int | None,
    *,
    memory_bytes: int | None = None,
) -> StochasticHeads:
    """Train K heads on the same features to the end of their epochs.

    Args:
        features: (n, d) floating point, already scaled; a tensor, or read on demand.
        target: (n,) int64 class codes in [0, n_classes), or (n,) floating-point values.
        weights: (K, n) sample weights >= 0; each row is normalised to sum to one.
        seeds: (K,) int64, one per head.
        hyperparameters: K of them.
        n_classes: C, the number of classes of the task; None for values.
        memory_bytes: bound on what the training takes beyond features, weights and the heads
            returned, by default `td_ray.memory.default_memory()`; heads are trained in stacks that
            respect it (one head is the least that a stack can hold).

    Raises:
        InputError: shapes, values or types are wrong, or a head has fewer than two classes with
            weight.
        WorkError: the loss of a head is not finite any more; names its learning rate.
    """
    problem = _problem(features, target, weights, seeds, hyperparameters, n_classes, memory_bytes)
    networks: dict[int, Layers] = {}
    loss = torch.empty(len(weights), dtype=torch.float64, device=features.device)
    gradient_norm = torch.empty_like(loss)
    for heads in problem.stacks():
        stack = Stack(problem, heads)
        for _ in range(stack.epochs):
            stack.advance()
            _require_finite(problem, heads, stack.loss)
        trained = stack.networks()
        networks |= trained
        loss[heads], gradient_norm[heads] = judge(problem, trained)
        _require_finite(problem, heads, loss[heads])
    steps = [x.epochs * problem.batches(head)[0] for head, x in enumerate(hyperparameters)]
    return StochasticHeads(
        parameters=tuple(networks[head] for head in range(len(weights))),
        present=None if problem.present is None else problem.present.to(features.device),
        loss=loss,
        gradient_norm=gradient_norm,
        steps=torch.tensor(steps, device=features.device),
    )


def train(
    features: Features,
    target: Tensor,
    weights: Tensor,
    seeds: Tensor,
    hyperparameters: Sequence[Hyperparameters],
    n_classes: int | None,
    *,
    memory_bytes: int | None = None,
) -> Iterator[Epoch]:
    """Train as `fit_stochastic` does, and look at the heads after each epoch.

    For races between hyperparameters: stop iterating, and nothing more is computed. A head that
    diverges does not end the others; its `Epoch.loss` says so. The parameters and optimizer states
    of all heads are kept until the end, beyond `memory_bytes` if they must.

    Raises:
        InputError: as for `fit_stochastic`, before anything is trained.
    """
    problem = _problem(features, target, weights, seeds, hyperparameters, n_classes, memory_bytes)
    return _epochs(problem)


def _epochs(problem: Problem) -> Iterator[Epoch]:
    stacks = [Stack(problem, heads) for heads in problem.stacks()]
    loss = torch.empty(len(problem.weights), device=problem.features.device)
    networks: dict[int, Layers] = {}
    for number in range(1, max(stack.epochs for stack in stacks) + 1):
        for stack in stacks:
            if number <= stack.epochs:
                stack.advance()
                loss[stack.heads] = stack.loss
                networks |= stack.networks()
        parameters = tuple(networks[head] for head in range(len(networks)))
        yield Epoch(number, loss.clone(), Networks(parameters))


def _require_finite(problem: Problem, heads: list[int], loss: Tensor) -> None:
    diverged = [heads[k] for k in torch.nonzero(~loss.isfinite()).flatten().tolist()]
    if diverged:
        rate = problem.hyperparameters[diverged[0]].learning_rate
        raise WorkError(
            f"head {diverged[0]} diverged: its loss is not finite at learning rate {rate:g}; "
            "use a smaller one, or scaled features"
        )


def _problem(
    features: Features,
    target: Tensor,
    weights: Tensor,
    seeds: Tensor,
    hyperparameters: Sequence[Hyperparameters],
    n_classes: int | None,
    memory_bytes: int | None,
) -> Problem:
    """All that is asked for, once it is known to make sense."""
    _check_features(features)
    _check_target(target, len(features), n_classes)
    rows, device = len(features), features.device
    if weights.ndim != 2 or 0 in weights.shape or weights.shape[1] != rows:
        raise InputError(f"weights must be (K, {rows}), not {tuple(weights.shape)}")
    finite = bool(torch.isfinite(weights).all())
    if not finite or bool((weights < 0).any()) or bool((weights.sum(1) <= 0).any()):
        raise InputError("weights must be finite and >= 0, with a positive one in every head")
    heads = len(weights)
    if seeds.dtype != torch.int64 or tuple(seeds.shape) != (heads,):
        raise InputError(
            f"seeds must be int64, one per head, ({heads},), not {tuple(seeds.shape)} {seeds.dtype}"
        )
    if len(hyperparameters) != heads:
        raise InputError(f"there are {heads} heads but {len(hyperparameters)} hyperparameters")
    weights = weights.to("cpu", torch.float64)
    present = None
    if n_classes is None:
        target = target.to(device, torch.float64)
    else:
        mass = torch.zeros(heads, n_classes, dtype=torch.float64)
        present = mass.scatter_add(1, target.cpu().expand(heads, rows), weights) > 0
        lonely = torch.nonzero(present.sum(1) < 2)
        if len(lonely):
            raise InputError(
                f"head {int(lonely[0])} has training weight on a single class; a classification "
                "head needs at least two: use larger or stratified training subsets"
            )
        target = target.to(device)
    memory = default_memory() if memory_bytes is None else memory_bytes
    return Problem(features, target, weights, present, seeds.tolist(), hyperparameters, memory)


def _check_features(features: Features) -> None:
    shape = tuple(features.shape)
    if len(shape) != 2 or 0 in shape or not features.dtype.is_floating_point:
        raise InputError(
            f"features must be non-empty (n, d) floating point, not {shape} {features.dtype}"
        )
    for start in range(0, len(features), BLOCK_ROWS):
        if not bool(torch.isfinite(features[start : start + BLOCK_ROWS]).all()):
            raise InputError("features contain NaN or infinity; remove or impute these rows")


def _check_target(target: Tensor, rows: int, n_classes: int | None) -> None:
    if n_classes is None:
        if not target.is_floating_point() or tuple(target.shape) != (rows,):
            raise InputError(
                f"values must be floating point of shape ({rows},), "
                f"not {tuple(target.shape)} {target.dtype}"
            )
        if not bool(torch.isfinite(target).all()):
            raise InputError("values contain NaN or infinity; remove or impute these rows")
        return
    if target.dtype != torch.int64 or tuple(target.shape) != (rows,):
        raise InputError(
            f"codes must be int64 of shape ({rows},), not {tuple(target.shape)} {target.dtype}"
        )
    if int(target.min()) < 0 or int(target.max()) >= n_classes:
        raise InputError(
            f"codes must lie in 0..{n_classes - 1}, found {int(target.min())}..{int(target.max())}"
        )
