"""Tables in files: ids exactly as written, columns with their types, errors that say where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from td_ray.errors import InputError
from td_ray.files import sha256
from td_ray.tasks.dataset import DataSet
from td_ray.tasks.table import Table
from td_ray.tasks.text import as_text


def load(folder: Path, path: str, **options: Any) -> DataSet:
    return Table(source="table", name="d", path=path, **options).load(folder, folder / "cache")


def load_csv(folder: Path, content: str | bytes, **options: Any) -> DataSet:
    (folder / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return load(folder, "t.csv", **options)


def load_parquet(folder: Path, columns: dict[str, Any], **options: Any) -> DataSet:
    parquet.write_table(pa.table(columns), folder / "t.parquet")
    return load(folder, "t.parquet", **options)


def test_csv_columns_have_their_types(tmp_path: Path) -> None:
    data = load_csv(
        tmp_path,
        "id,text,whole,part,flag\na,x,1,0.5,true\nb,y,2,1.5,false\nc,z,3,2.5,true\nd,x,4,1,true\n",
    )
    columns = data.samples.columns
    assert list(columns) == ["text", "whole", "part", "flag"]
    assert data.ids.tolist() == ["a", "b", "c", "d"]
    assert columns["text"].tolist() == ["x", "y", "z", "x"]
    assert columns["whole"].dtype.kind == "i"
    assert columns["part"].dtype.kind == "f"
    assert columns["flag"].dtype.kind == "b"


def test_csv_ids_are_text_exactly_as_written(tmp_path: Path) -> None:
    written = ["007", "7", "1e3", "12345678901234567890123", "NA", "true", "1.0", " x", "é"]
    rows = "".join(f"{name},1\n" for name in written)
    assert load_csv(tmp_path, f"id,y\n{rows}").ids.tolist() == written
    rows = "".join(f"1,{name}\n" for name in written)
    assert load_csv(tmp_path, f"y,image\n{rows}", id="image").ids.tolist() == written


def test_csv_of_other_programs(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbfid,y\r\n1,"a\nb"\r\n2,"c,d"\r\n3,e\r\n'
    data = load_csv(tmp_path, text)
    assert data.ids.tolist() == ["1", "2", "3"]
    assert data.samples.columns["y"].tolist() == ["a\nb", "c,d", "e"]


def test_big_integer_ids(tmp_path: Path) -> None:
    ids = [2**63 - 1, 2**53 + 1, -5]
    data = load_parquet(tmp_path, {"id": ids, "y": [1, 2, 3]})
    assert data.ids.tolist() == [str(number) for number in ids]
    np.savez(tmp_path / "t.npz", id=np.array([2**64 - 1, 1, 2], dtype=np.uint64), y=[0, 1, 2])
    assert load(tmp_path, "t.npz").ids[0] == "18446744073709551615"


def test_npz_and_npy(tmp_path: Path) -> None:
    features = np.zeros((3, 2))
    np.savez(tmp_path / "t.npz", id=np.array([b"a", b"b", b"c"]), y=[1, 2, 1], features=features)
    data = load(tmp_path, "t.npz")
    assert data.ids.tolist() == ["a", "b", "c"]
    assert data.column("y", "task").tolist() == [1, 2, 1]
    with pytest.raises(InputError, match=r"task 't': column 'features'.*shape \(3, 2\)"):
        data.column("features", "task 't'")
    np.save(tmp_path / "t.npy", np.array([4, 5, 6]))
    data = load(tmp_path, "t.npy")
    assert data.ids.tolist() == ["0", "1", "2"]
    assert data.column("label", "task").tolist() == [4, 5, 6]


def test_row_order_keeps_the_id_column_as_a_column(tmp_path: Path) -> None:
    data = load_csv(tmp_path, "id,y\na,1\na,2\nb,3\n", id="row-order")
    assert data.ids.tolist() == ["0", "1", "2"]
    assert "id" in data.samples.columns


def test_pandas_categories_text_and_gaps(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "kind": pd.Categorical(["x", None, "y"]),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "text": ["u", None, "v"],
            "nothing": [None, None, None],
            "day": pd.to_datetime(["2020-01-01", None, "2020-01-03"]),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    data = load(tmp_path, "t.parquet")
    as_words = {name: as_text(values).tolist() for name, values in data.samples.columns.items()}
    assert as_words["kind"] == ["x", "", "y"]
    assert as_words["flag"] == ["True", "", "False"]
    assert as_words["whole"] == ["1", "", "3"]
    assert as_words["text"] == ["u", "", "v"]
    assert as_words["nothing"] == ["", "", ""]
    assert as_words["day"][1] == ""
    assert as_words["day"][0].startswith("2020-01-01")


def test_decimals_are_numbers_and_heavy_columns_are_left_out(tmp_path: Path) -> None:
    from decimal import Decimal

    data = load_parquet(
        tmp_path,
        {
            "id": ["a", "b", "c"],
            "price": [Decimal("1.5"), Decimal("2.5"), None],
            "image": [b"1", b"2", b"3"],
            "embedding": [[1.0], [2.0], [3.0]],
            "y": [1, 2, 3],
        },
    )
    assert list(data.samples.columns) == ["price", "y"]
    assert data.samples.columns["price"].dtype == np.float64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("id,y\n", "split has no samples"),
        ("id,y\na,1\nb,2\na,3\n", "the sample id 'a' is there twice"),
        ("id,y\na,1\n,2\nb,3\n", "row 1 .* has no sample id"),
        ("name,y\na,1\nb,2\n", "no id column 'id'.*row-order"),
        ("id;y\na;1\nb;2\n", "no id column 'id': did you mean 'id;y'"),
        ("id,y,y\na,1,2\n", "the column 'y' is there twice"),
        ("id,y\na,1\nb\n", "cannot be read"),
        (b"id,y\n\xff,1\nb,2\n", "cannot be read"),
    ],
)
def test_csv_that_is_wrong(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=f"^data set 'd': [^\n]*{words}[^\n]*$"):
        load_csv(tmp_path, text)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz", ".npy", ".txt", ""])
@pytest.mark.parametrize(
    "content", [b"", b"garbage \x00\xff", b"PK\x03\x04", b"\x93NUMPY", b"PAR1"]
)
def test_files_that_are_not_what_they_claim(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^data set 'd': [^\n]*$"):
        load(tmp_path, path.name)


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".npy"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_files_that_are_cut_short(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"t{suffix}"
    numbers = np.arange(500)
    if suffix == ".npy":
        np.save(path, numbers)
    elif suffix == ".npz":
        np.savez(path, id=numbers, y=numbers)
    else:
        parquet.write_table(pa.table({"id": numbers, "y": numbers}), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=f"^data set 'd': .*t{suffix} cannot be read: [^\n]*$"):
        load(tmp_path, path.name)


def test_missing_and_pickled_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data set 'd': no file at"):
        load(tmp_path, "nowhere.csv")
    np.save(tmp_path / "t.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path, "t.npy")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"id": ["a", "b", "c"], "y": [1, 2]}, "column 'y' has 2 values for 3 sample ids"),
        ({"id": ["a", "b"], "y": 1}, "column 'y' has a single value"),
        ({"id": [["a", "b"], ["c", "d"]], "y": [1, 2]}, "'id'.*shape"),
        ({"id": "a", "y": [1, 2]}, "'id'.*shape"),
        ({"y": 3}, "no id column"),
    ],
)
def test_npz_with_odd_shapes(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "t.npz", **{name: np.array(value) for name, value in arrays.items()})
    with pytest.raises(InputError, match=words):
        load(tmp_path, "t.npz")


def test_a_single_number_is_no_column(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array(3))
    with pytest.raises(InputError, match="column 'label' has a single value"):
        load(tmp_path, "t.npy")


def test_inputs_are_checked_while_planning_and_read_when_asked_for(tmp_path: Path) -> None:
    text = "id,y\na,1\nb,2\nc,1\n"
    np.save(tmp_path / "i.npy", np.arange(6.0).reshape(3, 2))
    assert load_csv(tmp_path, text, inputs="i.npy").inputs.shape == (3, 2)
    np.save(tmp_path / "i.npy", np.zeros((4, 2)))
    with pytest.raises(InputError, match=r"4 inputs in .*i\.npy for 3 samples"):
        load_csv(tmp_path, text, inputs="i.npy")
    (tmp_path / "i.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"inputs: .*i\.npy cannot be read"):
        load_csv(tmp_path, text, inputs="i.npy")
    with pytest.raises(InputError, match="inputs: no file at"):
        load_csv(tmp_path, text, inputs="j.npy")
    (tmp_path / "i.csv").write_text("1")
    with pytest.raises(InputError, match=r"inputs are one \.npy file"):
        load_csv(tmp_path, text, inputs="i.csv")
    with pytest.raises(InputError, match="labels but no inputs"):
        _ = load_csv(tmp_path, text).inputs


def test_stratify(tmp_path: Path) -> None:
    text = "id,y,part\na,1,0.5\nb,2,1.5\nc,1,1\nd,,1\n"
    data = load_csv(tmp_path, text, stratify="y", split={"test": 0.5})
    assert data.strata is not None
    assert data.strata.tolist() == ["1", "2", "1", ""]  # a gap is a stratum of its own
    with pytest.raises(InputError, match="no column 'z' to stratify by"):
        load_csv(tmp_path, text, stratify="z")
    with pytest.raises(InputError, match="stratify by a column of labels; 'part' has fractions"):
        load_csv(tmp_path, text, stratify="part")


def test_digests_of_ids_and_split(tmp_path: Path) -> None:
    rows = [f"{number},{number % 3},{number}" for number in range(20)]
    options: dict[str, Any] = {"stratify": "y"}

    def loaded(lines: list[str], **more: Any) -> DataSet:
        return load_csv(tmp_path, "id,y,z\n" + "\n".join(lines), **{**options, **more})

    first = loaded(rows)
    reordered = loaded(rows[::-1])
    assert reordered.ids_digest != first.ids_digest
    assert reordered.evaluation_digest != first.evaluation_digest
    assert reordered.split_digest == first.split_digest
    assert set(reordered.evaluation_ids) == set(first.evaluation_ids)
    other_column = loaded([f"{row}00" for row in rows])
    assert other_column.split_digest == first.split_digest
    assert loaded(rows, split={"seed": 1}).split_digest != first.split_digest
    assert loaded(rows, stratify=None).split_digest != first.split_digest
    assert loaded(rows[1:]).split_digest != first.split_digest


def test_a_column_of_texts_as_inputs(tmp_path: Path) -> None:
    text = "id\treview\ty\na\tgood, very\t1\nb\t17\t0\nc\t\t1\n"
    (tmp_path / "t.tsv").write_text(text)
    data = load(tmp_path, "t.tsv", text="review")
    assert data.inputs[0:2] == ["good, very", "17"]
    assert data.inputs[2:3] == [""]
    assert data.column("y", "task").tolist() == [1, 0, 1]
    assert data.column("review", "task").tolist() == ["good, very", "17", ""]
    data = load_parquet(tmp_path, {"id": [1, 2, 3], "words": ["x", "y", "z"]}, text="words")
    assert data.inputs[1:3] == ["y", "z"]


def test_identity_of_texts(tmp_path: Path) -> None:
    def identity(review: str, **options: Any) -> Any:
        (tmp_path / "t.csv").write_text(f"id,one,two\na,x,y\nb,{review},y\n")
        table = Table(source="table", name="d", path="t.csv", **options)
        return table.inputs_identity(tmp_path, sha256)

    assert identity("x", text="one") == identity("x", text="one")
    assert identity("x", text="one") != identity("y", text="one")
    assert identity("x", text="one") != identity("x", text="two")
    assert identity("x") is None
    table = Table(source="table", name="d", path="t.csv", text="one")
    assert table.inputs_identity(tmp_path, lambda path: None) is None


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    text = "id,review\na,x\nb,y\nc,z\n"
    with pytest.raises(InputError, match=r"t\.csv has no column 'reviews' of texts: did you mean"):
        load_csv(tmp_path, text, text="reviews")
    with pytest.raises(ValueError, match="either 'inputs' or 'text'"):
        Table(source="table", name="d", path="t.csv", text="review", inputs="i.npy")
    with pytest.raises(InputError, match=r"the text in row 1 .* of column 'review' is missing"):
        load_parquet(tmp_path, {"id": [1, 2, 3], "review": ["x", None, "z"]}, text="review")
    with pytest.raises(InputError, match=r"the text in row 0 .* of column 'review' is 4"):
        load_parquet(tmp_path, {"id": [1, 2, 3], "review": [4, 5, 6]}, text="review")
