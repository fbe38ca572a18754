"""Heads in training: what is asked for, stacks that advance together, and how they are judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from td_ray.heads.networks import (
    Layers,
    initial_layers,
    loss_and_gradients,
    stack_layers,
    unstack_layers,
)
from td_ray.heads.optimizers import Hyperparameters, Optimizer
from td_ray.heads.rows import Features, gather

# Rows that are looked at together outside batches, where memory allows.
BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Problem:
    """K heads to train on n rows of d features, known to make sense.

    Attributes:
        features: (n, d).
        target: (n,) int64 codes or float64 values, on the features' device.
        weights: (K, n) float64, on the CPU like all that decides the order of rows.
        present: (K, C) bool, on the CPU; None for values.
        seeds: K.
        hyperparameters: K.
        memory_bytes: bound on what a stack of two or more heads takes.
    """

    features: Features
    target: Tensor
    weights: Tensor
    present: Tensor | None
    seeds: list[int]
    hyperparameters: Sequence[Hyperparameters]
    memory_bytes: int

    def widths(self, head: int) -> list[int]:
        """Of a head's layers, from the features to the scores."""
        scores = 1 if self.present is None else self.present.shape[1]
        hidden = self.hyperparameters[head].hidden
        return [self.features.shape[1], *([] if hidden is None else [hidden]), scores]

    def batches(self, head: int) -> tuple[int, int]:
        """Steps per epoch, and rows per batch."""
        rows = int(self.weights[head].count_nonzero())
        batch_rows = min(self.hyperparameters[head].batch_size, rows)
        return -(-rows // batch_rows), batch_rows

    def stacks(self) -> list[list[int]]:
        """The heads that advance together, as many at a time as memory allows."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for head, wanted in enumerate(self.hyperparameters):
            key = (wanted.optimizer, wanted.epochs, wanted.hidden, *self.batches(head))
            groups.setdefault(key, []).append(head)
        stacks = []
        for heads in groups.values():
            size = max(1, self.memory_bytes // self._head_bytes(heads[0]))
            stacks += [heads[start : start + size] for start in range(0, len(heads), size)]
        return stacks

    def _head_bytes(self, head: int) -> int:
        """What training one head takes: parameters and state, its batch, its order of rows."""
        width, *layers = self.widths(head)
        parameters = sum(i * o + o for i, o in pairwise([width, *layers]))
        batch_row = (4 + self.features.dtype.itemsize) * width + 16 * sum(layers)
        return 40 * parameters + batch_row * self.batches(head)[1] + 48 * len(self.features)


class Stack:
    """Heads in training that agree in architecture, optimizer, epochs and steps per epoch.

    Attributes:
        heads: their k places among all heads.
        epochs: to train for.
        loss: (k,) float32 weighted loss met during the latest epoch.
    """

    def __init__(self, problem: Problem, heads: list[int]) -> None:
        wanted = [problem.hyperparameters[head] for head in heads]
        device = problem.features.device
        self.heads, self.epochs = heads, wanted[0].epochs
        self.loss = torch.zeros(len(heads), device=device)
        self._problem = problem
        self._used = [torch.nonzero(problem.weights[head]).squeeze(1) for head in heads]
        self._orders = [torch.Generator().manual_seed(problem.seeds[head]) for head in heads]
        starts = [
            initial_layers(order, problem.widths(head))
            for head, order in zip(heads, self._orders, strict=True)
        ]
        if problem.present is not None:
            for (*_, weight, bias), head in zip(starts, heads, strict=True):
                weight[~problem.present[head]] = 0
                bias[~problem.present[head]] = -torch.inf
        self._parameters = [x.to(device) for x in stack_layers(starts)]
        self._steps, self._batch_rows = problem.batches(heads[0])
        self._optimizer = Optimizer(wanted, self._parameters, self.epochs * self._steps)
        if problem.present is None:
            self._centre, self._deviation = moments(problem.target, problem.weights[heads])

    def advance(self) -> None:
        """One epoch: every row with weight once, for every head."""
        index, factors, shares = self._batches()
        self.loss = torch.zeros_like(self.loss)
        for step in range(self._steps):
            batch = index[:, step]
            rows = gather(self._problem.features, batch.flatten()).to(torch.float32)
            rows = rows.view(*batch.shape, -1)
            target = self._target(index[:, step])
            loss, gradients = loss_and_gradients(self._parameters, rows, target, factors[:, step])
            self._optimizer.step(self._parameters, gradients)
            self.loss += loss * shares[:, step]

    def networks(self) -> dict[int, Layers]:
        """The heads by their places, in float64, with scores in the target's own unit."""
        *hidden, weight, bias = [x.to(torch.float64) for x in self._parameters]
        if self._problem.present is None:
            centre, deviation = self._centre[:, None, None], self._deviation[:, None, None]
            weight, bias = weight * deviation, bias * deviation + centre
        return dict(zip(self.heads, unstack_layers([*hidden, weight, bias]), strict=True))

    def _batches(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of one epoch: rows (k, steps, b), their factors in the loss, rows' shares (k, steps).

        The last batch is filled up with rows that count for nothing, so that heads whose rows are
        not quite as many (halves of a split) step together.
        """
        shape = (self._steps, self._batch_rows)
        places = torch.arange(self._steps * self._batch_rows)
        index, factors, shares = [], [], []
        for head, used, order in zip(self.heads, self._used, self._orders, strict=True):
            rows = used[torch.randperm(len(used), generator=order)][places % len(used)]
            weight, real = self._problem.weights[head], (places < len(used)).view(shape)
            factor = weight[rows].view(shape) * real * (len(used) / weight.sum())
            index.append(rows.view(shape))
            factors.append((factor / real.sum(1, keepdim=True)).to(torch.float32))
            shares.append(real.sum(1) / len(used))
        device = self.loss.device
        return torch.stack(index), torch.stack(factors).to(device), torch.stack(shares).to(device)

    def _target(self, index: Tensor) -> Tensor:
        """(k, b) codes, or float32 values in units of each head's deviation."""
        target = self._problem.target[index.to(self.loss.device)]
        if self._problem.present is not None:
            return target
        unit = torch.where(self._deviation > 0, self._deviation, 1.0)
        return ((target - self._centre[:, None]) / unit[:, None]).to(torch.float32)


def moments(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(k,) weighted means and deviations of values (n,); of equal ones that value, and zero."""
    shares = (weights / weights.sum(1, keepdim=True)).to(values.device)
    lowest = torch.where(shares > 0, values, torch.inf).amin(1)
    constant = lowest == torch.where(shares > 0, values, -torch.inf).amax(1)
    mean = torch.where(constant, lowest, shares @ values)  # the product is off by rounding
    variance = (shares * (values - mean[:, None]).square()).sum(1)
    return mean, variance.sqrt()


def judge(problem: Problem, networks: dict[int, Layers]) -> tuple[Tensor, Tensor]:
    """(k,) weighted losses over all rows, and (k,) max |gradient|, in float64."""
    features, device = problem.features, problem.features.device
    loss = torch.zeros(len(networks), dtype=torch.float64, device=device)
    stacks = [stack_layers([layers]) for layers in networks.values()]
    totals = [[torch.zeros_like(x) for x in parameters] for parameters in stacks]
    row_bytes = 8 * (3 * features.shape[1] + 6 * sum(bias.shape[1] for bias in stacks[0][1::2]))
    block_rows = max(1, min(BLOCK_ROWS, problem.memory_bytes // row_bytes))
    for start in range(0, len(features), block_rows):
        part = slice(start, start + block_rows)
        block, target = features[part].to(torch.float64), problem.target[part]
        for k, (head, parameters) in enumerate(zip(networks, stacks, strict=True)):
            shares = (problem.weights[head, part] / problem.weights[head].sum()).to(device)
            used = shares > 0  # the loss of a class that the head does not know is infinite
            part_loss, gradients = loss_and_gradients(
                parameters, block[None, used], target[None, used], shares[None, used]
            )
            loss[k] += part_loss[0]
            for total, gradient in zip(totals[k], gradients, strict=True):
                total += gradient
    peaks = [torch.stack([x.abs().amax() for x in total]).amax() for total in totals]
    return loss, torch.stack(peaks)
