"""Small networks, stacked: their scores, initial values, losses and gradients.

A network is linear, or has one hidden layer of rectified linear units. Alone it is a tuple of
weights (outputs, inputs) and biases (outputs,), layer by layer; a stack of k networks is a list of
weights (k, outputs, inputs) and biases (k, outputs, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import linear

from td_ray.errors import InputError

Layers = tuple[Tensor, ...]
"""One network: weight, bias, and once more if it has a hidden layer, from features to scores."""


@dataclass(frozen=True)
class Networks:
    """K heads by their parameters.

    Attributes:
        parameters: per head (weight (c, d), bias (c,)), or with a hidden layer of h units (weight
            (h, d), bias (h,), weight (c, h), bias (c,)); float64, on the features' device. The last
            bias is -inf for a class without training weight.
    """

    parameters: tuple[Layers, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(K, c)."""
        return len(self.parameters), len(self.parameters[0][-1])

    def scores(self, features: Tensor) -> Tensor:
        """(K, m, c) float64 scores of features (m, d): log odds up to a constant, or values.

        Raises:
            InputError: the features have another width than the training features.
        """
        width = self.parameters[0][0].shape[1]
        if features.ndim != 2 or features.shape[1] != width:
            raise InputError(
                f"the heads were trained on {width} features per row; "
                f"they cannot score {tuple(features.shape)}"
            )
        features = features.to(torch.float64)
        return torch.stack([_score(head, features) for head in self.parameters])


def _score(layers: Layers, rows: Tensor) -> Tensor:
    *hidden, weight, bias = layers
    if hidden:
        rows = linear(rows, *hidden).clamp_(min=0)
    return linear(rows, weight, bias)


def initial_layers(order: torch.Generator, widths: list[int]) -> Layers:
    """A network from the features' width to the scores', with the values that torch.nn.Linear has.

    They are uniform within 1 / sqrt(inputs), from a generator of their own that takes one draw from
    `order`: the order of rows that is drawn next does not depend on the widths.
    """
    seed = int(torch.randint(2**62, (), generator=order))
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for inputs, outputs in pairwise(widths):
        bound = inputs**-0.5
        for shape in ((outputs, inputs), (outputs,)):
            layers.append(torch.empty(shape).uniform_(-bound, bound, generator=generator))
    return tuple(layers)


def stack_layers(networks: list[Layers]) -> list[Tensor]:
    """Networks of one architecture as stacked parameters."""
    stacked = [torch.stack(parameters) for parameters in zip(*networks, strict=True)]
    return [x if x.ndim == 3 else x[:, :, None] for x in stacked]


def unstack_layers(parameters: list[Tensor]) -> list[Layers]:
    """The networks of a stack, one by one."""
    biases = [bias.squeeze(2) for bias in parameters[1::2]]
    layers = [x for pair in zip(parameters[::2], biases, strict=True) for x in pair]
    return list(zip(*layers, strict=True))


def loss_and_gradients(
    parameters: list[Tensor], rows: Tensor, target: Tensor, factors: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Sums of factor times loss over the rows of each network in a stack, and their gradients.

    Args:
        parameters: of k networks with c scores each.
        rows: (k, b, d), every network's own.
        target: (k, b) int64 codes for cross-entropy, or floating-point values (c is 1) for squared
            error.
        factors: (k, b).

    Returns:
        (k,) losses, and gradients like the parameters.
    """
    # Outputs before rows: a softmax across long runs of rows is many times as fast on a CPU.
    *hidden, weight, bias = parameters
    inputs = rows.mT
    if hidden:
        inputs = torch.baddbmm(hidden[1], hidden[0], inputs).clamp_(min=0)
    scores = torch.baddbmm(bias, weight, inputs)
    if target.is_floating_point():
        error = scores.squeeze(1) - target
        loss = (factors * error.square()).sum(1)
        residual = (2 * factors * error)[:, None]
    else:
        labels = target[:, None]
        logarithms = torch.log_softmax(scores, 1)
        loss = -(factors * logarithms.gather(1, labels).squeeze(1)).sum(1)
        residual = logarithms.exp_().mul_(factors[:, None])
        residual.scatter_add_(1, labels, -factors[:, None])
    gradients = [residual @ inputs.mT, residual.sum(2, keepdim=True)]
    if hidden:
        back = (weight.mT @ residual).mul_(inputs > 0)
        gradients = [back @ rows, back.sum(2, keepdim=True), *gradients]
    return loss, gradients
