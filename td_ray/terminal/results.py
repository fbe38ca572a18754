"""What has been found, and what went wrong, as text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import typer
from rich.table import Table

from td_ray.errors import InputError
from td_ray.printable import printable
from td_ray.terminal.tables import plain_console

# A table that is cut to the terminal's width loses the names of its rows first.
WIDER_THAN_ANY = 100_000

HALVES = "between heads of one network, fitted on two halves of the training split"
STAND_IN = "how well a network stands in for itself"


def matrix_text(frame: pd.DataFrame, title: str, value: str, floor: str = HALVES) -> str:
    """A matrix with its ``floor`` column as text, under a title and above what the floor is.

    Args:
        value: ``value``, ``tdx`` or ``excess``.
        floor: what the floor is.
    """
    missing = frame.attrs.get("missing")
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    # first, where it stays in sight however wide the matrix is
    floors = [] if frame["floor"].isna().all() else ["floor"]
    frame = frame[[*floors, *(name for name in frame.columns if name != "floor")]]
    for name in frame.columns:
        table.add_column(printable(name), justify="right", no_wrap=True)
    for label, row in frame.iterrows():
        table.add_row(printable(label), *(_number(number) for number in row))
    notes = [f"floor: {_about_floors(floor, value)}"] if floors else []
    notes += [f"{missing} pairs have no value (-)"] if missing else []
    text = io.StringIO()
    console = plain_console(file=text, width=WIDER_THAN_ANY)
    console.print(printable(title))
    console.print(table)
    if notes:
        console.print("; ".join(notes), style="dim")
    return text.getvalue()


def _about_floors(floor: str, value: str) -> str:
    if floor != HALVES:
        return floor
    if value == "value":
        return f"{floor} (half its size: compare it with '--value tdx')"
    return f"{floor}; {value} is at half its size too"


def nearest_text(found: pd.DataFrame, title: str) -> str:
    """A frame of nearest models as text, with what could not be compared."""
    table = Table(box=None, pad_edge=False)
    numbers = [
        name for name in ("value", "floor", "tdx", "excess", "se") if found[name].notna().any()
    ]
    for name in ("model", "layer", *numbers):
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=True)
    for row in found.to_dict("records"):
        names = (printable(row["model"]), printable(row["layer"]))
        table.add_row(*names, *(_number(row[name]) for name in numbers))
    text = io.StringIO()
    console = plain_console(file=text, width=WIDER_THAN_ANY)
    console.print(printable(title))
    console.print(table)
    if found.attrs["floor"] is not None:
        console.print(f"its own noise floor: {_number(found.attrs['floor'])}")
    for what, reason in (("head", "no head yet"), ("value", "no value, for a reason")):
        if found.attrs[f"without_{what}"]:
            console.print(f"not compared: {found.attrs[f'without_{what}']:,} with {reason}")
    return text.getvalue().rstrip("\n")


def warning_lines(heads: pd.DataFrame, searches: pd.DataFrame) -> list[str]:
    """What heads and searches warn of: choices that wanted a wider grid."""
    edge = heads[heads["penalty_at_edge"].eq(True)].drop_duplicates(["model", "task", "head"])
    lines = []
    for first in edge.head(1).to_dict("records"):
        lines.append(
            f"warning: {len(edge)} penalties were chosen at the edge of their grid, such as "
            f"{first['penalty']:g} for '{first['model']}' on '{first['task']}'; widen 'l2'"
        )
    edge = searches[searches["chosen"] & searches["at_edge"].map(len).gt(0)]
    for first in edge.head(1).to_dict("records"):
        names = ", ".join(f"'{name}'" for name in first["at_edge"])
        lines.append(
            f"warning: {len(edge)} searches chose at the edge of a list, such as "
            f"{first['hyperparameters']} for '{first['model']}' on '{first['task']}'; widen {names}"
        )
    return lines


def failure_lines(failures: Sequence[Mapping[Any, Any]], most: int | None = None) -> list[str]:
    """Rows of failures, a line each; at most so many."""
    lines = []
    for failure in failures[:most]:
        model = failure["model"]  # a tile of pairs has none
        who = model if isinstance(model, str) else "pairs of task"
        lines.append(f"failed: {who} {failure['task']} ({failure['stage']}): {failure['error']}")
    if len(failures) > len(lines):
        lines.append(f"and {len(failures) - len(lines)} more; see the failures table")
    return lines


def lines_left(left: Sequence[Mapping[str, str | None]], most: int) -> list[str]:
    """What is left to do, a line for each model and task; at most so many."""
    named = {
        f"left: {row['model'] or 'pairs of'} {row['task'] or 'features'} ({row['stage']})": None
        for row in left
    }
    more = [f"and {len(named) - most:,} more; see --json"] if len(named) > most else []
    return [*list(named)[:most], *more]


def _number(number: float) -> str:
    return "-" if pd.isna(number) else f"{round(number, 4) + 0.0:.4f}"  # no negative zero


def prepare_file(output: Path) -> None:
    """Make the folder of a file that is to be written."""
    if output.is_dir():
        raise InputError(f"--output {output} is a folder; name a file")
    output.parent.mkdir(parents=True, exist_ok=True)


def write_text(text: str, output: Path | None) -> None:
    """Write text into a file as it is, or print it."""
    if output is None:
        typer.echo("\n".join(map(printable, text.rstrip("\n").split("\n"))))
    else:
        output.write_text(text, encoding="utf-8")
