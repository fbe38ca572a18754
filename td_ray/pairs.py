"""Pairs from predictions: read the heads of a tile, compare them, write the tile's part.

    td      = d( h(F), h'(F') )                       heads on the full training split
    floor   = mean_r d( h_{A_r}(F), h_{B_r}(F) )      heads on seed r's two halves
    tdx     = mean_r [ d( h_{A_r}(F), h'_{B_r}(F') ) + d( h_{B_r}(F), h'_{A_r}(F') ) ] / 2
    excess  = tdx - (floor + floor') / 2

It needs no torch, so that a worker that only compares starts fast.
"""

from __future__ import annotations

import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from td_ray import inference
from td_ray.errors import WorkError
from td_ray.measures import distance_matrix
from td_ray.results.parts import Parts
from td_ray.results.schemas import PAIR_PART
from td_ray.tiles import Member, Tile

NO_DIRECTION = "a head predicts a constant, which has no direction"
NO_DIRECTION_HALF = "a head fitted on half the training split predicts a constant"


HELD_BYTES = 2**28
"""Of predictions that a reader keeps for its next tiles."""

Distance = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]


@dataclass(frozen=True)
class Predictions:
    """The predictions of M representations on n samples, over R seeds.

    Attributes:
        full: (M, n) of heads on the full training split.
        seeded: (M,) bool, False for stored predictions without halves.
        half_a, half_b: (R, S, n) of the S seeded ones.
        samples: digest of the samples' ids in their order.
        floors: (M,) noise floors by measure and distance, once they are known.
    """

    full: NDArray[Any]
    seeded: NDArray[np.bool_]
    half_a: NDArray[Any]
    half_b: NDArray[Any]
    samples: str
    floors: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What they take."""
        return self.full.nbytes + self.half_a.nbytes + self.half_b.nbytes


class Reader:
    """Reads predictions, and keeps those that were used last: a tile shares them with others."""

    def __init__(self, parts: Parts, seeds: Sequence[int]) -> None:
        self.parts, self._seeds = parts, seeds
        self._held: OrderedDict[tuple[Any, ...], Predictions] = OrderedDict()

    def read(
        self, members: tuple[Member, ...], data: str, examples: NDArray[np.intp] | None = None
    ) -> Predictions:
        """Read the predictions of members on a data set, or on some examples of it.

        Raises:
            WorkError: members that were evaluated on other samples.
        """
        key = (members, data, None if examples is None else len(examples))
        if key not in self._held:
            self._held[key] = self._read(members, data, examples)
        self._held.move_to_end(key)
        while len(self._held) > 2 and sum(each.bytes for each in self._held.values()) > HELD_BYTES:
            self._held.popitem(last=False)
        return self._held[key]

    def _read(
        self, members: Sequence[Member], data: str, examples: NDArray[np.intp] | None
    ) -> Predictions:
        full, half_a, half_b, seeded = [], [], [], []
        samples = ""
        names = ["data", "seed", "half", "encoding", "predictions", "ids_digest"]
        for member in members:
            found: dict[tuple[int | None, str | None], NDArray[Any]] = {}
            for row in self.parts.read_heads(member.unit, names).to_pylist():
                if row["data"] != data:
                    continue
                samples = samples or row["ids_digest"]
                if row["ids_digest"] != samples:
                    raise WorkError(
                        f"unit {member.unit} was evaluated on other samples of '{data}'"
                    )
                whole = _decode(row["predictions"], row["encoding"])
                found[row["seed"], row["half"]] = whole if examples is None else whole[examples]
            full.append(found[None, None])
            seeded.append(len(found) > 1)
            if len(found) > 1:
                half_a.append([found[seed, "a"] for seed in self._seeds])
                half_b.append([found[seed, "b"] for seed in self._seeds])
        halves = (_by_seed(half_a), _by_seed(half_b))
        return Predictions(np.stack(full), np.array(seeded), *halves, samples)


def run_tile(tile: Tile, reader: Reader) -> None:
    """Compare all pairs of a tile and write its part, or its failure."""
    started, parts = time.perf_counter(), reader.parts
    try:
        parts.write_pairs(tile.key, compare(tile, reader))
        parts.clear_failure(tile.key)
    except OSError:
        raise  # such as a full disk: the tile stays missing
    except Exception as error:  # one tile's trouble costs that tile alone
        parts.write_failure(tile.key, "pairs", error)
    parts.write_timing(tile.key, "pairs", time.perf_counter() - started, platform.node())


def compare(tile: Tile, reader: Reader) -> pa.Table:
    """The wanted pairs of a tile, as rows of its part.

    Raises:
        WorkError: predictions of other samples.
    """
    rows, columns = (
        reader.read(side, tile.data, tile.examples) for side in (tile.rows, tile.columns)
    )
    if rows.samples != columns.samples:
        raise WorkError(f"rows and columns were evaluated on other samples of '{tile.data}'")
    return _table(tile, rows, columns)


def _decode(stored: bytes, encoding: str) -> NDArray[Any]:
    array: NDArray[Any] = np.frombuffer(stored, dtype=np.dtype(encoding).newbyteorder("<"))
    # small distances between values are differences of nearly equal numbers
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _by_seed(members: list[list[NDArray[Any]]]) -> NDArray[Any]:
    """(S, R, n) lists to an (R, S, n) array."""
    return np.array(members).swapaxes(0, 1) if members and members[0] else np.empty((0, 0, 0))


def _table(tile: Tile, rows: Predictions, columns: Predictions) -> pa.Table:
    distance = partial(distance_matrix, tile.measure, tile.kind, distance=tile.distance)
    a, b = np.nonzero(tile.wanted)
    value = distance(rows.full, columns.full)[a, b]
    row_floors, column_floors = (_floors(side, tile, distance) for side in (rows, columns))
    tdx = _tdx(rows, columns, distance)
    excess = inference.excess(tdx, row_floors, column_floors)
    both = rows.seeded[a] & columns.seeded[b]
    n_seeds = np.where(both, len(rows.half_a), 0)
    columns_of_table = {
        "a": np.array([member.number for member in tile.rows])[a],
        "b": np.array([member.number for member in tile.columns])[b],
        "value": _nullable(value),
        "floor_a": _nullable(row_floors[a]),
        "floor_b": _nullable(column_floors[b]),
        "tdx": _nullable(tdx[a, b]),
        "excess": _nullable(excess[a, b]),
        "n_examples": np.full(len(a), rows.full.shape[1]),
        "n_seeds": n_seeds.astype(np.int32),
        "reason": _reasons(value, tdx[a, b], both),
    }
    arrays = [
        pa.array(columns_of_table[field.name], field.type)
        if field.name in columns_of_table
        else pa.nulls(len(a), field.type)
        for field in PAIR_PART
    ]
    return pa.Table.from_arrays(arrays, schema=PAIR_PART)


def _reasons(
    value: NDArray[np.float64], tdx: NDArray[np.float64], seeded: NDArray[np.bool_]
) -> list[str | None]:
    """Why a value, or what comes of the halves, is null; stored predictions have no halves."""
    return [
        NO_DIRECTION if headline else NO_DIRECTION_HALF if half else None
        for headline, half in zip(np.isnan(value), np.isnan(tdx) & seeded, strict=True)
    ]


def _floors(predictions: Predictions, tile: Tile, distance: Distance) -> NDArray[np.float64]:
    """(M,) noise floors; NaN where there are no seeds."""
    key = (tile.measure, tile.distance)
    if key not in predictions.floors:
        floors = np.full(len(predictions.seeded), np.nan)
        if len(predictions.half_a):
            floors[predictions.seeded] = inference.noise_floor(
                predictions.half_a, predictions.half_b, distance
            )
        predictions.floors[key] = floors
    return predictions.floors[key]


def _tdx(rows: Predictions, columns: Predictions, distance: Distance) -> NDArray[np.float64]:
    """(A, B) discrepancies across disjoint halves; NaN where one of two has no seeds."""
    tdx = np.full((len(rows.seeded), len(columns.seeded)), np.nan)
    if len(rows.half_a) and len(columns.half_a):
        tdx[np.ix_(rows.seeded, columns.seeded)] = inference.cross_discrepancy(
            rows.half_a, rows.half_b, columns.half_a, columns.half_b, distance
        )
    return tdx


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
