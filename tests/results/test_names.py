"""What is said of names and failures where one line of the experiment stands for many tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_results import Zoo, models

from td_ray.errors import InputError
from td_ray.results.failures import grouped_failures
from td_ray.results.tables import Results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Zoo(models(2), tasks=["digit", "random"], families={"random": 200}).write(tmp_path)


def test_a_wrong_name_is_told_the_lines_or_the_nearest_task(results: Results) -> None:
    with pytest.raises(InputError, match=r"'xyz': known: digit, random$"):
        results.matrix("xyz").to_pandas()
    with pytest.raises(InputError, match="did you mean 'random-017'"):
        results.matrix("radnom-017").to_pandas()


def test_failures_are_grouped_by_all_but_the_task_of_a_family() -> None:
    def failure(task: str, **changes: object) -> dict[str, object]:
        return {
            "model": "a",
            "layer": "l",
            "head": "h",
            "stage": "s",
            "error": "e",
            "task": task,
        } | changes

    families = {f"f-{number:03d}": "f" for number in range(3)}
    rows = [
        failure("digit"),
        *(failure(task) for task in families),
        failure("f-000", error="another"),
        failure("f-001", model=float("nan"), stage="pairs"),
        failure("f-002", model=None, stage="pairs"),
        failure("g-000"),
        failure("g-001"),
    ]
    found = grouped_failures(rows, families)
    assert [row["task"] for row in found] == [
        "digit",
        "f (3 tasks)",
        "f-000",
        "f (2 tasks)",
        "g-000",
        "g-001",
    ]
    assert found[2]["error"] == "another"
