"""The command line; thin. Exit codes: 0 complete, 1 failed, 2 bad input, 3 with failures."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from td_ray.errors import InputError, PartialMatrixWarning, RunError, TdRayError
from td_ray.spec import Experiment, default_cache

if TYPE_CHECKING:
    from td_ray.results.tables import Results
    from td_ray.sweep.progress import Reporter

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # errors of usage in plain lines, not in boxes
    pretty_exceptions_enable=False,
    help="How different are these networks, really? All-pairs Transferred Discrepancy on Ray.",
)


class Format(StrEnum):
    """How a matrix is written."""

    table = "table"
    csv = "csv"
    parquet = "parquet"


class BackendName(StrEnum):
    """Where work is done."""

    ray = "ray"
    inline = "inline"


ExperimentPath = Annotated[
    Path, typer.Argument(metavar="EXPERIMENT", help="An experiment file, or an output folder.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a value.")
]
Json = Annotated[bool, typer.Option("--json", help="Speak to programs.")]
BackendOption = Annotated[
    BackendName, typer.Option("--backend", help="'inline' runs in this process, without Ray.")
]
Address = Annotated[
    str | None, typer.Option(help="A Ray cluster; by default RAY_ADDRESS, or one for this run.")
]


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write.")] = Path("experiment.yaml"),
) -> None:
    """Write a commented experiment file."""
    if path.exists():
        raise InputError(f"{path} exists; name another file, or remove it")
    template = Path(__file__).with_name("template.yaml").read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(template, encoding="utf-8")
    typer.echo(f"wrote {path}; next: td-ray plan {path}")


@app.command()
def plan(experiment: ExperimentPath, overrides: Overrides = None, as_json: Json = False) -> None:
    """Say what would run, what is there already, and what it costs. Spends nothing."""
    from td_ray.estimate import describe
    from td_ray.plan import plan_as_known
    from td_ray.resolve import resolve
    from td_ray.results.parts import Parts

    loaded = Experiment.load(experiment, overrides or [])
    content = describe(loaded, plan_as_known(resolve(loaded)), Parts(loaded.output_path))
    if as_json:
        typer.echo(json.dumps(content))
        return
    from td_ray.terminal import print_plan

    print_plan(content)


@app.command()
def run(
    experiment: ExperimentPath,
    overrides: Overrides = None,
    backend: BackendOption = BackendName.ray,
    address: Address = None,
    retry_failed: Annotated[bool, typer.Option(help="Also try recorded failures again.")] = False,
    examples: Annotated[int | None, typer.Option(help="Estimate pairs on so many samples.")] = None,
) -> None:
    """Run what is missing. Running twice resumes."""
    from td_ray.sweep import run as run_experiment

    fewer = [] if examples is None else [f"examples={examples}"]
    loaded = Experiment.load(experiment, [*(overrides or []), *fewer])
    with _progress() as reporter:
        results = run_experiment(
            loaded,
            backend=backend.value,
            address=address,
            retry_failed=retry_failed,
            reporter=reporter,
        )
    typer.echo(f"results in {loaded.output_path}", err=True)
    _end(results)


@app.command()
def status(experiment: ExperimentPath, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show what is done, failed and missing, from the output folder; needs no cluster."""
    from td_ray.compact import failure_rows
    from td_ray.estimate import count_states
    from td_ray.plan import plan_as_known
    from td_ray.resolve import resolve
    from td_ray.results.failures import grouped_failures
    from td_ray.results.parts import Parts
    from td_ray.terminal import failure_lines
    from td_ray.tiles import plan_tiles

    loaded = Experiment.load(experiment, overrides or [])
    made = plan_as_known(resolve(loaded))
    parts = Parts(loaded.output_path)
    tiles = plan_tiles(made, parts)
    failures = failure_rows(made, tiles, parts)
    counts = count_states(made, tiles, parts)
    if as_json:
        typer.echo(json.dumps({**counts, "failures": failures}))
        return
    typer.echo(", ".join(f"{number:,} {state}" for state, number in counts.items() if number))
    families = {task.name: task.family for task in made.problem.tasks if task.family}
    for line in failure_lines(grouped_failures(failures, families)):
        typer.echo(line)


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
    from td_ray.terminal import matrix_text, prepare_file, write_text

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
        write_text(matrix_text(frame, _title(measure, task), value), output)
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
        typer.echo(json.dumps({**found.attrs, "nearest": rows}))
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
    page = output or results.output / "report.html"
    prepare_file(page)
    write_report(results, page)
    typer.echo(f"wrote {page}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where to write.")] = Path("td-ray-demo"),
    backend: BackendOption = BackendName.ray,
    address: Address = None,
) -> None:
    """Train a small zoo on handwritten digits and compare all pairs of it."""
    from td_ray.demo import run_demo
    from td_ray.demo.strategies import STRATEGIES
    from td_ray.report import write_report
    from td_ray.terminal import matrix_text

    with _progress() as reporter:
        results = run_demo(output, backend=backend.value, address=address, reporter=reporter)
    for strategy in STRATEGIES.values():
        typer.echo(f"{strategy.name}: {strategy.description}")
    typer.echo()
    for task in results.tasks()["task"]:
        frame = results.matrix(task).group_means("strategy")
        typer.echo(matrix_text(frame, f"td of task '{task}' by training strategy", "value"))
    page = output / "report.html"
    write_report(results, page)
    typer.echo(f"page: {page}\nresults: {results.output}\nexperiment: {output}/experiment.yaml")
    _end(results)


