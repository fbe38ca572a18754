"""Which pairs of representations are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from td_ray.spec.entries import Frozen, Name, Words

TABLES = (".csv", ".tsv", ".parquet")


class PairRule(Frozen):
    """One line of ``pairs``: the pairs that fit all that it says. A pair is wanted if a line is.

    Attributes:
        names: one side of the pair is selected by the first, the other side by the second. Each is
            the name of a model, or of a model at a layer (``resnet18@layer3``), or else a glob. A
            line may be that list alone.
        file: a table of pairs, with the columns ``model_a`` and ``model_b`` and, if it has them,
            ``layer_a`` and ``layer_b``: names as they are, no globs.
        within: metadata keys: the two models have the same value of each.
        between: metadata keys: the two models have different values of each. A model that has no
            value of a key is in no pair that is asked for by it.
    """

    names: tuple[Name, Name] | None = None
    file: Name | None = None
    within: Words = ()
    between: Words = ()

    @model_serializer(mode="wrap")
    def _what_was_said(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = whole(self)
        return {name: value for name, value in values.items() if value}

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.names and self.file:
            raise ValueError("give either 'names' or a 'file', not both")
        if not (self.names or self.file or self.within or self.between):
            raise ValueError("say which pairs: 'names', a 'file', 'within' or 'between'")
        twice = set(self.within) & set(self.between)
        if twice:
            raise ValueError(f"no two models have the same and another '{min(twice)}'")
        return self


def _names_alone(value: Any) -> Any:
    if isinstance(value, str) or (
        isinstance(value, Sequence) and (len(value) != 2 or {type(each) for each in value} != {str})
    ):
        raise ValueError(
            "a line of pairs is a list of two names or globs, such as [net-0, 'net-*'], "
            f"or a mapping with 'within', 'between' or 'file', not {value!r}"
        )
    return {"names": value} if isinstance(value, Sequence) else value


def _table_alone(value: Any) -> Any:
    if not isinstance(value, str) or value == "all":
        return value
    if PurePath(value).suffix not in TABLES:
        raise ValueError(
            f"pairs are 'all', a list, or a table of pairs ({', '.join(TABLES)}), not '{value}'"
        )
    return [{"file": value}]


Pairs = Annotated[
    Literal["all"]
    | Annotated[
        tuple[Annotated[PairRule, BeforeValidator(_names_alone)], ...], Field(min_length=1)
    ],
    BeforeValidator(_table_alone),
]
"""All pairs, or those that some line asks for; a table of pairs may stand alone."""
