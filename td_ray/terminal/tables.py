"""Rows as tables, for people at a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from td_ray.printable import printable


def plain_console(**options: Any) -> Console:
    """A console that takes text as it is: ``[red]`` and ``:smile:`` are what they say."""
    return Console(highlight=False, markup=False, emoji=False, **options)


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print mappings as a table; a key that a row lacks is left empty."""
    table = Table(box=None, pad_edge=False)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for key in keys:
        table.add_column(printable(key), overflow="fold")
    for row in rows:
        table.add_row(*(cell(row.get(key, "")) for key in keys))
    plain_console().print(table)


def cell(value: Any) -> str:
    """A value as it stands in a table."""
    return f"{value:.4g}" if isinstance(value, float) else printable(value)
