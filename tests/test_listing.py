"""Lists of tasks: a row for each line of the experiment, and sizes without targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_zoo import content, experiment

from td_ray import listing
from td_ray.tasks.drawn import GaussianTarget, SignTarget
from td_ray.tasks.targets import ColumnTarget, RegroupedTarget


def families(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines with a family each, on the small zoo's three classes of forty samples."""
    lines = {
        "pairs": {"target": "species", "family": {"kind": "subsets", "count": 3, "classes": 2}},
        "one": {"target": "species", "family": "one_vs_rest"},
        "coin": {"family": {"kind": "signs", "count": 200}},
        "noise": {"kind": "regression", "family": {"kind": "gaussian", "count": 200}},
    }
    return [{"name": name, "data": "points", **line} for name, line in {**lines, **changes}.items()]


def rows_of(zoo: Path, lines: list[dict[str, Any]], every: bool = False) -> dict[str, Any]:
    found = listing.tasks(experiment(zoo, tasks=lines), every)
    return {row["task"]: row for row in found}


def test_a_family_is_one_row(zoo: Path) -> None:
    rows = rows_of(zoo, [*content()["tasks"], *families()])
    assert list(rows) == ["species", "size", "pairs", "one", "coin", "noise"]
    assert [row["tasks"] for row in rows.values()] == ["1", "1", "3", "3", "200", "200"]
    assert rows["species"] == {
        "task": "species",
        "tasks": "1",
        "kind": "classification",
        "data": "points",
        "target": "species",
        "classes": "3",
        "train": "72",
        "evaluation": "48",
    }
    assert rows["pairs"]["target"] == "subsets of species"
    assert rows["pairs"]["train"] == "48"
    assert rows["pairs"]["evaluation"] == "32"
    assert rows["coin"]["target"] == "signs"
    assert rows["noise"]["classes"] == ""


def test_sizes_that_differ_are_a_range(zoo: Path) -> None:
    table = (zoo / "points.csv").read_text().splitlines()
    lines = [table[0], *(line for line in table[1:] if ",ant," not in line or line < "s060")]
    (zoo / "points.csv").write_text("\n".join(lines))
    row = rows_of(zoo, families())["pairs"]
    members = rows_of(zoo, families(), every=True)
    trains = sorted(int(members[f"pairs-{number:03d}"]["train"]) for number in range(3))
    assert trains[0] < trains[-1]
    assert row["train"] == f"{trains[0]}-{trains[-1]}"


def test_every_task_can_be_listed(zoo: Path) -> None:
    rows = rows_of(zoo, families(), every=True)
    assert len(rows) == 3 + 3 + 200 + 200
    assert rows["one-bee"]["classes"] == "2"
    assert "tasks" not in rows["one-bee"]


def test_no_target_is_computed_that_is_not_needed(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a target was computed")

    for target in (ColumnTarget, GaussianTarget, SignTarget, RegroupedTarget):
        monkeypatch.setattr(target, "values", refuse)
    lines = [*content()["tasks"], *families()]
    assert len(rows_of(zoo, [line for line in lines if line["name"] != "pairs"])) == 5
    with pytest.raises(AssertionError, match="computed"):
        rows_of(zoo, lines)
