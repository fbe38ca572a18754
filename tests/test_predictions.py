"""Reading what tiles compare: halves, probabilities, and heads that do not fit the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_up_heads import examples_of, made_up
from pyarrow import parquet
from small_zoo import experiment

from td_ray.errors import WorkError
from td_ray.measures import Examples, Outputs, find_measure
from td_ray.plan.tiles import Member, Tile
from td_ray.results.parts import Parts
from td_ray.results.schemas import HEAD_PART
from td_ray.results.sealing import sealed
from td_ray.storage import open_folder
from td_ray.sweep import run
from td_ray.work.pairs import run_tile
from td_ray.work.predictions import Reader

N, CLASSES = 200, 3


@pytest.fixture
def examples() -> Examples:
    made = examples_of(np.arange(N) % CLASSES, CLASSES)
    return Examples(made.blocks, made.truth, CLASSES, "ids")


def write(parts: Parts, unit: str, heads: Outputs, runs: list[Any], **changes: Any) -> Member:
    """One part with these heads, whose probabilities are stored with them."""
    rows = []
    for number, (seed, half) in enumerate(runs):
        row = {"data": "d", "seed": seed, "half": half, "n_evaluation": N, "ids_digest": "ids"}
        row |= {"encoding": "uint8", "predictions": heads.predicted[number].tobytes()}
        assert heads.probabilities is not None
        rows.append(row | {"probabilities": heads.probabilities[number].tobytes()} | changes)
    table = pa.Table.from_pylist(rows, schema=HEAD_PART)
    parts.write_heads(unit, [None, *sorted({seed for seed, _ in runs if seed is not None})], table)
    return Member(int(unit[1:]), unit)


def tile_of(measure: str, members: list[Member]) -> Tile:
    sides = (tuple(members), tuple(members))
    return Tile(
        "tile", "t", "classification", "cosine", "logistic", "d", measure, *sides, None, 128
    )


RUNS = [(None, None), (0, "a"), (0, "b"), (7, "a"), (7, "b")]


@pytest.mark.parametrize("measure", ["js_divergence", "ensemble_gain", "td"])
@pytest.mark.parametrize("room", [2**28, 1])
def test_all_heads_of_members_are_compared(
    tmp_path: Path,
    examples: Examples,
    monkeypatch: pytest.MonkeyPatch,
    measure: str,
    room: int,
) -> None:
    """With room for a single member at a time as with room for all."""
    monkeypatch.setattr("td_ray.work.pairs.PROBABILITY_BYTES", room)
    monkeypatch.setattr("td_ray.work.predictions.HELD_BYTES", room)
    parts = Parts(open_folder(tmp_path))
    made = [made_up(5, examples, seed) for seed in range(4)]
    members = [write(parts, f"u{k}", heads, RUNS) for k, heads in enumerate(made)]
    run_tile(tile_of(measure, members), examples, Reader(parts, [0, 7]))
    assert parts.failure("tile") is None
    rows = parts.read_pairs("tile").to_pylist()
    assert [(row["a"], row["b"]) for row in rows] == [
        (a, b) for a in range(4) for b in range(a + 1, 4)
    ]
    form = find_measure(measure).form("classification")
    for row in rows:
        a, b = made[row["a"]], made[row["b"]]
        square = form.between(a, b)
        assert row["value"] == pytest.approx(square[0, 0], abs=1e-12)
        assert row["se"] == pytest.approx(form.with_errors(a, b)[1][0, 0], abs=1e-12)
        crossed = (square[1, 2] + square[2, 1] + square[3, 4] + square[4, 3]) / 4
        assert row["tdx"] == pytest.approx(crossed, abs=1e-12)
        own = form.between(a, a)
        assert row["floor_a"] == pytest.approx((own[1, 2] + own[3, 4]) / 2, abs=1e-12)
        assert (row["n_examples"], row["n_seeds"], row["reason"]) == (N, 2, None)


def test_directions_of_a_release_are_both_there(tmp_path: Path, examples: Examples) -> None:
    parts = Parts(open_folder(tmp_path))
    made = [made_up(5, examples, 0, skill=3), made_up(5, examples, 1, skill=1)]
    members = [write(parts, f"u{k}", heads, RUNS) for k, heads in enumerate(made)]
    run_tile(tile_of("negative_flip_rate", members), examples, Reader(parts, [0, 7]))
    there, back = parts.read_pairs("tile").to_pylist()
    assert [(row["a"], row["b"]) for row in (there, back)] == [(0, 1), (1, 0)]
    for row in (there, back):
        a, b = ([each == examples.truth for each in made[row[side]].predicted] for side in "ab")
        assert row["value"] == pytest.approx((a[0] & ~b[0]).mean())
        halves = [(1, 2), (2, 1), (3, 4), (4, 3)]
        crossed = np.mean([(a[i] & ~b[j]).mean() for i, j in halves])
        floors = [np.mean([(x[i] & ~x[j]).mean() for i, j in halves]) for x in (a, b)]
        found = (row["tdx"], row["floor_a"], row["floor_b"])
        assert found == pytest.approx((crossed, *floors))
        assert row["excess"] == pytest.approx(crossed - np.mean(floors))
        assert row["se"] > 0
    assert there["value"] > back["value"] + 0.2


def test_heads_without_probabilities_are_named(tmp_path: Path, examples: Examples) -> None:
    parts = Parts(open_folder(tmp_path))
    heads = made_up(1, examples, 0)
    members = [
        write(parts, "u0", heads, RUNS[:1]),
        write(parts, "u1", heads, RUNS[:1], probabilities=None),
    ]
    run_tile(tile_of("js_divergence", members), examples, Reader(parts, []))
    failure = parts.failure("tile")
    assert failure is not None
    assert failure["error"].startswith("measure 'js_divergence' needs probabilities, and the heads")
    assert str(tmp_path / "parts/heads/u1") in failure["error"]
    run_tile(tile_of("td", members), examples, Reader(parts, []))
    assert parts.failure("tile") is None


def test_heads_on_other_samples_are_named_with_their_ids(zoo: Path) -> None:
    """As parts that were copied from elsewhere."""
    results = run(experiment(zoo), backend="inline")
    parts = Parts(open_folder(zoo / "output"))
    samples = results.table("samples")
    ids = samples["id"].tolist()
    strange = [*ids[2:], "strange"]
    more = samples.iloc[: len(strange)].assign(ids_digest="old", id=strange)
    file = zoo / "output/results/samples/samples.parquet"
    both = pa.concat_tables(
        [
            parquet.read_table(file),
            pa.Table.from_pandas(more).cast(parquet.read_schema(file), safe=False),
        ]
    )
    parquet.write_table(both, file)
    digest = samples["ids_digest"].iloc[0]
    part = min((zoo / "output/parts/heads").glob("*/*.parquet"))
    table = parquet.read_table(part)
    made = examples_of(np.zeros(len(ids), dtype=int), 3)
    own = Examples(made.blocks, made.truth, 3, digest)
    old = table.set_column(
        table.column_names.index("ids_digest"), "ids_digest", pa.array(["old"] * len(table))
    )
    part.write_bytes(sealed(old, part.parent.name, table.schema.metadata[b"runs"].decode()))
    reader = Reader(parts, [0, 1])
    with pytest.raises(WorkError) as caught:
        reader.read((Member(0, part.parent.name),), "points", own)
    error = str(caught.value)
    assert f"{part.parent} were evaluated on other samples of 'points'" in error
    assert "1 that the task has no more (such as 'strange')" in error
    assert f"2 of the task that they lack (such as {ids[0]!r}, {ids[1]!r})" in error
    assert error.endswith("remove that folder and run again, to have them fitted anew")


def test_a_tile_that_was_cut_short_is_compared_again(zoo: Path) -> None:
    first = run(experiment(zoo), backend="inline")
    pairs = sorted((zoo / "output/parts/pairs").glob("*.parquet"))
    whole = [part.read_bytes() for part in pairs]
    pairs[0].write_bytes(whole[0][: len(whole[0]) // 2])
    pairs[1].write_bytes(b"")
    again = run(experiment(zoo), backend="inline")
    assert again.failures().empty
    assert [part.read_bytes() for part in pairs] == whole
    assert again.pairs().equals(first.pairs())
