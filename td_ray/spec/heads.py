"""What all kinds of head are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from td_ray import registry
from td_ray.spec.entries import Frozen, Kind, Name, one_or_many


class HeadSpec(Frozen):
    """One line of ``heads``: a kind, and options that all kinds share.

    Attributes:
        kind: the registered name; a line may be that name alone.
        name: by default the kind.
        scaling: of the features: ``column``, ``global``, ``none`` or ``whiten``.
        targets: the kinds of task it serves; by default those that its kind is meant for.
    """

    takes: ClassVar[tuple[Kind, ...]] = ()
    """The kinds of task that a kind of head can be fitted to."""

    meant_for: ClassVar[tuple[Kind, ...]] = ()
    """Those of them that it serves where ``targets`` says nothing."""

    kind: str
    name: Name
    scaling: Literal["column", "global", "none", "whiten"] = "column"
    targets: Annotated[tuple[Kind, ...], BeforeValidator(one_or_many), Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {"name": value.get("kind"), "targets": cls.meant_for, **value}
        return value

    @model_validator(mode="after")
    def _takes_its_targets(self) -> Self:
        for target in self.targets:
            if target not in self.takes:
                raise ValueError(
                    f"head '{self.name}' is {self.kind} and takes {' and '.join(self.takes)} "
                    f"tasks, not {target}: use kind {kinds_for(target)}"
                )
        return self


def kinds_for(target: Kind) -> str:
    """The kinds of head that are meant for a kind of task, in words."""
    kinds = registry.HEAD_KINDS
    return " or ".join(name for name in kinds.names() if target in kinds.get(name).meant_for)
