"""What ``td-ray bench`` prints: a table for each benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from td_ray.terminal.tables import cell, plain_console, print_rows


def print_benchmarks(
    machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], notes: Sequence[str]
) -> None:
    """Print the rows of benchmarks, a table each, and the notes below them."""
    console = plain_console()
    console.print(", ".join(f"{key} {cell(value)}" for key, value in machine.items()))
    for name in dict.fromkeys(row["benchmark"] for row in rows):
        own = [row for row in rows if row["benchmark"] == name]
        console.print(f"\n{name}")
        if name == "heads":
            _print_heads(console, own)
        elif name == "pairs":
            _print_pairs(console, own)
        elif name == "measures":
            _print_measures(console, own)
        elif name == "sweep":
            _print_sweeps(console, own)
        else:
            print_rows([{key: row[key] for key in row if key != "benchmark"} for row in own])
    for note in notes:
        console.print(note, style="dim")


def _print_pairs(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """A row per method, in units for people."""
    table = Table(box=None, pad_edge=False)
    for column in ("case", "method"):
        table.add_column(column, no_wrap=True)
    for column in ("classes", "models", "pairs/s", "scipy", "of peak", "MiB"):
        table.add_column(column, justify="right")
    for row in rows:
        times, share, size = row["times_scipy"], row["share_of_peak"], row["peak_memory_bytes"]
        table.add_row(
            row["case"],
            row["method"],
            f"{row['classes']:,}",
            f"{row['models']:,}",
            f"{row['pairs_per_second']:,.0f}",
            "" if times is None else f"{times:.3g}x",
            "" if share is None else f"{share:.0%}",
            "" if size is None else f"{size / 2**20:,.0f}",
        )
    console.print(table)


def _print_measures(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """A row per measure and method, in units for people, below what they share."""
    console.print(rows[0]["case"])
    table = Table(box=None, pad_edge=False)
    for column in ("measure", "method"):
        table.add_column(column, no_wrap=True)
    for column in ("models", "pairs/s", "naive", "MiB"):
        table.add_column(column, justify="right")
    for row in rows:
        size = row["peak_memory_bytes"]
        table.add_row(
            row["measure"],
            row["method"],
            str(row["models"]),
            f"{row['pairs_per_second']:,.3g}",
            f"{row['times_naive']:.3g}x",
            "" if size is None else f"{size / 2**20:,.0f}",
        )
    console.print(table)


def _print_sweeps(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """A row per sweep and method, in units for people."""
    table = Table(box=None, pad_edge=False)
    for column in ("case", "method"):
        table.add_column(column, no_wrap=True)
    for column in ("models", "seconds", "efficiency", "s/unit"):
        table.add_column(column, justify="right")
    for row in rows:
        efficiency, of_unit = row["efficiency"], row["seconds_per_unit"]
        table.add_row(
            row["case"],
            row["method"],
            f"{row['models']:,}",
            f"{row['seconds']:.1f}",
            "" if efficiency is None else f"{efficiency:.0%}",
            "" if of_unit is None else f"{of_unit:.3f}",
        )
    console.print(table)


def _print_heads(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table per case, all of the same widths, with what is gained over scikit-learn."""
    widths = {"heads": 5, "threads": 7, "s/head": 7, "faster": 6, "agreement": 9}
    widths |= {"memory": 6, "product": 7}
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        seconds_of = {row["method"]: row["seconds_per_head"] for row in own}
        usual = seconds_of["sklearn" if "sklearn" in seconds_of else "sklearn_ridge"]
        console.print(f"\n{case}", style="bold")
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("method", min_width=len("sklearn_ridge_all_targets"))
        for column, width in widths.items():
            table.add_column(column, justify="right", min_width=width)
        for row in own:
            seconds = row["seconds_per_head"]
            table.add_row(
                row["method"],
                str(row["heads_compared"]),
                _optional(row["threads"], "d"),
                _optional(seconds, ".2g"),
                _optional(seconds and usual / seconds, ".1f"),
                _optional(row["agreement"], ".5f"),
                _optional(row["peak_memory_ratio"], ".1f"),
                _optional(row.get("matmul_share"), ".0%"),
            )
        console.print(table)


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
