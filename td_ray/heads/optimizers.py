"""SGD and AdamW for stacks of heads, each head with hyperparameters of its own.

torch.optim has one learning rate for a tensor; here a tensor holds the same parameter of many
heads. The arithmetic is that of torch.optim.SGD with Nesterov momentum (Sutskever et al., "On the
importance of initialization and momentum in deep learning", ICML 2013) and of torch.optim.AdamW
(Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019), with a decay that is
decoupled for both. The learning rate falls from its peak to zero along a cosine over all steps
(Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017; here
without restarts).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from td_ray.errors import InputError
from td_ray.registry import closest

OPTIMIZERS = ("sgd", "adamw")
# AdamW's decay rates of the two moments, and what keeps its quotient finite; torch.optim's values.
FIRST_MOMENT, SECOND_MOMENT, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """How one head is trained.

    Attributes:
        optimizer: "sgd" (Nesterov momentum) or "adamw".
        learning_rate: its peak, at the first step; it falls to zero along a cosine.
        weight_decay: decoupled; a step shrinks parameters by learning rate times this.
        epochs: passes over the rows with weight.
        batch_size: rows per step.
        momentum: of "sgd"; 0 is plain gradient descent.
        hidden: units of the hidden layer; None for a linear head.

    Raises:
        InputError: a value out of its range.
    """

    optimizer: str
    learning_rate: float
    weight_decay: float
    epochs: int
    batch_size: int
    momentum: float = 0.9
    hidden: int | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            hint = closest(self.optimizer, OPTIMIZERS)
            raise InputError(f"unknown optimizer '{self.optimizer}': {hint}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"learning_rate must be finite and > 0, not {self.learning_rate}")
        # From 1 on, a step would turn the sign of every parameter.
        if not 0 <= self.weight_decay * self.learning_rate < 1:
            raise InputError(
                f"weight_decay must be >= 0 and less than 1 / learning_rate, "
                f"not {self.weight_decay} at learning_rate {self.learning_rate}"
            )
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum must be >= 0 and < 1, not {self.momentum}")
        for name in ("epochs", "batch_size", "hidden"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be a whole number >= 1, not {value}")


class Optimizer:
    """Updates of stacked parameters (k, outputs, inputs), in place.

    Args:
        hyperparameters: of the k heads, which agree in their optimizer.
        parameters: what will be updated, for shapes, precision and device.
        total: steps until the learning rate has fallen to zero.
    """

    def __init__(
        self, hyperparameters: Sequence[Hyperparameters], parameters: list[Tensor], total: int
    ) -> None:
        def column(values: list[float]) -> Tensor:
            device = parameters[0].device
            return torch.tensor(values, dtype=torch.float64, device=device)[:, None, None]

        self._adam = hyperparameters[0].optimizer == "adamw"
        self._total, self._steps, self._dtype = total, 0, parameters[0].dtype
        self._peak = column([x.learning_rate for x in hyperparameters])
        self._decay = column([x.weight_decay for x in hyperparameters])
        self._momentum = column([x.momentum for x in hyperparameters]).to(self._dtype)
        self._first = [torch.zeros_like(x) for x in parameters]
        self._second = [torch.zeros_like(x) for x in parameters] if self._adam else []

    def step(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Update the parameters by their gradients, which are overwritten."""
        rate = self._peak * (0.5 + 0.5 * math.cos(math.pi * self._steps / self._total))
        self._steps += 1
        kept = (1 - rate * self._decay).to(self._dtype)
        for parameter in parameters:
            parameter.mul_(kept)
        if self._adam:
            self._adamw(parameters, gradients, rate)
        else:
            self._sgd(parameters, gradients, rate)

    def _sgd(self, parameters: list[Tensor], gradients: list[Tensor], rate: Tensor) -> None:
        rate = rate.to(self._dtype)
        for parameter, gradient, velocity in zip(parameters, gradients, self._first, strict=True):
            velocity.mul_(self._momentum).add_(gradient)
            parameter.sub_(gradient.addcmul_(velocity, self._momentum).mul_(rate))

    def _adamw(self, parameters: list[Tensor], gradients: list[Tensor], rate: Tensor) -> None:
        # Both moments start at zero, which biases them towards it.
        rate = (rate / (1 - FIRST_MOMENT**self._steps)).to(self._dtype)
        correction = math.sqrt(1 - SECOND_MOMENT**self._steps)
        moments = zip(parameters, gradients, self._first, self._second, strict=True)
        for parameter, gradient, first, second in moments:
            first.lerp_(gradient, 1 - FIRST_MOMENT)
            second.mul_(SECOND_MOMENT).addcmul_(gradient, gradient, value=1 - SECOND_MOMENT)
            parameter.addcdiv_(first * -rate, second.sqrt().div_(correction).add_(EPSILON))
