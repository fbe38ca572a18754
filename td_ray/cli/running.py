"""Commands that run an experiment, or say what a run would do or has done."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from td_ray.cli.app import (
    Address,
    BackendName,
    BackendOption,
    ExperimentPath,
    Json,
    Overrides,
    app,
    say,
)
from td_ray.cli.machines import ON, Cpus, Gpus, GpuType, Nodes, of_cluster
from td_ray.cli.signals import ended_by_signals
from td_ray.errors import InputError
from td_ray.spec import Experiment

WHY_LEFT = {
    "missing": "not done yet, or begun by a run that was lost; 'td-ray run' goes on with them",
    "unknown": "files that decide them have not been read yet; 'td-ray run' reads them",
    "failed": "for the reasons above; 'td-ray run --retry-failed' tries them again",
}

if TYPE_CHECKING:
    from td_ray.results.tables import Results


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write.")] = Path("experiment.yaml"),
) -> None:
    """Write a commented experiment file."""
    if path.exists():
        raise InputError(f"{path} exists; name another file, or remove it")
    template = (Path(__file__).parents[1] / "template.yaml").read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(template, encoding="utf-8")
    say(f"wrote {path}; next: td-ray plan {path}")


@app.command()
def plan(
    experiment: ExperimentPath,
    overrides: Overrides = None,
    on: Annotated[str | None, typer.Option("--on", metavar="TARGET", help=ON)] = None,
    nodes: Nodes = None,
    gpus: Gpus = None,
    gpu_type: GpuType = None,
    cpus: Cpus = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Unit costs that 'td-ray bench costs' has written.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what would run, what is there already, and what it costs. Spends nothing.

    With --on, also the time, the GPU hours, the storage and the network that it takes there.
    """
    from td_ray.costs import find_calibration
    from td_ray.plan import plan_as_known
    from td_ray.plan.resolve import resolve
    from td_ray.plan.summary import describe
    from td_ray.results.parts import Parts
    from td_ray.spec.experiment import default_cache

    asked = {"nodes": nodes, "gpus": gpus, "gpu_type": gpu_type, "cpus": cpus}
    loaded = Experiment.load(experiment, [*(overrides or []), *of_cluster(asked)])
    if on is None and any(value is not None for value in asked.values()):
        raise InputError("--nodes, --gpus, --gpu-type and --cpus say where: name it with --on")
    prices = find_calibration(calibration, default_cache())
    made, parts = plan_as_known(resolve(loaded)), Parts(loaded.output_folder)
    content = describe(loaded, made, parts, prices)
    if on is not None:
        from td_ray.plan.forecast import forecast_on

        content["forecast"] = asdict(forecast_on(on, made, parts, prices))
    if as_json:
        say(json.dumps(content))
        return
    from td_ray.terminal import print_plan

    print_plan(content)


@app.command()
@ended_by_signals()
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
    from td_ray.sweep.progress import on_stderr

    fewer = [] if examples is None else [f"examples={examples}"]
    loaded = Experiment.load(experiment, [*(overrides or []), *fewer])
    with on_stderr() as reporter:
        results = run_experiment(
            loaded,
            backend=backend.value,
            address=address,
            retry_failed=retry_failed,
            reporter=reporter,
        )
    say(f"results in {loaded.output_folder}", err=True)
    _end(results)


@app.command()
def status(experiment: ExperimentPath, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show what is done, failed and missing, from the output folder; needs no cluster."""
    from td_ray.compact import failure_rows
    from td_ray.plan import plan_as_known
    from td_ray.plan.estimate import count_states, rows_left
    from td_ray.plan.resolve import resolve
    from td_ray.plan.tiles import plan_tiles
    from td_ray.results.failures import grouped_failures
    from td_ray.results.parts import Parts
    from td_ray.terminal import failure_lines, lines_left

    loaded = Experiment.load(experiment, overrides or [])
    made = plan_as_known(resolve(loaded))
    parts = Parts(loaded.output_folder)
    tiles = plan_tiles(made, parts)
    failures = failure_rows(made, tiles, parts)
    counts, left = count_states(made, tiles, parts), rows_left(made, tiles, parts)
    if as_json:
        say(json.dumps({**counts, "failures": failures, "left": left}))
        return
    say(", ".join(f"{number:,} {state}" for state, number in counts.items() if number))
    families = {task.name: task.family for task in made.problem.tasks if task.family}
    for line in failure_lines(grouped_failures(failures, families)):
        say(line)
    for line in lines_left(left, most=10):
        say(line)
    for state, why in WHY_LEFT.items():
        if counts[state]:
            say(f"{counts[state]:,} {state}: {why}")


@app.command()
@ended_by_signals()
def demo(
    output: Annotated[Path, typer.Option(help="Where to write.")] = Path("td-ray-demo"),
    backend: BackendOption = BackendName.ray,
    address: Address = None,
) -> None:
    """Train a small zoo on handwritten digits and compare all pairs of it."""
    from td_ray.demo import run_demo
    from td_ray.demo.strategies import STRATEGIES
    from td_ray.report import write_report
    from td_ray.sweep.progress import on_stderr
    from td_ray.terminal import matrix_text

    with on_stderr() as reporter:
        results = run_demo(output, backend=backend.value, address=address, reporter=reporter)
    for strategy in STRATEGIES.values():
        say(f"{strategy.name}: {strategy.description}")
    typer.echo()
    for task in results.tasks()["task"]:
        frame = results.matrix(task).group_means("strategy")
        typer.echo(matrix_text(frame, f"td of task '{task}' by training strategy", "value"))
    page = output / "report.html"
    write_report(results, page)
    for line in (
        f"page: {page}",
        f"results: {results.output}",
        f"experiment: {output}/experiment.yaml",
    ):
        say(line)
    _end(results)


def _end(results: Results) -> None:
    """Say what deserves a warning; exit with 3 where units failed, and name their errors."""
    from td_ray.terminal import failure_lines, warning_lines

    failures = failure_lines(results.grouped_failures(), most=10)
    for line in [*warning_lines(results.heads(), results.searches()), *failures]:
        say(line, err=True)
    if failures:
        raise typer.Exit(3)
