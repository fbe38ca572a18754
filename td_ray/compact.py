"""From parts to the tables that people read.

The tables are a view of the current experiment: parts of models that have left it stay on disk,
and are not in the view. Each file is replaced atomically.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from td_ray.files import atomic
from td_ray.plan import HeadUnit, Plan
from td_ray.results.parts import Parts
from td_ray.results.schemas import FAILURES, TABLES
from td_ray.tiles import Tile
from td_ray.zoo import Representation


def compact(plan: Plan, tiles: Sequence[Tile], parts: Parts, output: Path) -> None:
    """Write all tables under ``output/results`` from the parts of a plan."""
    numbered = {unit.number: unit.representation for unit in plan.units}
    finished = [unit for unit in plan.units if parts.has_heads(str(unit.key), unit.runs)]
    compared = [tile for tile in tiles if parts.has_pairs(tile.key)]
    heads = _concat((_named_heads(unit, parts) for unit in finished), "heads")
    tables = {
        "models": _models(plan),
        "tasks": _tasks(plan),
        "samples": _samples(plan),
        "heads": heads.select(TABLES["heads"].names),
        "searches": _searches(plan, parts),
        "predictions": heads.select(TABLES["predictions"].names),
        "pairs": _concat((_named_pairs(tile, numbered, parts) for tile in compared), "pairs"),
        "failures": pa.Table.from_pylist(failure_rows(plan, tiles, parts), schema=FAILURES),
        "timings": pa.Table.from_pylist(list(parts.timings()), schema=TABLES["timings"]),
    }
    for name, table in tables.items():
        with atomic(output / "results" / name / f"{name}.parquet") as temporary:
            parquet.write_table(table.cast(TABLES[name]), temporary, compression="zstd")


def _concat(tables: Iterable[pa.Table], name: str) -> pa.Table:
    found = list(tables)
    if found:
        return pa.concat_tables(found, promote_options="permissive")
    names = dict.fromkeys([*TABLES[name], *(TABLES["predictions"] if name == "heads" else ())])
    return pa.schema(list(names)).empty_table()


def _constant(value: str | None, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.string()), rows)


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


def _searches(plan: Plan, parts: Parts) -> pa.Table:
    """The candidates of all units that have chosen."""
    units = [unit for unit in plan.units if unit.is_searched and parts.has_choice(str(unit.key))]
    named = (_with_names(parts.read_choice(str(unit.key)), unit) for unit in units)
    return _concat((table.select(TABLES["searches"].names) for table in named), "searches")


def _named_pairs(tile: Tile, numbered: dict[int, Representation], parts: Parts) -> pa.Table:
    table = parts.read_pairs(tile.key)
    for side in "ab":
        items = [numbered[number] for number in table[side].to_pylist()]
        names = pa.array([item.model_name for item in items])
        layers = pa.array([item.layer for item in items])
        table = table.append_column(f"model_{side}", names)
        table = table.append_column(f"layer_{side}", layers)
    constants = {
        "task": tile.task,
        "data": tile.data,
        "head": tile.head,
        "measure": tile.measure,
    }
    for name, value in constants.items():
        table = table.append_column(name, _constant(value, table.num_rows))
    return table.select(TABLES["pairs"].names)


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


def _samples(plan: Plan) -> pa.Table:
    """The samples of each evaluation split, and of each part of one that a task predicts."""
    tables: dict[tuple[str, str], pa.Table] = {}
    for task in plan.problem.tasks:
        for name in task.evaluation:
            digest = task.evaluation_digest(name)
            if (name, digest) in tables:
                continue
            ids = task.evaluation_ids(name).tolist()
            columns = {
                "data": _constant(name, len(ids)),
                "ids_digest": _constant(digest, len(ids)),
                "position": list(range(len(ids))),
                "id": ids,
            }
            tables[name, digest] = pa.Table.from_pydict(columns, schema=TABLES["samples"])
    return pa.concat_tables(tables.values())


def failure_rows(plan: Plan, tiles: Sequence[Tile], parts: Parts) -> list[dict[str, Any]]:
    """One row per unit of heads and per tile whose failure is on record."""
    rows = []
    for unit in plan.units:
        record = parts.failure(str(unit.key))
        if record is not None and not parts.has_heads(str(unit.key), unit.runs):
            who = {"model": unit.representation.model_name, "layer": unit.representation.layer}
            what = {"task": unit.task.name, "head": unit.head.name, "unit": unit.key}
            rows.append({**who, **what, **record})
    for tile in tiles:
        record = parts.failure(tile.key)
        if record is not None and not parts.has_pairs(tile.key):
            what = {"task": tile.task, "head": tile.head, "unit": tile.key}
            rows.append({"model": None, "layer": None, **what, **record})
    return rows
