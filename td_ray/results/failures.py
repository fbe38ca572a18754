"""Failures as people read them: what failed alike on the tasks of a family is said once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ALIKE = ("model", "layer", "head", "stage", "error")


def grouped_failures(
    failures: Iterable[Mapping[Any, Any]], families: Mapping[Any, str]
) -> list[dict[str, Any]]:
    """Put failures together that differ in the task of a family alone.

    Args:
        failures: rows of the failures table.
        families: the family of each task that is in one.

    Returns:
        The first row of each group, whose ``task`` is ``family (200 tasks)`` where there are more.
    """
    groups: dict[tuple[Any, ...], list[Mapping[Any, Any]]] = {}
    for failure in failures:
        line = families.get(failure["task"], failure["task"])
        # a tile of pairs has no model, which pandas gives as a NaN that equals nothing
        alike = tuple(each if (each := failure[key]) == each else None for key in _ALIKE)
        groups.setdefault((line, *alike), []).append(failure)
    return [
        {**rows[0], "task": f"{line} ({len(rows):,} tasks)"} if len(rows) > 1 else dict(rows[0])
        for (line, *_), rows in groups.items()
    ]
