"""What heads are fitted to: class labels, or real values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ClassTarget:
    """Class labels.

    Attributes:
        codes: (n,) int64 in [0, n_classes).
        n_classes: the number of classes of the task, present in these rows or not.
    """

    codes: Tensor
    n_classes: int

    def rows(self, chosen: Tensor) -> ClassTarget:
        """The same for a subset of the rows."""
        return ClassTarget(self.codes[chosen], self.n_classes)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.codes)


@dataclass(frozen=True)
class ValueTarget:
    """Real values: `values` is (n,) float64."""

    values: Tensor

    def rows(self, chosen: Tensor) -> ValueTarget:
        """The same for a subset of the rows."""
        return ValueTarget(self.values[chosen])

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.values)


Target = ClassTarget | ValueTarget
