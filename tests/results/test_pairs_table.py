"""The table of pairs is read a comparison or a row at a time, and never whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from small_zoo import experiment, write_zoo

from td_ray import InputError
from td_ray.results.pairs_table import NO_REASON, Comparison, PairsTable
from td_ray.results.schemas import PAIRS
from td_ray.results.writing import table_writer
from td_ray.storage import open_folder
from td_ray.sweep import run

NAME = "results/pairs/pairs.parquet"
BUCKET, BUCKETS = 128, 6


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of 768 models as tiles leave them; the value of (a, b) is a + b / 1000."""
    output = open_folder(tmp_path_factory.mktemp("pairs"))
    with table_writer(output, NAME, PAIRS) as writer:
        for task in (None, "digit"):
            for low in range(BUCKETS):
                for high in range(low, BUCKETS):
                    writer.append(tile(low, high, task))
    assert output.local is not None
    return output.local / NAME


def tile(low: int, high: int, task: str | None) -> pa.Table:
    rows, columns = (np.arange(each * BUCKET, (each + 1) * BUCKET) for each in (low, high))
    a, b = (side.ravel() for side in np.meshgrid(rows, columns, indexing="ij"))
    a, b = a[a < b], b[a < b]
    value = np.where(a == 5, np.nan, a + b / 1000)
    columns_of = {
        "number_a": a,
        "number_b": b,
        **{f"model_{side}": [f"m{k}" for k in each] for side, each in (("a", a), ("b", b))},
        **{name: ["last"] * len(a) for name in ("layer_a", "layer_b")},
        "task": [task] * len(a),
        "data": ["digits"] * len(a),
        "measure": ["td"] * len(a),
        "value": pa.array(value, mask=np.isnan(value)),
        "n_examples": a + 1,
        "n_seeds": np.zeros(len(a), dtype=int),
    }
    arrays = [
        pa.array(columns_of[field.name], field.type)
        if field.name in columns_of
        else pa.nulls(len(a), field.type)
        for field in PAIRS
    ]
    return pa.Table.from_arrays(arrays, schema=PAIRS)


@pytest.mark.parametrize("task", [None, "digit"])
def test_a_comparison_is_gathered_wherever_its_rows_are(file: Path, task: str | None) -> None:
    size = BUCKET * BUCKETS
    wanted = Comparison(task, "digits", None, "td")
    ((member, found),) = PairsTable(open_folder(file.parents[2])).gather(
        [wanted], range(size), ("value",)
    )
    assert member == wanted
    a, b = np.triu_indices(size, 1)
    expected = np.where(a == 5, np.nan, a + b / 1000)
    np.testing.assert_array_equal(found.values["value"][a, b], expected)
    np.testing.assert_array_equal(found.values["value"][b, a], expected)
    assert found.listed.sum() == size * (size - 1)
    assert found.reasons == Counter({NO_REASON: size - 6})
    assert found.n_examples == (1, size - 1)


def test_one_row_reads_few_row_groups(file: Path) -> None:
    rows = PairsTable(open_folder(file.parents[2])).frame(
        {"task": "digit", "measure": "td"}, number=300
    )
    assert len(rows) == BUCKET * BUCKETS - 1
    assert ((rows["number_a"] == 300) | (rows["number_b"] == 300)).all()
    metadata = parquet.read_metadata(file)
    names = metadata.schema.names
    may_hold = 0
    for group in range(metadata.num_row_groups):
        sides = [
            metadata.row_group(group).column(names.index(f"number_{side}")).statistics
            for side in "ab"
        ]
        may_hold += any(side.min <= 300 <= side.max for side in sides)
    assert metadata.num_row_groups >= BUCKETS * (BUCKETS - 1)
    assert may_hold <= metadata.num_row_groups / 2


def test_readers_see_plain_columns(file: Path) -> None:
    schema = parquet.read_schema(file)
    assert schema.field("model_a").type == pa.string()
    assert schema.names == PAIRS.names
    chunk = parquet.read_metadata(file).row_group(0).column(PAIRS.names.index("model_a"))
    assert chunk.has_dictionary_page


def test_a_file_that_could_not_be_finished_is_not_there(tmp_path: Path) -> None:
    def fill() -> None:
        with table_writer(open_folder(tmp_path), "pairs.parquet", PAIRS) as writer:
            writer.append(tile(0, 0, None))
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_results_know_rows_and_scales(tmp_path: Path) -> None:
    write_zoo(tmp_path)
    results = run(experiment(tmp_path), backend="inline")
    row = results.row("net-2", "species")
    assert len(row) == 3
    pairs = results.pairs().query("task == 'species'")
    own = pairs[(pairs["model_a"] == "net-2") | (pairs["model_b"] == "net-2")]
    assert row["value"].tolist() == own["value"].tolist()
    with pytest.raises(InputError, match="no representation is called 'net-9'"):
        results.row("net-9", "species")
    known = results.comparisons().set_index("task")
    assert known["pairs"].tolist() == [6, 6]
    assert known["without_value"].tolist() == [0, 0]
    assert known.loc["size", "high"] == 4
    assert known.loc["size", "is_squared"]
    assert not known.loc["species", "is_similarity"]


def test_a_task_may_be_left_out_where_there_is_one(tmp_path: Path) -> None:
    write_zoo(tmp_path)
    results = run(experiment(tmp_path), backend="inline")
    with pytest.raises(InputError, match="several tasks: name one of species, size"):
        results.matrix()
    with pytest.raises(InputError, match="no pairs have measure 'cka'"):
        results.matrix("species", "cka")
    with pytest.raises(InputError, match="a matrix shows one of value, tdx, excess, not 'floor'"):
        results.matrix("species", value="floor")
