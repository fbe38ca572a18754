"""Arrays in files: their kinds, their sample ids, and rows put into a data set's order."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.files import reading, require_file
from td_ray.registry import closest
from td_ray.tasks.numpy_files import map_npy, open_npz, read_npy
from td_ray.tasks.table import ROW_ORDER, read_columns
from td_ray.tasks.text import as_ids

SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet")


def shape_of(path: Path, key: str) -> tuple[int, ...]:
    """The shape of an array, from the file's header alone; of Parquet files, the number of rows.

    Raises:
        InputError: the file is not what its name says, or has no array called ``key``.
    """
    with reading(path):
        match path.suffix:
            case ".npy":
                return map_npy(path).shape
            case ".npz":
                return _shape_in_npz(path, key)
            case ".safetensors":
                header = _safetensors_header(path)
                names = [name for name in header if name != "__metadata__"]
                return tuple(map(int, header[_only(names, key, path)]["shape"]))
            case ".parquet":
                from pyarrow import parquet

                return (int(parquet.read_metadata(path).num_rows),)
    raise InputError(f"{path.name} is none of {', '.join(SUFFIXES)}")


def read_array(path: Path, key: str) -> NDArray[Any]:
    """Read an array whose first axis runs over samples.

    A Parquet file gives its column called ``key``, of lists or of numbers, or else all of its
    columns but the ids, in order; they must be numbers.

    Raises:
        InputError: as ``shape_of``.
    """
    with reading(path):
        match path.suffix:
            case ".npy":
                return map_npy(path)
            case ".npz":
                with open_npz(path) as arrays:
                    return np.asarray(arrays[_only(arrays.files, key, path)])
            case ".safetensors":
                return _read_safetensors(path, key)
            case ".parquet":
                return _read_parquet(path, key)
    raise InputError(f"{path.name} is none of {', '.join(SUFFIXES)}")


def read_column(path: Path, key: str) -> NDArray[Any]:
    """Read one label or value per sample; the column ``key`` of a Parquet file, by that name.

    Raises:
        InputError: as ``shape_of``.
    """
    if path.suffix != ".parquet":
        return read_array(path, key)
    columns = read_columns(path, "predictions")
    if key not in columns:
        raise InputError(f"{path} has no column '{key}': {closest(key, columns)}")
    return columns[key]


def require_column(path: Path, key: str) -> None:
    """Refuse a Parquet file without a column ``key``; other files are asked as they are read.

    Raises:
        InputError: there is none.
    """
    if path.suffix == ".parquet":
        from pyarrow import parquet

        with reading(path, "predictions"):
            names = parquet.read_schema(path).names
        if key not in names:
            raise InputError(f"{path} has no column '{key}': {closest(key, names)}")


def holds(path: Path, ids: str | None, folder: Path, wanted: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(n,) bool, which of the ``wanted`` ids come with a file; all where its rows are in order.

    Raises:
        InputError: no such file, or no ids.
    """
    if ids == ROW_ORDER:
        return np.ones(len(wanted), dtype=np.bool_)
    return np.isin(wanted, _ids_of(require_file(path, "samples"), ids, folder))


def row_order(
    path: Path,
    ids: str | None,
    folder: Path,
    wanted: NDArray[np.str_],
    data: str,
    key: str,
    others: bool = False,
) -> NDArray[np.intp]:
    """Return (n,) row numbers that put a file's rows into the order of ``wanted`` ids.

    Args:
        path: the file that holds the array called ``key``.
        ids: a file of ids, or ``row-order``, or None for ids inside the file.
        others: whether the file may hold other ids beside the wanted ones.

    Raises:
        InputError: other ids than the data set's, another number of rows, or no ids at all.
    """
    rows = n_rows(path, key)
    if ids == ROW_ORDER:
        if rows != len(wanted):
            raise InputError(
                f"{path} has {rows} rows, and data set '{data}' has {len(wanted)} samples; "
                f"with ids: {ROW_ORDER} they must be equal"
            )
        return np.arange(rows)
    names = _ids_of(path, ids, folder)
    if len(names) != rows:
        raise InputError(f"{path} has {rows} rows, and {len(names)} sample ids come with it")
    return _align(names, wanted, data, path, others)


def n_rows(path: Path, key: str) -> int:
    """The number of rows of an array, as ``shape_of`` finds it."""
    with reading(path):  # an array of no axes has none
        return shape_of(path, key)[0]


def _ids_of(path: Path, ids: str | None, folder: Path) -> NDArray[np.str_]:
    """The ids inside a file, or in the one beside it."""
    if ids is None:
        return _ids_inside(path)
    beside = require_file(folder / ids, f"sample ids of {path.name}")
    status = beside.stat()
    return _ids_in(beside, (status.st_size, status.st_mtime_ns))


