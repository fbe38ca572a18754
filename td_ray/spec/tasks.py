"""Tasks, as an experiment asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import model_validator

from td_ray.spec.entries import Frozen, Kind, Name, Scalar, Words


class TaskSpec(Frozen):
    """A target on a data set.

    Attributes:
        data: the data set whose training split the heads are fitted on.
        target: the column that holds the target.
        kind: ``classification`` (labels) or ``regression`` (numbers).
        classes: for a coarser labelling, ``{new class: [old labels]}``; every label is in one.
        evaluate: data sets whose evaluation split is predicted; by default ``data`` itself.
        distance: of a regression task: ``cosine`` (2 - 2 cos), ``mean`` or ``none``.
    """

    name: Name
    data: str
    target: str
    kind: Kind = "classification"
    classes: Mapping[str, tuple[Scalar, ...]] | None = None
    evaluate: Words = ()
    distance: Literal["cosine", "mean", "none"] = "cosine"

    @property
    def evaluated_on(self) -> tuple[str, ...]:
        """The data sets that are predicted."""
        return self.evaluate or (self.data,)

    @model_validator(mode="after")
    def _only_where_it_means_something(self) -> Self:
        if self.kind == "regression" and self.classes is not None:
            raise ValueError("'classes' is for classification tasks")
        if self.kind == "classification" and self.distance != "cosine":
            raise ValueError("'distance' is for regression tasks")
        return self
