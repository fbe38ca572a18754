"""What every kind of head gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from td_ray.costs import Counts
from td_ray.spec import HeadSpec

if TYPE_CHECKING:
    from td_ray.heads import FittedHeads, Training


LOADING_BYTES = 64.0
"""That move for each number of the features until they are read and scaled, roughly."""


class HeadKind(HeadSpec, ABC):
    """Base of all kinds of head: options as fields.

    ``takes`` and ``meant_for`` say which kinds of task it serves.
    """

    has_probabilities: ClassVar[bool] = True
    """Whether its scores of classes are log odds, so that their softmax is what it believes."""

    @abstractmethod
    def fit(self, training: Training) -> FittedHeads:
        """Fit one head per row of the weights.

        Raises:
            InputError, WorkError: there is no such head; the message says why.
        """

    iterations_vary: ClassVar[bool] = False
    """Whether how many iterations a fit takes depends on the data."""

    has_stand_ins: ClassVar[bool] = False
    """Whether it can be fitted to what many other heads predict, side by side."""

    @abstractmethod
    def counts(
        self, rows: int, width: int, outputs: int, fits: int, iterations: float | None = None
    ) -> Counts:
        """What so many fits on (rows, width) features consist of, for the plan.

        A penalty's choice from a grid is among it; races of candidates are not.

        Args:
            outputs: classes, or 1.
            iterations: of a fit, as others on the task have taken; None if none was fitted yet.
        """

    def identity(self) -> dict[str, Any]:
        """What of its options decides a fit: neither its name nor its tasks."""
        return self.model_dump(mode="json", exclude={"name", "targets"})


@dataclass(frozen=True)
class Lap:
    """Where one candidate of a search stands after an epoch.

    Attributes:
        epochs: that it has been trained for.
        loss: mean loss on the validation rows; None once it has diverged.
        reason: why it is out of the race; None while it is in it.
    """

    epochs: int
    loss: float | None
    reason: str | None = None


class SearchedKind(HeadKind):
    """A kind whose options may hold several candidates, from which each unit chooses once.

    The choice is made by training the candidates on the rows outside the validation part;
    ``fit`` is called on a candidate, never on a head that still has several.
    """

    epochs: int

    @abstractmethod
    def candidates(self) -> tuple[Self, ...]:
        """The same head with one value for each option, in the order that ties go by."""

    @abstractmethod
    def hyperparameters(self) -> dict[str, Any]:
        """The options of a candidate as JSON values."""

    @abstractmethod
    def at_edge(self, candidate: Self) -> list[str]:
        """Options whose value in a candidate is at the end of their list: better may lie beyond."""

    @abstractmethod
    def race(self, training: Training, candidates: Sequence[Self]) -> Iterator[list[Lap]]:
        """Train candidates together, from one seed; after each epoch, a lap of every one.

        The weights (1, n) leave out the validation rows. A candidate that diverges keeps its last
        lap, with a reason, and costs the others nothing.
        """
