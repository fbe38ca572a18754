"""Exact heads: the optimum of a convex problem, without chance.

heads:
- {kind: logistic, l2: 1e-3}              # a list is a grid
- {kind: ridge, l2: [1e-4, 1e-2, 1]}
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, field_validator

from td_ray.costs import Counts
from td_ray.head_kinds.kind import LOADING_BYTES, HeadKind
from td_ray.registry import HEAD_KINDS
from td_ray.spec import Kind

if TYPE_CHECKING:
    from td_ray.heads import FittedHeads, Training

ITERATIONS = 10.0, 6.0
"""Of logistic regression: of any, and more for each bit that a class has."""

SOFTMAX_BYTES = 24
"""That move for each row and class of an iteration: scores and their exponentials."""

EIGENVECTORS = 10
"""Operations for all eigenvectors of a (d, d) matrix, over d^3."""


def _has_an_optimum(value: float) -> float:
    if value <= 0:
        raise ValueError(
            f"a logistic penalty is greater than 0, not {value:g}: without one, classes that can "
            "be separated have no optimum; a small one such as 1e-6 has"
        )
    return value


Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[Finite, AfterValidator(_has_an_optimum)]
NotNegative = Annotated[Finite, Field(ge=0)]


class ExactHead(HeadKind):
    """A head with a penalty ``l2``, or a grid from which each (representation, task) chooses."""

    l2: Finite | tuple[Finite, ...] = 1e-3
    has_stand_ins: ClassVar[bool] = True

    @abstractmethod
    def counts_of_stand_ins(self, rows: int, width: int, outputs: int, targets: int) -> Counts:
        """What fitting so many targets on one representation consists of, roughly."""

    @field_validator("l2")
    @classmethod
    def _grid(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if isinstance(value, tuple) and not value:
            raise ValueError("'l2' is an empty grid; give at least one penalty")
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("a penalty is twice in the grid 'l2'")
        return value

    @property
    def penalties(self) -> int:
        """How many penalties are compared; zero where there is nothing to choose."""
        return len(self.l2) if isinstance(self.l2, tuple) else 0

    def identity(self) -> dict[str, Any]:
        """The order of a grid decides nothing."""
        l2 = sorted(self.l2) if isinstance(self.l2, tuple) else self.l2
        return {**super().identity(), "l2": l2}

    def fit(self, training: Training) -> FittedHeads:
        """All heads exactly, with one penalty."""
        from td_ray.heads import fit_heads

        return fit_heads(
            self.kind,
            training.features,
            training.target,
            training.weights,
            self.l2,
            training.validation,
            memory_bytes=training.memory_bytes,
        )


@HEAD_KINDS.register("logistic")
class Logistic(ExactHead):
    """Multinomial logistic regression on labels."""

    takes: ClassVar[tuple[Kind, ...]] = ("classification",)
    meant_for: ClassVar[tuple[Kind, ...]] = ("classification",)
    iterations_vary: ClassVar[bool] = True
    l2: Positive | tuple[Positive, ...] = 1e-3

    def counts(
        self, rows: int, width: int, outputs: int, fits: int, iterations: float | None = None
    ) -> Counts:
        """The features' axes once; two products with them and a softmax, each iteration."""
        first, more = ITERATIONS
        each = first + more * math.log2(max(2, outputs)) if iterations is None else iterations
        steps = each * (fits + self.penalties)
        return Counts(
            flops=_axes(rows, width) + steps * rows * outputs * 4 * width,
            bytes=LOADING_BYTES * rows * width + steps * rows * outputs * SOFTMAX_BYTES,
            calls=each,  # heads advance together
        )

    def counts_of_stand_ins(self, rows: int, width: int, outputs: int, targets: int) -> Counts:
        """Each is a fit of its own."""
        return self.counts(rows, width, outputs, targets)


@HEAD_KINDS.register("ridge")
class Ridge(ExactHead):
    """Ridge regression on numbers, or on the one-hot columns of labels (the largest predicts).

    A penalty of zero is least squares of smallest norm.
    """

    takes: ClassVar[tuple[Kind, ...]] = ("classification", "regression")
    meant_for: ClassVar[tuple[Kind, ...]] = ("regression",)
    has_probabilities: ClassVar[bool] = False
    l2: NotNegative | tuple[NotNegative, ...] = 1e-3

    def counts(
        self, rows: int, width: int, outputs: int, fits: int, iterations: float | None = None
    ) -> Counts:
        """A Gram matrix and its eigenvectors, which serve every penalty, for each fit."""
        times = fits + bool(self.penalties)
        products = 4.0 * rows * width * outputs * max(1, self.penalties)
        once = Counts(_axes(rows, width) + products, 8.0 * rows * width, 1)
        return once * times + Counts(bytes=LOADING_BYTES * rows * width)

    def counts_of_stand_ins(self, rows: int, width: int, outputs: int, targets: int) -> Counts:
        """One factorisation, and a product for each column."""
        products = Counts(4.0 * rows * width * outputs * targets)
        return self.counts(rows, width, outputs, 1) + products


def _axes(rows: int, width: int) -> float:
    """Operations for the smaller of two Gram matrices of features, and its eigenvectors."""
    small, large = sorted((rows, width))
    return 2.0 * large * small**2 + EIGENVECTORS * float(small) ** 3
