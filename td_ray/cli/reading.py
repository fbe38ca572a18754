"""Commands that read results."""

from __future__ import annotations

import json
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from td_ray.cli.app import ExperimentPath, Json, Overrides, app, say
from td_ray.errors import InputError, PartialMatrixWarning
from td_ray.spec import Experiment
from td_ray.storage import is_url

if TYPE_CHECKING:
    from td_ray.results.tables import Results


class Format(StrEnum):
    """How a matrix is written."""

    table = "table"
    csv = "csv"
    parquet = "parquet"


@app.command()
def matrix(
    experiment: ExperimentPath,
    task: Annotated[
        str | None, typer.Option(help="The task; needed where there are several.")
    ] = None,
    measure: Annotated[str, typer.Option(help="The measure.")] = "td",
    head: Annotated[str | None, typer.Option(help="Where a task has several heads.")] = None,
    data: Annotated[str | None, typer.Option(help="Where several data sets are predicted.")] = None,
    value: Annotated[str, typer.Option(help="value, tdx or excess (both at half size).")] = "value",
    by: Annotated[str | None, typer.Option(help="Means over groups of a metadata key.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.table,
    output: Annotated[Path | None, typer.Option(help="A file; needed for parquet.")] = None,
) -> None:
    """Print a matrix with the noise floor beside it."""
    from td_ray.measures import fits_stand_ins
    from td_ray.terminal import HALVES, STAND_IN, matrix_text, prepare_file, write_text

    found = _results(experiment).matrix(task, measure, head=head, data=data, value=value)
    if by is not None:
        frame = found.group_means(by)
    else:
        with warnings.catch_warnings():
            # the table's last line says it too
            warnings.simplefilter("ignore", category=PartialMatrixWarning)
            frame = found.to_pandas()
        missing = frame.attrs["missing"]
        frame = frame.assign(floor=found.floors)
        frame.attrs["missing"] = missing
    if format_ is Format.parquet and output is None:
        raise InputError("--format parquet writes a file; name it with --output")
    if output is not None:
        prepare_file(output)
    if format_ is Format.table:
        floor = STAND_IN if fits_stand_ins(measure) else HALVES
        write_text(matrix_text(frame, _title(measure, task), value, floor), output)
    elif format_ is Format.csv:
        write_text(frame.to_csv(), output)
    else:
        frame.attrs.clear()
        frame.to_parquet(cast(Path, output))


def _title(measure: str, task: str | None) -> str:
    return measure if task is None else f"{measure} of task '{task}'"


@app.command()
def nearest(
    experiment: ExperimentPath,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, or MODEL@LAYER.")],
    task: Annotated[str, typer.Option(help="The task.")],
    measure: Annotated[str, typer.Option(help="The measure.")] = "td",
    head: Annotated[str | None, typer.Option(help="Where a task has several heads.")] = None,
    data: Annotated[str | None, typer.Option(help="Where several data sets are predicted.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """List the models that are nearest to one; the run may still be at work."""
    from td_ray.nearest import nearest
    from td_ray.terminal import nearest_text

    loaded = Experiment.load(experiment, overrides or [])
    found = nearest(loaded, model, task, measure, head=head, data=data, k=k)
    if as_json:
        rows = json.loads(found.to_json(orient="records", double_precision=15))
        say(json.dumps({**found.attrs, "nearest": rows}))
    else:
        typer.echo(nearest_text(found, f"nearest to {model} by {measure} of task '{task}'"))


@app.command()
def report(
    experiment: ExperimentPath,
    output: Annotated[Path | None, typer.Option(help="The page; by default in the output.")] = None,
) -> None:
    """Write one self-contained HTML page."""
    from td_ray.report import write_report
    from td_ray.terminal import prepare_file

    results = _results(experiment)
    if output is not None:
        prepare_file(output)
    say(f"wrote {write_report(results, output)}")


def _results(experiment: str) -> Results:
    from td_ray.results.tables import open_results

    if is_url(experiment) or (Path(experiment) / "results").is_dir():
        return open_results(experiment)
    return open_results(Experiment.load(experiment).output_folder)