@app.command()
def models(
    experiment: Annotated[Path | None, typer.Argument(help="An experiment.")] = None,
    overrides: Overrides = None,
) -> None:
    """List the models of an experiment with their metadata, or the known model sources."""
    from td_ray import listing
    from td_ray.terminal import print_rows

    print_rows(listing.models(_loaded(experiment, overrides)))


@app.command()
def tasks(
    experiment: Annotated[Path | None, typer.Argument(help="An experiment.")] = None,
    overrides: Overrides = None,
    every: Annotated[bool, typer.Option("--all", help="Every task of a family.")] = False,
) -> None:
    """List the tasks of an experiment with their sizes, or the known data sources."""
    from td_ray import listing
    from td_ray.terminal import print_rows

    print_rows(listing.tasks(_loaded(experiment, overrides), every))


@app.command()
def prefetch(
    experiment: ExperimentPath,
    overrides: Overrides = None,
    check: Annotated[bool, typer.Option("--check", help="Say what is missing, no more.")] = False,
) -> None:
    """Download the models and data sets that an experiment needs, once, before any run."""
    from td_ray.zoo import needed_by

    needed = needed_by(Experiment.load(experiment, overrides or []))
    missing = [each for each in needed if not each.is_there]
    for each in missing:
        if check:
            typer.echo(each.remedy)
        else:
            typer.echo(f"{each.what}: {each.address}", err=True)
            each.fetch()
    there = [each for each in needed if not check or each not in missing]
    damages = [damage for each in there if (damage := each.damage())]
    if damages:
        raise RunError(damages[0])
    typer.echo(f"{len(needed) - len(missing)} of {len(needed)} were there already")
    if check and missing:
        raise typer.Exit(1)


@app.command()
def cache(
    experiment: Annotated[Path | None, typer.Argument(help="Whose cache; else yours.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all feature arrays.")] = False,
) -> None:
    """List the feature arrays in the cache, or remove them."""
    from td_ray import listing
    from td_ray.features import FeatureStore
    from td_ray.terminal import print_rows

    root = default_cache() if experiment is None else Experiment.load(experiment).cache_path
    store = FeatureStore(root, cap=0)
    entries = store.entries()
    if clear:
        for entry in entries:
            store.remove(entry.key)
    total = sum(entry.bytes for entry in entries) / 2**20
    print_rows(listing.arrays(entries))
    verb = "removed" if clear else "in"
    typer.echo(f"{len(entries)} arrays, {total:.1f} MiB {verb} {root}")


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="features, heads, pairs, or all.")] = "all",
    features: Annotated[Path | None, typer.Option(help="A folder of real features.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Heads on digits only.")] = False,
    minutes: Annotated[float, typer.Option(help="No case of heads starts later.")] = 8.0,
    as_json: Json = False,
) -> None:
    """Measure td-ray against its rivals, at stated quality, on this machine."""
    from td_ray.bench import run_benchmarks
    from td_ray.terminal import print_benchmarks

    found = run_benchmarks(name, features, quick, minutes, partial(typer.echo, err=True))
    if as_json:
        typer.echo("\n".join(found.notes), err=True)
        typer.echo(json.dumps({"machine": found.machine, "rows": found.rows}))
    else:
        print_benchmarks(found.machine, found.rows, found.notes)


def _loaded(path: Path | None, overrides: list[str] | None) -> Experiment | None:
    return None if path is None else Experiment.load(path, overrides or [])


def _results(experiment: Path) -> Results:
    from td_ray.results.tables import open_results

    if experiment.is_dir() and (experiment / "results").is_dir():
        return open_results(experiment)
    return open_results(Experiment.load(experiment).output_path)


@contextmanager
def _progress() -> Iterator[Reporter]:
    """Progress on the error stream; an interrupt says how to go on."""
    from td_ray.sweep.progress import on_stderr

    try:
        with on_stderr() as reporter:
            yield reporter
    except KeyboardInterrupt:
        typer.echo("td-ray: interrupted; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


def _end(results: Results) -> None:
    """Say what deserves a warning; exit with 3 where units failed, and name their errors."""
    from td_ray.terminal import failure_lines, warning_lines

    failures = failure_lines(results.grouped_failures(), most=10)
    for line in [*warning_lines(results.heads(), results.searches()), *failures]:
        typer.echo(line, err=True)
    if failures:
        raise typer.Exit(3)


def _one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"td-ray: warning: {message}", file=sys.stderr)


def main() -> None:
    """Entry point of ``td-ray``: errors become one line and an exit code; warnings, one line."""
    warnings.showwarning = _one_line
    try:
        app()
    except TdRayError as error:
        print(f"td-ray: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"td-ray: {error}; what had finished is kept", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
