"""Commands about what there is: models, data, files, speed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from td_ray.cli.app import ExperimentPath, Json, Overrides, app, say
from td_ray.errors import RunError
from td_ray.needs.needed import without_credentials
from td_ray.spec import Experiment, default_cache


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
            say(each.remedy)
        else:
            say(f"{each.what}: {without_credentials(each.address)}", err=True)
            each.fetch()
    there = [each for each in needed if not check or each not in missing]
    damages = [damage for each in there if (damage := each.damage())]
    if damages:
        raise RunError(damages[0])
    say(f"{len(needed) - len(missing)} of {len(needed)} were there already")
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
    say(f"{len(entries)} arrays, {total:.1f} MiB {verb} {root}")


@app.command()
def bench(
    name: Annotated[
        str, typer.Argument(help="features, heads, pairs, measures, sweep, costs, plan, or all.")
    ] = "all",
    features: Annotated[Path | None, typer.Option(help="A folder of real features.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Heads on digits, the shortest sweep.")
    ] = False,
    minutes: Annotated[float, typer.Option(help="No case of heads starts later.")] = 8.0,
    calibration: Annotated[
        Path | None, typer.Option(help="Where 'costs' writes what work costs here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure td-ray against its rivals, at stated quality, on this machine.

    The sweeps alone take half an hour, the others together about as long. Two have no rival:
    'costs' measures what 'td-ray plan' calculates with (eight minutes), 'plan' how right it is.
    """
    from td_ray.bench import run_benchmarks
    from td_ray.terminal import print_benchmarks

    found = run_benchmarks(name, features, quick, minutes, calibration, partial(say, err=True))
    if as_json:
        typer.echo("\n".join(found.notes), err=True)
        say(json.dumps({"machine": found.machine, "rows": found.rows}))
    else:
        print_benchmarks(found.machine, found.rows, found.notes)


def _loaded(path: Path | None, overrides: list[str] | None) -> Experiment | None:
    return None if path is None else Experiment.load(path, overrides or [])
