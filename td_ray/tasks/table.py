"""Columns from a file: CSV, TSV, Parquet, npz, or one npy; inputs from an npy file, or texts.

data:
  - name: flowers
    source: table
    path: labels.csv          # id, species, petal_length, split
    inputs: images.npy        # one row per row of the table; only for models that run here
    split: {column: split}
  - {name: reviews, source: table, path: reviews.tsv, text: review}  # a column of it as inputs
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from td_ray.errors import InputError
from td_ray.files import Digest, reading, require_file
from td_ray.registry import DATA_SOURCES, closest
from td_ray.tasks.dataset import DataSource, Samples
from td_ray.tasks.inputs import Texts
from td_ray.tasks.numpy_files import map_npy, open_npz, read_npy
from td_ray.tasks.text import as_ids

ROW_ORDER = "row-order"


@DATA_SOURCES.register("table")
class Table(DataSource):
    """A table with one row per sample.

    Sample ids are text, exactly as the file writes them: ``007`` in a CSV is not ``7``. Other
    columns of a CSV are numbers where all their values are. Columns of lists, structures or
    bytes in a Parquet file are left out.

    Attributes:
        path: a ``.csv``, ``.tsv``, ``.parquet``, ``.npz`` (arrays of equal length) or ``.npy``
            file (one array, which becomes the column ``label``).
        id: the column of sample ids, or ``row-order``: ids are then "0", "1", ...
        inputs: an ``.npy`` file with one row per row of the table.
        text: the column of texts that models take as inputs.
    """

    path: str
    id: str = "id"
    inputs: str | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _one_kind_of_inputs(self) -> Self:
        if self.inputs is not None and self.text is not None:
            raise ValueError("give either 'inputs' or 'text', not both")
        return self

    def read(self, folder: Path, cache: Path) -> Samples:
        """Read the columns; see ``DataSource``."""
        where = f"data set '{self.name}'"
        path = require_file(folder / self.path, where)
        columns = read_columns(path, where, text=tuple(filter(None, (self.id, self.text))))
        if self.text is not None:
            _check_texts(columns, self.text, f"{where}: {self.path}")
        ids = self._ids(columns, where, alone=path.suffix == ".npy")
        if self.text is not None:
            return Samples(ids, columns, partial(_texts, path, self.text, where))
        if self.inputs is None:
            return Samples(ids, columns)
        inputs = require_file(folder / self.inputs, f"{where}: inputs")
        rows = _map(inputs, where).shape[:1]
        if rows != (len(ids),):
            found = rows[0] if rows else "no"
            raise InputError(f"{where}: {found} inputs in {inputs} for {len(ids)} samples")
        return Samples(ids, columns, partial(_map, inputs, where))

    def inputs_identity(self, folder: Path, digest: Digest) -> Any:
        """The digest of the inputs' bytes, or that of the table's with the column of texts."""
        if self.text is not None:
            known = digest(folder / self.path)
            return None if known is None else [self.text, known]
        return None if self.inputs is None else digest(folder / self.inputs)

    def _ids(self, columns: dict[str, NDArray[Any]], where: str, alone: bool) -> NDArray[np.str_]:
        if self.id == ROW_ORDER or alone:
            array = next(iter(columns.values()), np.empty(0))
            return np.arange(len(array) if array.ndim else 0).astype(str)
        if self.id not in columns:
            raise InputError(
                f"{where}: {self.path} has no id column '{self.id}': "
                f"{closest(self.id, columns)} (or say id: {ROW_ORDER})"
            )
        column = columns.pop(self.id)
        if column.ndim != 1:
            raise InputError(
                f"{where}: the id column '{self.id}' of {self.path} has shape {column.shape}; "
                "give one id per sample"
            )
        with reading(Path(self.path), where):
            return as_ids(column)


def _map(path: Path, where: str) -> NDArray[Any]:
    with reading(path, f"{where}: inputs"):
        if path.suffix != ".npy":
            raise ValueError("inputs are one .npy file")
        return map_npy(path)


def _texts(path: Path, column: str, where: str) -> Texts:
    columns = read_columns(path, where, text=(column,))
    _check_texts(columns, column, f"{where}: {path}")
    return Texts(tuple(columns[column].tolist()))


def _check_texts(columns: dict[str, NDArray[Any]], name: str, where: str) -> None:
    if name not in columns:
        raise InputError(f"{where} has no column '{name}' of texts: {closest(name, columns)}")
    for row, value in enumerate(columns[name].tolist()):
        if not isinstance(value, str):
            found = "is missing" if value is None else f"is {value!r}"
            raise InputError(
                f"{where}: the text in row {row} (counted from 0) of column '{name}' {found}; "
                "give each sample a text, or leave the row out"
            )


def read_columns(path: Path, where: str, text: Sequence[str] = ("id",)) -> dict[str, NDArray[Any]]:
    """Read named columns from a file.

    Args:
        text: columns that are kept as they are written, even where all values are numbers.

    Raises:
        InputError: an unknown kind of file, or one that cannot be read as what it claims to be.
    """
    with reading(path, where):
        match path.suffix:
            case ".csv" | ".tsv":
                import pyarrow
                from pyarrow import csv

                convert = csv.ConvertOptions(column_types=dict.fromkeys(text, pyarrow.string()))
                comma = "," if path.suffix == ".csv" else "\t"
                parse = csv.ParseOptions(delimiter=comma, newlines_in_values=True)
                table = csv.read_csv(path, parse_options=parse, convert_options=convert)
                return _arrow_columns(table, text)
            case ".parquet":
                from pyarrow import parquet

                file = parquet.ParquetFile(path)
                return _arrow_columns(file.read(_plain_columns(file.schema_arrow)), text)
            case ".npz":
                with open_npz(path) as arrays:
                    return {name: arrays[name] for name in arrays.files}
            case ".npy":
                return {"label": read_npy(path)}
    raise InputError(f"{where}: {path.name} is none of .csv, .tsv, .parquet, .npz, .npy")


def _plain_columns(schema: Any) -> list[str]:
    """The columns that can be ids, targets, strata or splits."""
    from pyarrow import types

    unfit = (types.is_nested, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    return [field.name for field in schema if not any(is_it(field.type) for is_it in unfit)]


def _arrow_columns(table: Any, text: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Text and what has gaps as objects with None; whole numbers with gaps as floats."""
    import pyarrow
    from pyarrow import types

    names = table.column_names
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the column '{name}' is there twice")
    columns = {}
    for name in names:
        column = table[name]
        if types.is_binary(column.type):  # what pyarrow makes of text that is not UTF-8
            raise ValueError(f"the column '{name}' is not text in UTF-8; save the file as UTF-8")
        if types.is_dictionary(column.type):  # pandas' categories
            column = column.cast(column.type.value_type)
        if name in text:
            values = np.empty(len(column), dtype=object)
            values[:] = column.to_pylist()
        else:
            gaps = column.null_count and types.is_integer(column.type)
            if gaps or types.is_decimal(column.type):
                column = column.cast(pyarrow.float64())
            values = column.to_numpy()
        columns[name] = values
    return columns
