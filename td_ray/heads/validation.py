"""What is compared when something is chosen: the mean loss on the validation rows.

Heads that compete are fitted on the training rows outside the validation part, with equal weights,
and scored on the validation part by log loss or squared error; not by accuracy, whose ties flip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from td_ray.errors import InputError
from td_ray.heads.rows import Features, gather
from td_ray.heads.targets import ClassTarget, Target

# Scores are made over blocks of rows, so that those of one block stay below this.
BLOCK_BYTES = 256 * 2**20

Loss = Callable[[Tensor, Target], Tensor]
"""(H, m) losses of scores (H, m, c) on a target of m rows."""


class Parameters(Protocol):
    """The parameters of H fitted heads with c scores each."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, c)."""

    def scores(self, features: Tensor) -> Tensor:
        """(H, m, c) float64 scores of (m, d) features; -inf for a class that is never predicted."""


def block_rows(parameters: Parameters, width: int) -> int:
    """How many rows of d features, and of all heads' scores of them, make one block."""
    heads, outputs = parameters.shape
    return max(1, BLOCK_BYTES // (8 * max(heads * outputs, width)))


def competing_weights(target: Target, validation: Tensor) -> Tensor:
    """(n,) float64: one outside the validation part, zero within.

    Raises:
        InputError: validation rows that are malformed, none or all of the rows.
    """
    if validation.dtype != torch.bool or validation.shape != (len(target),):
        raise InputError(
            f"validation must be a bool per training row, ({len(target)},), "
            f"not {tuple(validation.shape)} {validation.dtype}"
        )
    if bool(validation.all()) or not bool(validation.any()):
        raise InputError("the validation part must hold some training rows, and not all of them")
    return (~validation).to(torch.float64)


def scorable_rows(target: Target, validation: Tensor) -> Tensor:
    """(n,) bool: the validation rows whose class the other rows know.

    The rest are left out: their log loss is infinite for every head.

    Raises:
        InputError: there is no such row.
    """
    if not isinstance(target, ClassTarget):
        return validation
    known = torch.zeros(target.n_classes, dtype=torch.bool, device=target.codes.device)
    known[target.codes[~validation]] = True
    chosen = validation & known[target.codes]
    if not bool(chosen.any()):
        raise InputError("no validation row has a class that occurs among the other training rows")
    return chosen


def mean_losses(
    parameters: Parameters, features: Features, target: Target, chosen: Tensor, loss: Loss
) -> Tensor:
    """(H,) float64 mean losses of H heads on the chosen rows (n,), read in blocks."""
    positions = torch.nonzero(chosen)[:, 0].cpu()
    total: Tensor | float = 0.0
    for index in torch.split(positions, block_rows(parameters, features.shape[1])):
        scores = parameters.scores(gather(features, index))
        total = total + loss(scores, target.rows(index.to(scores.device))).sum(1)
    assert isinstance(total, Tensor)
    return total / len(positions)


def log_loss(scores: Tensor, target: Target) -> Tensor:
    """(H, m) log loss of class labels, natural logarithm."""
    assert isinstance(target, ClassTarget)
    labelled = scores[:, torch.arange(len(target), device=scores.device), target.codes]
    return scores.logsumexp(2) - labelled


def squared_error(scores: Tensor, target: Target) -> Tensor:
    """(H, m) squared error of values."""
    assert not isinstance(target, ClassTarget)
    return (scores.squeeze(2) - target.values.to(scores)).square()
