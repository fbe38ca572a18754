"""What the command line prints: plans, lists, matrices."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from td_ray.errors import InputError
from td_ray.printable import printable

# A table that is cut to the terminal's width loses the names of its rows first.
WIDER_THAN_ANY = 100_000

HALVES = "between heads of one network, fitted on two halves of the training split"
STAND_IN = "how well a network stands in for itself"


def _console(**options: Any) -> Console:
    """A console that takes text as it is: ``[red]`` and ``:smile:`` are what they say."""
    return Console(highlight=False, markup=False, emoji=False, **options)


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print mappings as a table; a key that a row lacks is left empty."""
    table = Table(box=None, pad_edge=False)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for key in keys:
        table.add_column(printable(key), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(key, "")) for key in keys))
    _console().print(table)


def print_benchmarks(
    machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], notes: Sequence[str]
) -> None:
    """Print the rows of benchmarks, a table each, and the notes below them."""
    console = _console()
    console.print(", ".join(f"{key} {_cell(value)}" for key, value in machine.items()))
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


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print a plan in words."""
    lines = {
        "models": f"{plan['models']} ({plan['representations']} representations)",
        "tasks": _tasks(plan),
        "samples": "; ".join(map(_samples, plan["samples"])),
        "units of work": _states(plan),
        "heads to fit": f"{plan['heads']:,}",
        **({"searches": _searches(plan)} if plan["searches"] else {}),
        "pairs": _pairs(plan),
        "features": _features(plan),
        **({"stand-ins": f"{plan['stand_ins']:,} heads to fit"} if plan["stand_ins"] else {}),
        **({"probabilities": _probabilities(plan)} if plan["probability_bytes"] else {}),
        "memory": f"up to {plan['trial_bytes'] / 2**30:.1f} GiB a trial",
        "time": f"roughly {_duration(plan['core_seconds'])} on one core, "
        "without forward passes of networks; --on says more",
        "output": plan["output"],
    }
    if "forecast" in plan:
        del lines["time"]
        lines |= _forecast(plan["forecast"])
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in lines.items():
        table.add_row(name, printable(text))
    _console().print(table)


def _forecast(found: Mapping[str, Any]) -> dict[str, str]:
    """What the plan takes on some machines."""
    machines = [f"{found['nodes']:,} node{'s' * (found['nodes'] != 1)} of {found['cpus']:,} CPUs"]
    machines += [f"{found['gpus']:,} GPUs"] if found["gpus"] else []
    stages = [f"{_duration(seconds)} {name}" for name, seconds in found["stages"].items()]
    hours = [f"{found['core_hours']:,.1f} core hours at work"]
    if found["gpus"]:
        hours += [f"{found['gpu_hours']:,.1f} GPU hours at work"]
        hours += [f"{found['gpu_hours_held']:,.1f} GPU hours held"]
    sizes = {"in the output": "output_bytes", "of features": "cache_bytes"}
    storage = [f"{_size(found[name])} {where}" for where, name in sizes.items()]
    lines = {
        "machines": " and ".join(machines),
        "time": f"roughly {_duration(found['seconds'])}: {', '.join(stages)}; waiting in a queue "
        "is not in it",
        "binds": found["binds"],
        "hours": ", ".join(hours),
        "storage": ", ".join(storage),
        "network": f"{_size(found['network_bytes'])} between nodes and the output",
        "prices": "; ".join(found["prices"]),
    }
    if found["guessed"]:
        lines["guessed"] = (
            f"how many iterations {', '.join(found['guessed'])} take: no model has heads yet; "
            "run a few, and plan the rest again"
        )
    if found["uncounted"]:
        first = next(iter(found["uncounted"].values()))
        lines["not counted"] = f"passes of {len(found['uncounted']):,} models, such as: {first}"
    return lines


def _size(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"


def _pairs(plan: Mapping[str, Any]) -> str:
    text = f"{plan['pairs']:,}, {plan['pairs_finished']:,} there already"
    text += f", {plan['pairs_failed']:,} failed before" if plan["pairs_failed"] else ""
    return text if plan["examples"] is None else f"{text}, on {plan['examples']:,} samples each"


def _searches(plan: Mapping[str, Any]) -> str:
    return f"{plan['searches']:,} choices among {plan['candidates']:,} candidates, before the heads"


def _tasks(plan: Mapping[str, Any]) -> str:
    families = plan["families"]
    if not families:
        return f"{plan['tasks']:,}"
    in_families = ", ".join(f"{count:,} of {name}" for name, count in families.items())
    alone = plan["tasks"] - sum(families.values())
    return f"{plan['tasks']:,}: {alone:,} alone, {in_families}"


def _states(plan: Mapping[str, Any]) -> str:
    words = [f"{plan['units']:,}"]
    notes = {
        "finished": "there already",
        "failed": "failed before",
        "missing": "to do",
        "unknown": "whose files' digests are not known yet",
    }
    words += [f"{plan[state]:,} {note}" for state, note in notes.items() if plan[state]]
    return ": ".join([words[0], ", ".join(words[1:])])


def _samples(data: Mapping[str, Any]) -> str:
    text = f"{data['data']}: {data['train']:,} to train on, {data['evaluation']:,} held out"
    text += f", {data['neither']:,} in neither split" if data["neither"] else ""
    text += f", {data['left_out']:,} left out as not all models have them" * bool(data["left_out"])
    return text if data["stratified"] else f"{text}, cut without regard to classes"


def _features(plan: Mapping[str, Any]) -> str:
    size = f"{plan['feature_bytes'] / 2**20:,.0f} MiB"
    text = f"{plan['extractions']:,} arrays to extract, {size} in all"
    if plan["kept_bytes"]:
        text += f", {plan['kept_bytes'] / 2**20:,.0f} MiB kept for measures of them"
    return f"{text} (widths assumed)" if plan["widths_assumed"] else text


def _probabilities(plan: Mapping[str, Any]) -> str:
    return f"{plan['probability_bytes'] / 2**20:,.0f} MiB to write, before compression"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


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
    console = _console(file=text, width=WIDER_THAN_ANY)
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
    console = _console(file=text, width=WIDER_THAN_ANY)
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


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


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
