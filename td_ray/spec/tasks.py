"""Tasks, as an experiment asks for them; one line may stand for a family of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from td_ray.spec.entries import Frozen, Kind, Name, Scalar, Words

FamilyKind = Literal["subsets", "superclasses", "one_vs_rest", "teachers", "gaussian", "signs"]

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "subsets": ("count", "classes"),
    "superclasses": ("count", "classes"),
    "one_vs_rest": (),
    "teachers": ("count",),
    "gaussian": ("count",),
    "signs": ("count",),
}

_SERVES: Mapping[str, tuple[Kind, ...]] = {
    "gaussian": ("regression",),
    "teachers": ("classification", "regression"),
}


class Family(Frozen):
    """Many tasks on one data set, which share its features.

    Attributes:
        kind: of labels: ``subsets`` (samples of some classes alone), ``superclasses`` (partitions
            of the classes into equal shares) or ``one_vs_rest``; of inputs: ``teachers`` (random
            linear functions, see ``td_ray.tasks.teachers``); of sample ids alone: ``gaussian``
            (independent normal values) or ``signs`` (two labels, as a fair coin falls).
        count: how many tasks.
        classes: of each task; two by default for teachers.
        seed: of what is drawn; task k of a seed does not depend on ``count``.
        labels: those that ``one_vs_rest`` sets apart; by default all.
    """

    kind: FamilyKind
    count: Annotated[int, Field(ge=1, le=10_000)] | None = None
    classes: Annotated[int, Field(ge=2)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    labels: tuple[Scalar, ...] = ()

    @property
    def needs_labels(self) -> bool:
        """Whether its tasks come from the classes of a column."""
        return self.kind in ("subsets", "superclasses", "one_vs_rest")

    @model_validator(mode="after")
    def _options_of_its_kind(self) -> Self:
        needs = _NEEDS[self.kind]
        for name in needs:
            if getattr(self, name) is None:
                raise ValueError(f"a family of {self.kind} needs '{name}'")
        for name in ("count", "classes"):
            allowed = (*needs, "classes") if self.kind == "teachers" else needs
            if name not in allowed and getattr(self, name) is not None:
                raise ValueError(f"'{name}' means nothing to a family of {self.kind}")
        if self.labels and self.kind != "one_vs_rest":
            raise ValueError("'labels' is for one_vs_rest")
        return self


def _kind_alone(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class TaskSpec(Frozen):
    """A target on a data set, or a family of them.

    Attributes:
        data: the data set whose training split the heads are fitted on.
        target: the column that holds the target; none where a family draws it.
        kind: ``classification`` (labels) or ``regression`` (numbers).
        classes: for a coarser labelling, ``{new class: [old labels]}``; every label is in one.
        subset: the classes whose samples take part; by default all.
        family: what makes many tasks of the line, called ``name-000`` and so on.
        evaluate: data sets whose evaluation split is predicted; by default ``data`` itself.
        distance: of a regression task: ``cosine`` (2 - 2 cos), ``mean`` or ``none``.
    """

    name: Name
    data: str
    target: str | None = None
    kind: Kind = "classification"
    classes: Mapping[str, tuple[Scalar, ...]] | None = None
    subset: tuple[Scalar, ...] | None = None
    family: Annotated[Family, BeforeValidator(_kind_alone)] | None = None
    evaluate: Words = ()
    distance: Literal["cosine", "mean", "none"] = "cosine"

    @property
    def evaluated_on(self) -> tuple[str, ...]:
        """The data sets that are predicted."""
        return self.evaluate or (self.data,)

    @model_validator(mode="after")
    def _only_where_it_means_something(self) -> Self:
        if self.kind == "regression":
            for name in ("classes", "subset"):
                if getattr(self, name) is not None:
                    raise ValueError(f"'{name}' is for classification tasks")
        elif self.distance != "cosine":
            raise ValueError("'distance' is for regression tasks")
        return self

    @model_validator(mode="after")
    def _family_fits(self) -> Self:
        drawn = self.family is not None and not self.family.needs_labels
        if drawn and any(each is not None for each in (self.target, self.classes, self.subset)):
            raise ValueError(
                "this family draws its targets: leave out 'target', 'classes' and 'subset'"
            )
        if not drawn and self.target is None:
            raise ValueError("'target' is missing: name the column that holds the target")
        if self.family is not None:
            family, may = self.family, _SERVES.get(self.family.kind, ("classification",))
            if self.kind not in may:
                raise ValueError(f"a family of {family.kind} is for kind: {may[0]}")
            if self.kind == "regression" and family.classes is not None:
                raise ValueError("a regression task has no 'classes', and its family has none")
        return self
