"""From parts to the tables that people read.

The tables are a view of the current experiment: parts of models that have left it stay on disk,
and are not in the view. Each file is replaced atomically. Parts go through one after the other, so
that the largest tables, predictions and pairs, are never in memory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from td_ray.measures import SIMILAR, find_measure, fitting
from td_ray.measures.features import feature_measures
from td_ray.plan import HeadUnit, Plan
from td_ray.plan.tiles import StandInTile, Tile
from td_ray.results.pairs_table import Comparison
from td_ray.results.parts import Parts
from td_ray.results.schemas import FAILURES, TABLES
from td_ray.results.writing import TableWriter, table_writer
from td_ray.storage import Folder


def compact(plan: Plan, tiles: Sequence[Tile], parts: Parts) -> None:
    """Write all tables under ``output/results`` from the parts of a plan."""
    _write_heads(plan, parts)
    counts = _write_pairs(plan, tiles, parts)
    failures = failure_rows(plan, tiles, parts)
    tables = {
        "models": [_models(plan)],
        "tasks": [_tasks(plan)],
        "samples": _samples(plan),
        "searches": _searches(plan, parts),
        "comparisons": [_comparisons(plan, counts)],
        "failures": [pa.Table.from_pylist(failures, schema=FAILURES)],
        "timings": [pa.Table.from_pylist(list(parts.timings()), schema=TABLES["timings"])],
    }
    for name, pieces in tables.items():
        with _writer(parts.output, name) as writer:
            for piece in pieces:
                writer.append(piece)


def _writer(output: Folder, name: str) -> AbstractContextManager[TableWriter]:
    return table_writer(output, f"results/{name}/{name}.parquet", TABLES[name])


def _write_heads(plan: Plan, parts: Parts) -> None:
    with (
        _writer(parts.output, "heads") as heads,
        _writer(parts.output, "predictions") as predictions,
    ):
        for unit in plan.units:
            if parts.has_heads(str(unit.key), unit.runs):
                named = _named_heads(unit, parts)
                heads.append(named)
                predictions.append(named)


def _write_pairs(
    plan: Plan, tiles: Sequence[Tile], parts: Parts
) -> dict[Comparison, tuple[int, int]]:
    """The tiles of each comparison, one behind the other; how many pairs, and without a value."""
    represented = {unit.number: unit.representation for unit in plan.units}
    numbers = range(len(plan.manifest.representations))
    items = [represented.get(number) for number in numbers]
    names = {
        "model": pa.array([item and item.model_name for item in items]).dictionary_encode(),
        "layer": pa.array([item and item.layer for item in items]).dictionary_encode(),
    }
    by_comparison: dict[Comparison, list[Tile]] = defaultdict(list)
    for tile in tiles:
        by_comparison[Comparison(tile.task, tile.data, tile.head, tile.measure)].append(tile)
    counts = {}
    with _writer(parts.output, "pairs") as writer:
        for comparison, own in by_comparison.items():
            rows = nulls = 0
            floors = _floors_of_stand_ins(own, parts)
            for tile in own:
                if parts.has_pairs(tile.key):
                    table = parts.read_pairs(tile.key)
                    if isinstance(tile, StandInTile):
                        table = _with_floors(table, floors)
                    rows, nulls = rows + table.num_rows, nulls + table["value"].null_count
                    writer.append(_named_pairs(table, comparison, names))
            counts[comparison] = rows, nulls
    return counts


def _floors_of_stand_ins(tiles: Sequence[Tile], parts: Parts) -> dict[int, float]:
    """How well representations stand in for themselves, by their numbers."""
    floors: dict[int, float] = {}
    for tile in tiles:
        numbers = {member.number for member in tile.rows}
        is_there = isinstance(tile, StandInTile) and tile.columns[0].number in numbers
        if is_there and parts.has_pairs(tile.key):
            for row in parts.read_pairs(tile.key).select(["a", "b", "value"]).to_pylist():
                if row["a"] == row["b"] and row["value"] is not None:
                    floors[row["a"]] = row["value"]
    return floors


def _with_floors(table: pa.Table, floors: Mapping[int, float]) -> pa.Table:
    """Pairs of two representations, with the floors of both."""
    table = table.filter(pc.field("a") != pc.field("b"))
    for side in "ab":
        of_side = pa.array([floors.get(x) for x in table[side].to_pylist()], pa.float64())
        place = table.schema.get_field_index(f"floor_{side}")
        table = table.set_column(place, f"floor_{side}", of_side)
    return table


def _constant(value: str | None, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.string()), rows).dictionary_encode()


def _named_heads(unit: HeadUnit, parts: Parts) -> pa.Table:
    """The rows of a unit's parts that this plan asks for, with the names they go by."""
    table = parts.read_heads(str(unit.key))
    seeds = table["seed"].to_pylist()
    table = table.filter(pa.array([seed in unit.runs for seed in seeds]))
    keys = [(name, "ascending", "at_start") for name in ("data", "seed", "half")]
    table = table.take(pc.sort_indices(table, sort_keys=keys))
    return _with_names(table, unit)


def _with_names(table: pa.Table, unit: HeadUnit) -> pa.Table:
    names = {
        "model": unit.representation.model_name,
        "layer": unit.representation.layer,
        "task": unit.task.name,
        "head": unit.head.name,
    }
    for name, value in names.items():
        table = table.append_column(name, _constant(value, table.num_rows))
    return table


