"""Commands that hand a run to another machine, and look after it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from td_ray.cli.app import ExperimentPath, Json, Overrides, app, say
from td_ray.cli.machines import ON, Cpus, Gpus, GpuType, Nodes, of_cluster
from td_ray.errors import InputError
from td_ray.spec import Experiment

On = Annotated[str, typer.Option("--on", metavar="TARGET", help=ON)]


@app.command()
def submit(
    experiment: ExperimentPath,
    on: On,
    overrides: Overrides = None,
    nodes: Nodes = None,
    gpus: Gpus = None,
    gpu_type: GpuType = None,
    cpus: Cpus = None,
    memory: Annotated[str | None, typer.Option(help="Of each node, such as 64GiB.")] = None,
    time: Annotated[str | None, typer.Option(help="At most, such as 12:00:00.")] = None,
    partition: Annotated[str | None, typer.Option(help="Of Slurm.")] = None,
    account: Annotated[str | None, typer.Option(help="Of Slurm.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Also try recorded failures again.")] = False,
    ship: Annotated[bool, typer.Option(help="Send the experiment's folder along.")] = False,
    follow: Annotated[bool, typer.Option(help="Show its output; exit with its code.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Write what would be submitted.")] = False,
) -> None:
    """Hand a run to a cluster. Submitting twice attaches to the job that is at work."""
    from td_ray import launch

    asked = {
        "nodes": nodes,
        "gpus": gpus,
        "gpu_type": gpu_type,
        "cpus": cpus,
        "memory": memory,
        "time": time,
        "partition": partition,
        "account": account,
    }
    loaded = Experiment.load(experiment, [*(overrides or []), *of_cluster(asked)])
    options = ["--retry-failed"] * retry_failed
    if dry_run:
        typer.echo(launch.dry_run(loaded, on, options), nl=False)
        return
    submission = launch.submit(loaded, on, options, ship=ship)
    job = submission.job
    target = launch.find_target(on)
    what = "submitted" if submission.is_new else "at work already"
    say(f"{what}: {job.name}, attempt {job.attempt}, as {job.id} on {on}", err=True)
    for line in [*target.places(job), f"results: {job.output}"]:
        say(line, err=True)
    if follow:
        for text in target.output(job):
            typer.echo(text, nl=False)
        standing = target.standing(job)
        if standing.code is None:
            say(f"{job.name} has ended, nobody knows how: {standing.note}", err=True)
        raise typer.Exit(1 if standing.code is None else standing.code)


@app.command()
def jobs(
    experiment: Annotated[str | None, typer.Argument(help="Its jobs alone.")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """List jobs that were submitted from here, the latest first, and how they fare."""
    from td_ray import launch

    found = launch.all_jobs()
    if experiment is not None:
        name = launch.job_name(Experiment.load(experiment, overrides or []))
        found = [job for job in found if job.name == name]
    rows = [{**asdict(job), **_standing(job)} for job in found]
    if as_json:
        say(json.dumps(rows))
        return
    if not rows:
        say(f"no job was submitted from here; their records would be in {launch.jobs_folder()}")
    for row in rows:
        code = "" if row["code"] is None else f", exit code {row['code']}"
        note = f" ({row['note']})" if row["note"] else ""
        say(
            f"{row['name']}  attempt {row['attempt']}  {row['target']} {row['id']}  "
            f"{row['submitted']}  {row['state']}{code}{note}"
        )


@app.command()
def cancel(experiment: ExperimentPath, overrides: Overrides = None) -> None:
    """End the job of an experiment; what has finished is kept, and submitting again goes on."""
    from td_ray import launch

    job = launch.cancel(Experiment.load(experiment, overrides or []))
    say(f"told to end: {job.name}, attempt {job.attempt}, {job.id} on {job.target}", err=True)


def _standing(job: Any) -> dict[str, Any]:
    """How a job fares; a target that cannot be asked says why."""
    from td_ray import launch

    try:
        return asdict(launch.find_target(job.target).standing(job))
    except InputError as error:
        return {"state": "unknown", "code": None, "note": str(error)}