def _align(
    names: NDArray[np.str_], wanted: NDArray[np.str_], data: str, path: Path, others: bool
) -> NDArray[np.intp]:
    if np.array_equal(names, wanted):
        return np.arange(len(names))
    order = np.argsort(names, kind="stable")
    ordered = names[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise InputError(f"{path}: the sample id '{ordered[twice[0]]}' is there twice")
    missing = np.setdiff1d(wanted, names)
    unknown = np.setdiff1d(names, wanted)[: 0 if others else None]
    if len(missing) or len(unknown):
        parts = [
            f"{len(some)} {what} (such as '{some[0]}')"
            for some, what in ((missing, "missing"), (unknown, "not in the data set"))
            if len(some)
        ]
        raise InputError(
            f"{path}: sample ids do not match those of data set '{data}': "
            + ", ".join(parts)
            + "; both must hold the same ids, in any order, or say samples: intersect"
        )
    return order[np.searchsorted(ordered, wanted)]


def _ids_inside(path: Path) -> NDArray[np.str_]:
    with reading(path, "sample ids"):
        match path.suffix:
            case ".npz":
                with open_npz(path) as arrays:
                    if "id" in arrays.files:
                        return as_ids(arrays["id"])
            case ".parquet":
                from pyarrow import parquet

                if "id" in parquet.read_schema(path).names:
                    return as_ids(parquet.read_table(path, columns=["id"])["id"].to_pylist())
            case ".safetensors":
                metadata = _safetensors_header(path).get("__metadata__", {})
                if "id" in metadata:
                    names = json.loads(metadata["id"])
                    if not isinstance(names, list):
                        raise ValueError("its metadata 'id' is not a JSON list")
                    return as_ids(names)
    raise InputError(
        f"{path} carries no sample ids ('id'); name a file with 'ids', or say ids: {ROW_ORDER} "
        "if its rows are in the data set's order"
    )


@lru_cache(maxsize=64)
def _ids_in(path: Path, stamp: tuple[int, int]) -> NDArray[np.str_]:
    """Ids from a text file (one a line), an npy file, or the ``id`` column of a table.

    ``stamp`` is the file's size and time, so that one that has changed is read again.
    """
    with reading(path, "sample ids"):
        if path.suffix == ".txt":
            return as_ids(path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n"))
        if path.suffix == ".npy":
            return as_ids(read_npy(path))
        columns = read_columns(path, "sample ids")
        if "id" not in columns:
            raise InputError(f"sample ids: {path} has no column 'id'")
        return as_ids(columns["id"])


def _only(names: Sequence[str], key: str, path: Path) -> str:
    if key in names:
        return key
    others = [name for name in names if name != "id"]
    if len(others) == 1:
        return others[0]
    raise InputError(f"{path} has no array '{key}' (found: {', '.join(others) or 'none'})")


def _shape_in_npz(path: Path, key: str) -> tuple[int, ...]:
    with zipfile.ZipFile(path) as members:
        names = [name.removesuffix(".npy") for name in members.namelist()]
        with members.open(_only(names, key, path) + ".npy") as member:
            if np.lib.format.read_magic(member) == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects; save plain arrays")
    return tuple(map(int, shape))


def _safetensors_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("not a safetensors file, or cut short")
        header = json.loads(file.read(size))
    if not isinstance(header, dict):
        raise ValueError("not a safetensors file")
    return header


def _read_safetensors(path: Path, key: str) -> NDArray[Any]:
    from safetensors import safe_open

    # torch reads bfloat16, which numpy has no type for
    with safe_open(path, framework="pt") as tensors:
        tensor = tensors.get_tensor(_only(list(tensors.keys()), key, path))
    return np.asarray(tensor.float() if tensor.is_floating_point() else tensor)


def _read_parquet(path: Path, key: str) -> NDArray[Any]:
    from pyarrow import parquet, types

    file = parquet.ParquetFile(path)
    schema = file.schema_arrow
    if key in schema.names:
        column = file.read([key])[key]
        if not types.is_nested(column.type):
            return np.asarray(column.to_numpy())
        return np.concatenate([_rows_of_lists(chunk, key) for chunk in column.chunks])
    names = [name for name in schema.names if name != "id" and not name.startswith("__")]
    for name in names:
        kind = schema.field(name).type
        if not (types.is_integer(kind) or types.is_floating(kind)):
            raise ValueError(
                f"there is no column '{key}', and column '{name}' holds {kind}; "
                "without the one, all columns but 'id' must be numbers"
            )
    table = file.read(names)
    return np.column_stack([table[name].to_numpy() for name in names])


def _rows_of_lists(lists: Any, key: str) -> NDArray[Any]:
    """An Arrow array of lists as (rows, width)."""
    from pyarrow import compute

    widths = compute.unique(compute.list_value_length(lists)).to_pylist()
    if len(lists) and (len(widths) != 1 or widths[0] is None):
        raise ValueError(f"the lists in column '{key}' differ in length")
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False)).reshape(len(lists), -1)
