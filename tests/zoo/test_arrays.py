"""Arrays in files: every kind, their ids, and rows in the order of the data set."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from pyarrow import parquet
from safetensors.torch import save_file

from td_ray.errors import InputError
from td_ray.zoo.arrays import n_rows, read_array, read_column, row_order

IDS = ["c", "a", "007", "b"]
VALUES = np.arange(8, dtype=np.float32).reshape(4, 2)
KINDS = ["npy", "npz", "safetensors", "parquet-list", "parquet-fixed", "parquet-columns"]


def write(folder: Path, kind: str, ids: Any = IDS, values: NDArray[Any] = VALUES) -> Path:
    """A file of features with its ids inside, where it can hold them."""
    suffix = kind.partition("-")[0]
    path = folder / f"f.{suffix}"
    if kind == "npy":
        np.save(path, values)
    elif kind == "npz":
        np.savez(path, id=np.array(ids), features=values)
    elif kind == "safetensors":
        save_file({"features": torch.from_numpy(values)}, path, {"id": json.dumps(list(ids))})
    elif kind == "parquet-columns":
        columns = {f"f{n}": values[:, n] for n in range(values.shape[1])}
        parquet.write_table(pa.table({"id": ids, **columns}), path)
    else:
        width = values.shape[1] if kind == "parquet-fixed" else -1
        lists = pa.array(values.tolist(), pa.list_(pa.float32(), width))
        parquet.write_table(pa.table({"id": ids, "features": lists}), path)
    return path


def aligned(path: Path, wanted: list[str], ids: str | None = None) -> NDArray[Any]:
    order = row_order(path, ids, path.parent, np.array(wanted), "d", "features")
    return read_array(path, "features")[order]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_its_rows(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    assert n_rows(path, "features") == 4
    np.testing.assert_array_equal(read_array(path, "features"), VALUES)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "npy"])
def test_ids_inside_put_rows_into_the_wanted_order(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    np.testing.assert_array_equal(aligned(path, IDS), VALUES)
    found = aligned(path, ["007", "a", "b", "c"])
    np.testing.assert_array_equal(found, VALUES[[2, 1, 3, 0]])


@pytest.mark.parametrize("beside", ["txt", "npy", "csv", "npz", "parquet"])
def test_ids_beside(tmp_path: Path, beside: str) -> None:
    path, ids = write(tmp_path, "npy"), tmp_path / f"ids.{beside}"
    match beside:
        case "txt":
            ids.write_text("\ufeff" + "\r\n".join(IDS) + "\r\n", encoding="utf-8", newline="")
        case "npy":
            np.save(ids, np.array(IDS))
        case "csv":
            ids.write_text("id,x\n" + "".join(f"{name},1\n" for name in IDS))
        case "npz":
            np.savez(ids, id=np.array(IDS, dtype="S"))
        case "parquet":
            parquet.write_table(pa.table({"id": pa.array(IDS).dictionary_encode()}), ids)
    np.testing.assert_array_equal(aligned(path, sorted(IDS), ids.name), VALUES[[2, 1, 3, 0]])


def test_ids_beside_are_read_again_when_they_change(tmp_path: Path) -> None:
    path, ids = write(tmp_path, "npy"), tmp_path / "ids.txt"
    ids.write_text("a\nb\nc\nd\n")
    np.testing.assert_array_equal(aligned(path, list("abcd"), "ids.txt"), VALUES)
    ids.write_text("d\nc\nb\na\n")
    os.utime(ids, ns=(1, 1))
    np.testing.assert_array_equal(aligned(path, list("abcd"), "ids.txt"), VALUES[::-1])


def test_lines_with_odd_separators_stay_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "npy")
    wanted = ["a\u2028b", "c\x0bd", "e\x85", " f "]
    (tmp_path / "ids.txt").write_text("\n".join(wanted), encoding="utf-8")
    np.testing.assert_array_equal(aligned(path, wanted, "ids.txt"), VALUES)


def test_row_order(tmp_path: Path) -> None:
    path = write(tmp_path, "npz")
    np.testing.assert_array_equal(aligned(path, list("wxyz"), "row-order"), VALUES)
    with pytest.raises(InputError, match=r"4 rows, and data set 'd' has 3 samples.*row-order"):
        aligned(path, list("xyz"), "row-order")


def test_numbers_and_bytes_as_ids(tmp_path: Path) -> None:
    numbers = [2**53 + 1, 7, -1, 0]
    for kind in ("npz", "safetensors", "parquet-list"):
        path = write(tmp_path, kind, numbers)
        np.testing.assert_array_equal(aligned(path, [str(n) for n in numbers]), VALUES)
    path = write(tmp_path, "npz", np.array(IDS, dtype="S"))
    np.testing.assert_array_equal(aligned(path, IDS), VALUES)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (["a", "b", "c", "7"], "1 missing .such as '7'., 1 not in the data set .such as '007'."),
        (["a", "b", "c"], "1 not in the data set"),
        ([*IDS, "e", "f"], "2 missing .such as 'e'.;"),
    ],
)
def test_other_ids_are_named(tmp_path: Path, wanted: list[str], words: str) -> None:
    with pytest.raises(InputError, match=f"do not match those of data set 'd': .*{words}"):
        aligned(write(tmp_path, "npz"), wanted)


def test_duplicate_ids(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the sample id 'a' is there twice"):
        aligned(write(tmp_path, "npz", ["a", "b", "a", "c"]), ["a", "b", "c", "d"])


@pytest.mark.parametrize("n", [3, 5])
def test_ids_of_another_number_than_rows(tmp_path: Path, n: int) -> None:
    names = [str(number) for number in range(n)]
    with pytest.raises(InputError, match=f"4 rows, and {n} sample ids"):
        aligned(write(tmp_path, "npz", names), names)
    (tmp_path / "ids.txt").write_text("\n".join(names))
    with pytest.raises(InputError, match=f"4 rows, and {n} sample ids"):
        aligned(write(tmp_path, "npy"), names, "ids.txt")


def test_no_ids(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"carries no sample ids.*'ids'.*row-order"):
        aligned(write(tmp_path, "npy"), IDS)
    with pytest.raises(InputError, match=r"sample ids of f\.npy: no file at"):
        aligned(write(tmp_path, "npy"), IDS, "nowhere.txt")
    (tmp_path / "ids.csv").write_text("name\na\n")
    with pytest.raises(InputError, match="no column 'id'"):
        aligned(write(tmp_path, "npy"), IDS, "ids.csv")
    (tmp_path / "ids.npy").write_bytes(b"x")
    with pytest.raises(InputError, match=r"sample ids: .*ids\.npy cannot be read"):
        aligned(write(tmp_path, "npy"), IDS, "ids.npy")


def test_several_arrays_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, id=IDS, features=VALUES, label=np.arange(4))
    assert read_array(path, "label").tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"no array 'x' \(found: features, label\)"):
        read_array(path, "x")
    np.savez(path, id=IDS, embedding=VALUES)
    np.testing.assert_array_equal(read_array(path, "features"), VALUES)  # the only one
    np.savez(path, id=IDS)
    with pytest.raises(InputError, match="found: none"):
        n_rows(path, "features")


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", ">f4", "int64"])
def test_types_of_numbers(tmp_path: Path, dtype: str) -> None:
    values = VALUES.astype(dtype)
    for kind in ("npy", "npz", "parquet-columns") if dtype != ">f4" else ("npy", "npz"):
        found = read_array(write(tmp_path, kind, values=values), "features")
        np.testing.assert_array_equal(found.astype(np.float32), VALUES)


def test_bfloat16(tmp_path: Path) -> None:
    save_file({"features": torch.from_numpy(VALUES).bfloat16()}, tmp_path / "f.safetensors")
    found = read_array(tmp_path / "f.safetensors", "features")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, VALUES)


def test_fortran_order(tmp_path: Path) -> None:
    path = write(tmp_path, "npy", values=np.asfortranarray(VALUES))
    np.testing.assert_array_equal(read_array(path, "features"), VALUES)


def test_parquet_in_several_chunks(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    values = np.arange(60.0).reshape(30, 2)
    lists = pa.array(values.tolist(), pa.list_(pa.float64()))
    parquet.write_table(pa.table({"features": lists}), path, row_group_size=7)
    np.testing.assert_array_equal(read_array(path, "features"), values)


@pytest.mark.parametrize(
    "lists",
    [
        [[1.0], [2.0, 3.0, 4.0], [5.0, 6.0]],  # as many numbers as three pairs
        [[1.0, 2.0], None, [3.0, 4.0]],
        [[1.0, 2.0], [], [3.0, 4.0]],
        [None, None],
    ],
)
def test_lists_of_other_lengths_are_refused(tmp_path: Path, lists: list[Any]) -> None:
    path = tmp_path / "f.parquet"
    parquet.write_table(pa.table({"features": pa.array(lists, pa.list_(pa.float64()))}), path)
    with pytest.raises(InputError, match="the lists in column 'features' differ in length"):
        read_array(path, "features")


def test_parquet_columns_must_be_numbers(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    parquet.write_table(pa.table({"id": IDS, "f0": [1.0] * 4, "label": ["x"] * 4}), path)
    with pytest.raises(InputError, match="no column 'features', and column 'label' holds string"):
        read_array(path, "features")


def test_the_index_of_pandas_is_no_feature(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"id": IDS, "f0": [1.0, 2, 3, 4]}).iloc[[0, 1, 3, 2]]
    frame.to_parquet(tmp_path / "f.parquet")
    assert read_array(tmp_path / "f.parquet", "features").shape == (4, 1)


def test_columns_of_predictions(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    parquet.write_table(pa.table({"id": IDS, "species": ["x", "y", "x", "y"]}), path)
    assert read_column(path, "species").tolist() == ["x", "y", "x", "y"]
    with pytest.raises(InputError, match=r"no column 'specie': did you mean 'species'\?"):
        read_column(path, "specie")


def test_pickles_are_refused(tmp_path: Path) -> None:
    objects = np.array([[1, 2], [3]], dtype=object)
    np.save(tmp_path / "f.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "f.npz", features=objects, allow_pickle=True)
    for path in (tmp_path / "f.npy", tmp_path / "f.npz"):
        for read in (n_rows, read_array):
            with pytest.raises(InputError, match="cannot be read"):
                read(path, "features")


HEADERS = [
    b"",
    b"\x00" * 7,
    b"\xff" * 64,
    b"\x02" + b"\x00" * 7 + b"{}",
    b"\x02" + b"\x00" * 7 + b"[]",
    b"\x04" + b"\x00" * 7 + b"\xff\xfe\x00\x00",
    (40).to_bytes(8, "little") + b'{"features": {"shape": "x", "a": 1}}    ',
    (40).to_bytes(8, "little") + b'{"features": 3}                         ',
    b"PAR1",
    b"PK\x03\x04" + b"\x00" * 40,
    b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': 1/0}  ",
    b"\x93NUMPY\x01\x00\x46\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000, 9), }\n",
]


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors", "parquet", "csv", "bin"])
@pytest.mark.parametrize("content", HEADERS)
def test_garbage_is_one_clear_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"f.{suffix}"
    path.write_bytes(content)
    for read in (n_rows, read_array):
        with pytest.raises(InputError, match=rf"^[^\n]*f\.{suffix}[^\n]*$"):
            read(path, "features")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_files_that_are_cut_short(tmp_path: Path, kind: str, share: float) -> None:
    n = 200
    values = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    names = [str(number) for number in range(n)]
    path = write(tmp_path, kind, names, values)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"^[^\n]*f\.\w+[^\n]*$"):
        aligned(path, names, "row-order" if kind == "npy" else None)


@pytest.mark.parametrize("ids", ['"abcd"', "{}", "3", "[1", ""])
def test_odd_ids_in_safetensors(tmp_path: Path, ids: str) -> None:
    path = tmp_path / "f.safetensors"
    save_file({"features": torch.zeros(4, 2)}, path, {"id": ids})
    with pytest.raises(InputError, match=r"f\.safetensors cannot be read"):
        aligned(path, list("abcd"))
