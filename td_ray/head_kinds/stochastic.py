"""Stochastic heads: the field's usual linear probe, and a small network; trained, not solved.

heads:
- {kind: linear}
- {kind: linear, name: sgd, optimizer: sgd, learning_rate: [0.01, 0.1, 1]}    # searched
- {kind: mlp, hidden: [64, 256], learning_rate: 1e-3, epochs: 50}

The seed of a run also decides initial values and the order of rows, so that the noise floor shows
what this kind of training adds to the noise of the training split.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from td_ray.costs import Counts
from td_ray.head_kinds.kind import LOADING_BYTES, Lap, SearchedKind
from td_ray.registry import HEAD_KINDS
from td_ray.spec import Kind

if TYPE_CHECKING:
    from torch import Tensor

    from td_ray.heads import FittedHeads, Training
    from td_ray.heads.stochastic import Epoch, Hyperparameters

MOMENTUM = 0.9
OUTPUT_ARRAYS, PARAMETER_ARRAYS = 6, 10
"""That a step goes over, of the size of its outputs and of the parameters; roughly."""

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Width = Annotated[int, Field(ge=1)]


class StochasticHead(SearchedKind):
    """A head trained by gradients of batches; a list of values is searched, once per unit.

    Attributes:
        optimizer: ``adamw``, or ``sgd`` with Nesterov momentum.
        learning_rate: of the first step; it falls to zero along a cosine. The default (0.01, and
            0.001 for ``mlp``) is for AdamW on scaled features; SGD wants ten times as much or more.
        weight_decay: decoupled from the gradient, for both optimizers.
        momentum: of SGD.
        epochs: passes over the training rows.
        batch_size: rows of a step.
    """

    takes: ClassVar[tuple[Kind, ...]] = ("classification", "regression")
    meant_for: ClassVar[tuple[Kind, ...]] = ("classification", "regression")
    searched: ClassVar[tuple[str, ...]] = ("learning_rate", "weight_decay")

    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: Rate | tuple[Rate, ...] = 1e-2
    weight_decay: Decay | tuple[Decay, ...] = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = MOMENTUM
    epochs: Annotated[int, Field(ge=1)] = 100
    batch_size: Annotated[int, Field(ge=1)] = 256

    @field_validator("learning_rate", "weight_decay", "hidden", check_fields=False)
    @classmethod
    def _list(cls, value: Any) -> Any:
        if not isinstance(value, tuple):
            return value
        if not value:
            raise ValueError("this list is empty; give at least one value")
        if len(set(value)) < len(value):
            raise ValueError("a value is twice in this list")
        return value if len(value) > 1 else value[0]

    @model_validator(mode="after")
    def _only_where_it_means_something(self) -> Self:
        if self.optimizer != "sgd" and self.momentum != MOMENTUM:
            raise ValueError("'momentum' is for optimizer sgd")
        shrinks = max(self._values("learning_rate")) * max(self._values("weight_decay"))
        if shrinks >= 1:
            raise ValueError(
                f"'learning_rate' times 'weight_decay' must be less than 1, not {shrinks:g}: "
                "a step would turn the sign of every parameter"
            )
        return self

    def candidates(self) -> tuple[Self, ...]:
        """All combinations of the lists; the first option's values change last."""
        lists = [self._values(name) for name in self.searched]
        combinations = [dict(zip(self.searched, values, strict=True)) for values in product(*lists)]
        return tuple(self.model_copy(update=values) for values in combinations)

    def hyperparameters(self) -> dict[str, Any]:
        """See ``SearchedKind``."""
        names = [*self.searched, "optimizer", "momentum", "epochs", "batch_size"]
        values = self.model_dump(mode="json", include=set(names))
        return {name: values[name] for name in names if name != "momentum" or self._is_sgd}

    def at_edge(self, candidate: Self) -> list[str]:
        """See ``SearchedKind``; nothing lies beyond a weight decay of zero."""
        edges = []
        for name in self.searched:
            values, value = self._values(name), getattr(candidate, name)
            if len(values) > 1 and value in (min(values), max(values)) and value != 0:
                edges.append(name)
        return edges

    def fit(self, training: Training) -> FittedHeads:
        """All heads to the end of their epochs."""
        from td_ray.heads import FittedHeads
        from td_ray.heads.stochastic import fit_stochastic

        settings = [self._settings()] * len(training.seeds)
        target, n_classes = _target(training)
        heads = fit_stochastic(
            training.features,
            target,
            training.weights,
            _seeds(training),
            settings,
            n_classes,
            memory_bytes=training.memory_bytes,
        )
        return FittedHeads(
            parameters=heads,
            width=training.features.shape[1],
            loss=heads.loss,
            gradient_norm=heads.gradient_norm,
            iterations=heads.steps,
            present=heads.present,
            hyperparameters=self.hyperparameters(),
        )

    def race(self, training: Training, candidates: Sequence[Self]) -> Iterator[list[Lap]]:
        """See ``SearchedKind``: log loss of labels, squared error of values."""
        from td_ray.heads.stochastic import train
        from td_ray.heads.validation import scorable_rows

        count = len(candidates)
        target, n_classes = _target(training)
        chosen = scorable_rows(training.target, training.validation)
        laps = [Lap(0, None)] * count
        for epoch in train(
            training.features,
            target,
            training.weights.expand(count, -1),
            _seeds(training).expand(count),
            [candidate._settings() for candidate in candidates],
            n_classes,
            memory_bytes=training.memory_bytes,
        ):
            losses = _validation_losses(epoch, training, chosen)
            laps = [
                lap if lap.reason else _lap(epoch.number, loss, candidate)
                for lap, loss, candidate in zip(laps, losses, candidates, strict=True)
            ]
            yield laps

    def counts(
        self, rows: int, width: int, outputs: int, fits: int, iterations: float | None = None
    ) -> Counts:
        """Three products with a batch a step, and what optimizers do to every parameter.

        Choosing among candidates, each of which is a fit, comes before.
        """
        hidden = max(self._values("hidden")) if "hidden" in self.searched else 0
        weights = hidden * (width + outputs) if hidden else width * outputs
        steps = self.epochs * math.ceil(rows / self.batch_size)
        read = self.epochs * rows * (width + OUTPUT_ARRAYS * (hidden + outputs))
        numbers = read + steps * weights * PARAMETER_ARRAYS
        flops = self.epochs * rows * 6.0 * weights
        loading = LOADING_BYTES * rows * width
        return Counts(fits * flops, fits * 4.0 * numbers + loading, steps)

    @property
    def _is_sgd(self) -> bool:
        return self.optimizer == "sgd"

    def _values(self, name: str) -> tuple[Any, ...]:
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,)

    def _settings(self) -> Hyperparameters:
        from td_ray.heads.stochastic import Hyperparameters

        return Hyperparameters(
            optimizer=self.optimizer,
            learning_rate=_single(self.learning_rate),
            weight_decay=_single(self.weight_decay),
            momentum=self.momentum,
            epochs=self.epochs,
            batch_size=self.batch_size,
            hidden=None,
        )


