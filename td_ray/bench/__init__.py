"""Benchmarks that anyone can rerun: td-ray and named rivals side by side, at stated quality."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def run_benchmarks(names: list[str]) -> dict[str, Any]:
    """Run benchmarks by name; returns the machine and the rows of each.

    Raises:
        InputError: no such benchmark.
    """
    from td_ray.bench import heads, pairs
    from td_ray.errors import InputError
    from td_ray.registry import closest

    known: dict[str, Callable[[], list[Row]]] = {"heads": heads.run, "pairs": pairs.run}
    chosen = list(known) if names == ["all"] else names
    for name in chosen:
        if name not in known:
            raise InputError(f"no benchmark is called '{name}': {closest(name, [*known, 'all'])}")
    rows = {name: known[name]() for name in chosen}
    return {"machine": machine(), "rows": rows}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
