"""Exact heads: the optimum of a convex problem, without chance.

heads:
- {kind: logistic, l2: 1e-3}              # a list is a grid
- {kind: ridge, l2: [1e-4, 1e-2, 1]}
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, field_validator

from td_ray.head_kinds.kind import HeadKind
from td_ray.registry import HEAD_KINDS
from td_ray.spec import Kind

if TYPE_CHECKING:
    from td_ray.heads import FittedHeads, Training

ITERATIONS = 60  # of logistic regression, typically
OPERATIONS_OF_SOFTMAX = 200  # per row and class and iteration: exponentials, and memory traffic


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
    def operations_of_stand_ins(self, rows: int, width: int, outputs: int, targets: int) -> float:
        """Floating-point operations of fitting so many targets on one representation; roughly."""

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
    l2: Positive | tuple[Positive, ...] = 1e-3

    def operations(self, rows: int, width: int, outputs: int, fits: int) -> float:
        """Two products with the features and a softmax, each iteration."""
        once = rows * outputs * (4 * width + OPERATIONS_OF_SOFTMAX)
        return float((fits + self.penalties) * ITERATIONS * once)

    def operations_of_stand_ins(self, rows: int, width: int, outputs: int, targets: int) -> float:
        """Each is a fit of its own."""
        return self.operations(rows, width, outputs, targets)


@HEAD_KINDS.register("ridge")
class Ridge(ExactHead):
    """Ridge regression on numbers, or on the one-hot columns of labels (the largest predicts).

    A penalty of zero is least squares of smallest norm.
    """

    takes: ClassVar[tuple[Kind, ...]] = ("classification", "regression")
    meant_for: ClassVar[tuple[Kind, ...]] = ("regression",)
    has_probabilities: ClassVar[bool] = False
    l2: NotNegative | tuple[NotNegative, ...] = 1e-3

    def operations(self, rows: int, width: int, outputs: int, fits: int) -> float:
        """A Gram matrix and its eigenvectors, which serve every penalty."""
        once = 2 * rows * width**2 + 10 * min(rows, width) ** 3
        return float((fits + bool(self.penalties)) * once)

    def operations_of_stand_ins(self, rows: int, width: int, outputs: int, targets: int) -> float:
        """One factorisation, and a product for each column."""
        return self.operations(rows, width, outputs, 1) + 4.0 * rows * width * outputs * targets