@HEAD_KINDS.register("linear")
class Linear(StochasticHead):
    """Logistic or linear regression by stochastic gradients."""


@HEAD_KINDS.register("mlp")
class MultilayerPerceptron(StochasticHead):
    """One hidden layer of rectified linear units; ``hidden`` is its width, or widths to search."""

    searched: ClassVar[tuple[str, ...]] = (*StochasticHead.searched, "hidden")

    learning_rate: Rate | tuple[Rate, ...] = 1e-3
    hidden: Width | tuple[Width, ...] = 256

    def _settings(self) -> Hyperparameters:
        from dataclasses import replace

        return replace(super()._settings(), hidden=_single(self.hidden))


def _single(value: Any) -> Any:
    """The value of an option of a candidate."""
    if isinstance(value, tuple):
        raise ValueError(f"there are {len(value)} values to choose from, {value}: choose first")
    return value


def _target(training: Training) -> tuple[Tensor, int | None]:
    """Codes and the number of classes, or values and None."""
    from td_ray.heads import ClassTarget

    target = training.target
    if isinstance(target, ClassTarget):
        return target.codes, target.n_classes
    return target.values, None


def _seeds(training: Training) -> Tensor:
    import torch

    return torch.tensor(training.seeds, dtype=torch.int64)


def _validation_losses(epoch: Epoch, training: Training, chosen: Tensor) -> list[float]:
    """Mean losses on the validation rows; not finite for a head that has diverged."""
    from td_ray.heads import ClassTarget
    from td_ray.heads.validation import log_loss, mean_losses, squared_error

    loss = log_loss if isinstance(training.target, ClassTarget) else squared_error
    losses = mean_losses(epoch.heads, training.features, training.target, chosen, loss)
    return (losses + 0 * epoch.loss.to(losses)).tolist()


def _lap(number: int, loss: float, candidate: StochasticHead) -> Lap:
    if math.isfinite(loss):
        return Lap(number, loss)
    rate = candidate.learning_rate
    return Lap(number, None, f"diverged in epoch {number} at learning rate {rate:g}")