def _searches(plan: Plan, parts: Parts) -> Iterable[pa.Table]:
    """The candidates of all units that have chosen."""
    for unit in plan.units:
        if unit.is_searched and parts.has_choice(str(unit.key)):
            yield _with_names(parts.read_choice(str(unit.key)), unit)


def _named_pairs(
    table: pa.Table, comparison: Comparison, names: Mapping[str, pa.DictionaryArray]
) -> pa.Table:
    for side in "ab":
        number = table[side].combine_chunks()
        table = table.append_column(f"number_{side}", number)
        for name, values in names.items():
            table = table.append_column(f"{name}_{side}", values.take(number))
    for name, value in comparison._asdict().items():
        table = table.append_column(name, _constant(value, table.num_rows))
    return table


def _comparisons(plan: Plan, counts: Mapping[Comparison, tuple[int, int]]) -> pa.Table:
    """All that the plan compares, those without a pair included."""
    specs = {task.name: task.spec for task in plan.problem.tasks}
    asked = {
        Comparison(unit.task.name, data, unit.head.name, measure.name): None
        for unit in plan.units
        for data in unit.task.evaluation
        for measure in fitting(plan.problem.experiment.measures, unit.task.spec.kind)
    }
    rows = []
    for comparison in asked:
        measure = find_measure(comparison.measure)
        spec = specs[str(comparison.task)]
        form = measure.form(spec.kind, spec.distance)
        pairs, without = counts.get(comparison, (0, 0))
        rows.append(
            {
                **comparison._asdict(),
                "low": form.range[0],
                "high": form.range[1],
                "is_similarity": measure.direction == SIMILAR,
                "is_squared": form.squared,
                "is_symmetric": measure.is_symmetric,
                "itself": measure.itself,
                "source": measure.source,
                "pairs": pairs,
                "without_value": without,
            }
        )
    rows.extend(_comparisons_of_features(plan, counts))
    return pa.Table.from_pylist(rows, schema=TABLES["comparisons"])


def _comparisons_of_features(
    plan: Plan, counts: Mapping[Comparison, tuple[int, int]]
) -> Iterable[dict[str, Any]]:
    """Those without a task: every data set that features are compared on, and every measure."""
    for data in dict.fromkeys(unit.data.name for unit in plan.kept):
        for name, measure in feature_measures(plan.problem.experiment.measures).items():
            comparison = Comparison(None, data, None, name)
            pairs, without = counts.get(comparison, (0, 0))
            yield {
                **comparison._asdict(),
                "low": measure.range[0],
                "high": measure.range[1],
                "is_similarity": measure.direction == SIMILAR,
                "is_squared": measure.squared,
                "is_symmetric": True,
                "itself": measure.itself,
                "source": measure.source,
                "pairs": pairs,
                "without_value": without,
            }


def _models(plan: Plan) -> pa.Table:
    numbers = {name: number for number, name in enumerate(plan.manifest.representations)}
    lines = [spec.name for spec in plan.problem.experiment.tasks]
    rows = [
        {
            "model": item.model_name,
            "layer": item.layer,
            "number": numbers[item.name],
            "source": item.model.source,
            "metadata": json.dumps(item.metadata, sort_keys=True),
            "tasks": [line for line in lines if item.model.takes(line)],
        }
        for item in plan.problem.representations
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["models"])


def _tasks(plan: Plan) -> pa.Table:
    rows = [
        {
            "task": task.name,
            "family": task.family,
            "data": task.spec.data,
            "evaluated_on": list(task.evaluation),
            "target": task.spec.target,
            "kind": task.spec.kind,
            "classes": list(task.classes),
            "distance": None if task.is_classification else task.spec.distance,
            "center": None if task.is_classification else task.center,
            "n_train": task.n_train,
        }
        for task in plan.problem.tasks
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["tasks"])


def _samples(plan: Plan) -> Iterable[pa.Table]:
    """The samples of each evaluation split, and of each part of one that a task predicts."""
    seen: set[tuple[str, str]] = set()
    for task in plan.problem.tasks:
        for name in task.evaluation:
            digest = task.evaluation_digest(name)
            if (name, digest) in seen:
                continue
            seen.add((name, digest))
            ids = task.evaluation_ids(name).tolist()
            place = {"data": [name] * len(ids), "ids_digest": [digest] * len(ids)}
            columns = {**place, "position": list(range(len(ids))), "id": ids}
            yield pa.Table.from_pydict(columns, schema=TABLES["samples"])


def failure_rows(plan: Plan, tiles: Sequence[Tile], parts: Parts) -> list[dict[str, Any]]:
    """One row per unit of heads or of features and per tile whose failure is on record."""
    rows = []
    for unit in plan.units:
        record = parts.failure(str(unit.key))
        if record is not None and not parts.has_heads(str(unit.key), unit.runs):
            who = {"model": unit.representation.model_name, "layer": unit.representation.layer}
            what = {"task": unit.task.name, "head": unit.head.name, "unit": unit.key}
            rows.append({**who, **what, **record})
    for kept in plan.kept:
        record = parts.failure(str(kept.key))
        if record is not None and not parts.has_features(str(kept.key)):
            who = {"model": kept.representation.model_name, "layer": kept.representation.layer}
            rows.append({**who, "task": None, "head": None, "unit": kept.key, **record})
    for tile in tiles:
        record = parts.failure(tile.key)
        if record is not None and not parts.has_pairs(tile.key):
            what = {"task": tile.task, "head": tile.head, "unit": tile.key}
            rows.append({"model": None, "layer": None, **what, **record})
    return rows
