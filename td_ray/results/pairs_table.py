"""Reading the table of pairs without holding it: one comparison at a time, or one model's row.

Its row groups are tiles, so the statistics of ``number_a`` and ``number_b`` leave a reader of one
model's row with the few groups that have it, of 50 million pairs too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from td_ray.storage import Folder

VALUES = ("value", "tdx", "excess")
NO_REASON = "null, and no reason was recorded"

Floats = NDArray[np.float64]


class Comparison(NamedTuple):
    """What all pairs of one matrix share; measures of features have neither task nor head."""

    task: str | None
    data: str
    head: str | None
    measure: str

    @property
    def filter(self) -> pc.Expression:
        """The rows that belong to it."""
        return _equal_all(self._asdict())


def _equal_all(wanted: Mapping[str, Any]) -> pc.Expression:
    found = pc.scalar(True)
    for name, value in wanted.items():
        column = pc.field(name)
        found &= column.is_null() if value is None else column == value
    return found


@dataclass
class Gathered:
    """The pairs of one comparison, or of those of a family, as matrices.

    Attributes:
        values: (N, N) by column; NaN where there is no value, and on the diagonal.
        floors: (N,) NaN where there are no seeds.
        listed: (N, N) bool, pairs that have a row.
        reasons: why listed pairs have no value, with their numbers.
        n_examples: the least and the largest number; none where there is no pair.
        n_seeds: the largest number.
    """

    values: dict[str, Floats]
    floors: Floats
    listed: NDArray[np.bool_]
    reasons: Counter[str] = field(default_factory=Counter)
    n_examples: tuple[int, int] | None = None
    n_seeds: int = 0


class PairsTable:
    """The table of pairs of one output folder."""

    def __init__(self, output: Folder) -> None:
        self._output = output

    @cached_property
    def _dataset(self) -> ds.Dataset:
        return self._open()

    def _open(self) -> ds.Dataset:
        path = self._output.path("results/pairs/pairs.parquet")
        return ds.dataset(path, format="parquet", filesystem=self._output.filesystem)

    def batches(self, columns: Sequence[str], rows: pc.Expression) -> Iterator[pa.RecordBatch]:
        """The chosen columns of the chosen rows, a piece at a time."""
        yield from self._dataset.to_batches(columns=list(columns), filter=rows, batch_readahead=2)

    def frame(self, wanted: Mapping[str, Any], number: int | None = None) -> pd.DataFrame:
        """All columns of the rows whose columns have these values.

        Args:
            wanted: values by column; None for null.
            number: of a representation that is on one side of the pair.
        """
        rows = _equal_all(wanted)
        if number is not None:
            rows &= (pc.field("number_a") == number) | (pc.field("number_b") == number)
        frame: pd.DataFrame = self._open().to_table(filter=rows).to_pandas()
        return frame

    def gather(
        self,
        members: Sequence[Comparison],
        numbers: Sequence[int],
        columns: Sequence[str] = VALUES,
        *,
        is_symmetric: bool = True,
    ) -> Iterator[tuple[Comparison, Gathered]]:
        """Read comparisons that differ in their tasks alone into matrices, one by one.

        Args:
            members: which; they come in the order of the table.
            numbers: (N,) of the representations, in the order of the matrices.
            columns: of the values; ``value`` is always among them.
            is_symmetric: whether a row is the pair (b, a) as well.
        """
        place = np.full(max(numbers, default=0) + 1, -1)
        place[list(numbers)] = np.arange(len(numbers))
        names = tuple(dict.fromkeys(["value", *columns]))
        keys = ["number_a", "number_b", "floor_a", "floor_b", "reason", "n_examples", "n_seeds"]
        by_task = {member.task: member for member in members}
        shared = members[0].filter if len(members) == 1 else _of_family(members)
        current, found = None, None
        for batch in self._runs(["task", *keys, *names], shared):
            task = batch["task"][0].as_py()
            if found is None or task != current:
                if found is not None:
                    yield by_task.pop(current), found
                current, found = task, _nothing(len(numbers), names)
            _add(found, batch, place, is_symmetric=is_symmetric)
        if found is not None:
            yield by_task.pop(current), found
        for member in by_task.values():
            yield member, _nothing(len(numbers), names)

    def _runs(self, columns: Sequence[str], rows: pc.Expression) -> Iterator[pa.RecordBatch]:
        """Batches that are of one task each."""
        for batch in self.batches(columns, rows):
            # null is a task of its own: that of measures of features
            tasks = batch["task"].dictionary_encode("encode").indices.to_numpy()
            ends = [*np.flatnonzero(np.diff(tasks)) + 1, batch.num_rows]
            for start, end in pairwise([0, *ends]):
                if end > start:
                    yield batch.slice(start, end - start)


def _of_family(members: Sequence[Comparison]) -> pc.Expression:
    shared = members[0]._asdict()
    shared.pop("task")
    return _equal_all(shared) & pc.field("task").isin([member.task for member in members])


def _nothing(size: int, names: Sequence[str]) -> Gathered:
    square = (size, size)
    values = {name: np.full(square, np.nan) for name in names}
    return Gathered(values, np.full(size, np.nan), np.zeros(square, dtype=np.bool_))


def _add(
    found: Gathered, batch: pa.RecordBatch, place: NDArray[np.intp], *, is_symmetric: bool
) -> None:
    a, b = (place[batch[f"number_{side}"].to_numpy()] for side in "ab")
    found.listed[a, b] = True
    for name, matrix in found.values.items():
        values = batch[name].to_numpy(zero_copy_only=False)
        matrix[a, b] = values
        if is_symmetric:
            matrix[b, a] = values
    if is_symmetric:
        found.listed[b, a] = True
    found.floors[a] = batch["floor_a"].to_numpy(zero_copy_only=False)
    found.floors[b] = batch["floor_b"].to_numpy(zero_copy_only=False)
    without = batch["reason"].filter(batch["value"].is_null()).fill_null(NO_REASON)
    for count in without.value_counts().to_pylist():
        found.reasons[count["values"]] += count["counts"]
    sizes = pc.min_max(batch["n_examples"]).as_py()
    least, most = found.n_examples or (sizes["min"], sizes["max"])
    found.n_examples = min(least, sizes["min"]), max(most, sizes["max"])
    found.n_seeds = max(found.n_seeds, pc.max(batch["n_seeds"]).as_py())


def gathered_mean(each: Iterable[tuple[float, Gathered]]) -> Gathered:
    """Means over the tasks of a family.

    A mean is null where one of the tasks has no value: the others are not the same family.

    Args:
        each: shares, which sum to one, and what was gathered; two are held at a time.
    """
    parts = iter(each)
    share, mean = next(parts)
    lacking = np.isnan(mean.values["value"]).astype(np.int32)
    n, mean.reasons = 1, Counter()
    for values in (*mean.values.values(), mean.floors):
        values *= share
    for share, one in parts:
        n += 1
        for name, values in one.values.items():
            mean.values[name] += share * values
        mean.floors += share * one.floors
        mean.listed |= one.listed
        lacking += np.isnan(one.values["value"])
        sizes = [size for size in (mean.n_examples, one.n_examples) if size is not None]
        if sizes:
            mean.n_examples = min(size[0] for size in sizes), max(size[1] for size in sizes)
        mean.n_seeds = max(mean.n_seeds, one.n_seeds)
    counts = np.bincount(np.triu(np.where(mean.listed, lacking, 0), 1).ravel())
    for left, count in enumerate(counts.tolist()):
        if left and count:
            mean.reasons[f"{left} of the {n} tasks have no value"] = count
    return mean
