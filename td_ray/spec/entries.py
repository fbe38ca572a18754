"""What lines of an experiment have in common: models, data sets and their splits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from td_ray.printable import is_line
from td_ray.storage import is_url

LONGEST_FILE_NAME = 255  # bytes, on all usual file systems

Scalar = str | bool | int | float | None
Kind = Literal["classification", "regression"]


def one_or_many(value: Any) -> Any:
    """A single word stands for a list of one."""
    return (value,) if isinstance(value, str) else value


def _one_line(value: str) -> str:
    if not is_line(value):
        raise ValueError(
            f"{value[:60]!r} has an end of line or a control character in it, and names have not"
        )
    return value


Name = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]


def _possible(value: Path) -> Path:
    name = max(value.parts, key=lambda part: len(os.fsencode(part)), default="")
    if "\0" in str(value) or len(os.fsencode(name)) > LONGEST_FILE_NAME:
        raise ValueError(f"no file system has a folder called {name[:60]!r}")
    try:
        str(value).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{str(value)!r} is not UTF-8; use a folder that is") from None
    return value


def _as_text(value: Any) -> Any:
    """A path of Python stands for its text."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _possible_place(value: str) -> str:
    if not is_url(value):
        _possible(Path(value))
    elif not is_line(value):
        raise ValueError(f"{value[:60]!r} has a control character in it, and addresses have not")
    return value


FolderPath = Annotated[Path, AfterValidator(_possible)]
"""The path of a folder that can be made."""

FolderPlace = Annotated[str, BeforeValidator(_as_text), AfterValidator(_possible_place)]
"""The same, or the URL of a folder in an object store."""


Words = Annotated[tuple[Name, ...], BeforeValidator(one_or_many)]
"""Words; a single one may stand without brackets."""


class Frozen(BaseModel):
    """Immutable, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelEntry(Frozen):
    """One line of ``models``: a source, and options that all model sources share.

    An entry may stand for many models: lists and globs expand (see ``td_ray.zoo``).

    Attributes:
        tasks: names or globs of the tasks that its models take part in; by default all.
    """

    source: str
    name: Name | None = None
    layers: Words = ()
    tasks: Words = ()
    metadata: Mapping[str, Scalar] = Field(default_factory=dict)


class Split(Frozen):
    """How a data set is cut into a training and an evaluation split.

    Either ``column`` holds the words in ``train`` and ``test`` (rows with another word belong
    to neither), or a seeded share ``test`` of the samples is drawn, stratified by the data
    set's ``stratify`` column where it has one.
    """

    column: str | None = None
    train: str = "train"
    test: str | Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: int = 0

    @model_serializer(mode="wrap")
    def _what_was_said(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only the keys that were given, since some exclude each other."""
        values: dict[str, Any] = whole(self)
        return {name: value for name, value in values.items() if name in self.model_fields_set}

    @model_validator(mode="after")
    def _column_or_share(self) -> Self:
        if self.column is None and "train" in self.model_fields_set:
            raise ValueError("a word for 'train' needs the 'column' that holds it")
        if self.column is not None and "seed" in self.model_fields_set:
            raise ValueError("a 'column' gives the split, so there is nothing for 'seed' to draw")
        if self.column is None and isinstance(self.test, str):
            raise ValueError("a word for 'test' needs the 'column' that holds it")
        if self.column is not None and isinstance(self.test, float):
            raise ValueError("give either a 'column' or a share for 'test', not both")
        if self.column is not None and self.train == (self.test or "test"):
            raise ValueError(f"'train' and 'test' are the same word, '{self.train}'")
        return self


class DataEntry(Frozen):
    """One line of ``data``: a source of samples with labels; the split belongs to it.

    Attributes:
        stratify: a column of labels whose shares splits, halves and subsets keep.
        groups: a column such as a patient or a document. Samples with the same value are never
            on both sides of a split, of two halves, or of the validation part.
        subset: draw this many samples, before the split, by the split's seed. A larger subset
            holds the smaller ones.
    """

    source: str
    name: Name
    split: Split = Split()
    stratify: str | None = None
    groups: str | None = None
    subset: Annotated[int, Field(gt=0)] | None = None
