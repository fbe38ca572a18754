"""Entries that name files: one model per file that matches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field

from td_ray.errors import InputError
from td_ray.spec import Words
from td_ray.zoo import patterns
from td_ray.zoo.source import ModelSource


def named(text: str, data: str) -> str:
    """Put a data set's name where ``{data}`` stands."""
    return text.replace(patterns.DATA, data)


class FileEntry(ModelSource):
    """An entry with a path.

    Attributes:
        path: a pattern or a list of patterns (see ``td_ray.zoo.patterns``).
    """

    # Whether a file belongs to one data set, so that several need {data} in the path.
    one_file_per_data_set: ClassVar[bool] = True

    path: Annotated[Words, Field(min_length=1)]

    def file(self, folder: Path, data: str) -> Path:
        """The file of an expanded entry for one data set."""
        return folder / named(self.path[0], data)

    def expand(self, folder: Path, data: Sequence[str], cache: Path) -> list[Self]:
        """One model per file; what the path says joins the metadata."""
        where = f"models, source '{self.source}'"
        for path in self.path:
            if self.one_file_per_data_set and len(data) > 1 and patterns.DATA not in path:
                raise InputError(
                    f"{where}: the tasks use {len(data)} data sets ({', '.join(data)}), so the "
                    f"path '{path}' needs {{data}} where the data set's name stands"
                )
        return [self._one(match, where) for match in patterns.find(self.path, folder, data, where)]

    def _one(self, match: patterns.Match, where: str) -> Self:
        layer = match.captures.get("layer")
        return self.model_copy(
            update={
                "path": (match.path,),
                "name": match.fill(self.name, where) if self.name else match.default_name(),
                "layers": (layer,) if layer else self.layers,
                "metadata": {**match.metadata(), **self.metadata},
            }
        )
