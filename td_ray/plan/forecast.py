"""What a plan takes on machines that may be elsewhere: time, GPU hours, storage, network."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from td_ray.costs import (
    DATA_SHEETS,
    Calibration,
    Device,
    find_gpu,
    from_data_sheet,
)
from td_ray.errors import InputError
from td_ray.plan.estimate import estimate
from td_ray.plan.pair_prices import price_pairs
from td_ray.plan.pricing import Pricing
from td_ray.plan.schedule import Course, Hardware, course_of
from td_ray.plan.units import HeadUnit, Plan, fits_of
from td_ray.results.parts import Parts
from td_ray.spec import Experiment, Resources, require_target

STARTS_RAY = ("local", "slurm", "kubernetes")
"""Targets where a run does not find a Ray that is there."""

COPIES = 2
"""Of predictions and pairs in an output: in parts, and in the tables that people read."""

REMEDIES = {
    "GPUs": "forward passes on the GPUs; more of them shorten it",
    "cores": "work on the cores; more of them shorten it",
    "trials": "that models are begun one after the other; more machines do not help",
    "pairs": "comparing pairs, on all cores; more of them shorten it",
    "start": "starting Ray; more machines do not help",
}


@dataclass(frozen=True)
class Forecast:
    """What is left of a plan takes this on some machines.

    Attributes:
        seconds: from the start of the run to its end, without any wait for the machines.
        stages: of these: starting, fitting, comparing.
        binds: what the largest stage waits for.
        core_hours: at work; ``gpu_hours`` likewise.
        gpu_hours_held: of all GPUs from start to end, which is what most clusters count.
        output_bytes: more in the output folder than now, at most.
        cache_bytes: of features, on all nodes together.
        network_bytes: between nodes and the output folder; none on one node.
        uncounted: models whose passes are not in it, and why.
        guessed: heads whose number of iterations is a guess.
        prices: where the prices come from.
    """

    nodes: int
    cpus: int
    gpus: int
    seconds: float
    stages: dict[str, float]
    binds: str
    core_hours: float
    gpu_hours: float
    gpu_hours_held: float
    output_bytes: float
    cache_bytes: float
    network_bytes: float
    uncounted: dict[str, str]
    guessed: list[str]
    prices: list[str]


def forecast_on(target: str, plan: Plan, parts: Parts, calibration: Calibration) -> Forecast:
    """Forecast the rest of a plan on the machines that its experiment asks a target for.

    Args:
        target: as ``--on`` names it; ``local`` is this machine, whose cache of features counts.

    Raises:
        InputError: the machines are not known, have no room for a trial, or nobody knows how fast
            their GPUs are.
    """
    experiment = plan.problem.experiment
    resources, left = experiment.resources, estimate(plan, parts)
    hardware = _hardware(experiment, target)
    _require_room(hardware, resources)
    gpu, prices = _gpu(resources, calibration, experiment.cluster.gpu_type)
    pricing = Pricing(plan, calibration, gpu)
    blocks = pricing.blocks(parts, in_cache=target == "local")
    course = course_of(blocks, hardware, resources, calibration)
    pairs = price_pairs(plan, parts, calibration)
    share = left.share_of_pairs
    comparing = share * pairs.seconds / min(pairs.pieces or 1, hardware.nodes * hardware.cpus)
    start = calibration.start + calibration.start_ray * (target in STARTS_RAY)
    start *= bool(blocks) or share > 0
    stages = {"start": start, "fitting": course.seconds, "comparing": comparing}
    seconds = sum(stages.values())
    predictions = sum(_prediction_bytes(unit) for block in plan.blocks for unit in block.units)
    predictions += left.probability_bytes
    output = COPIES * (predictions + share * pairs.rows * calibration.pair_bytes)
    output += left.kept_bytes + calibration.unit_bytes * sum(block.units for block in blocks)
    kept = {each.who: each.bytes for block in blocks for each in block.passes}
    return Forecast(
        nodes=hardware.nodes,
        cpus=hardware.cpus,
        gpus=hardware.gpus,
        seconds=seconds,
        stages=stages,
        binds=_binding(stages, course),
        core_hours=(course.cores + share * pairs.seconds) / 3600,
        gpu_hours=course.gpus / 3600,
        gpu_hours_held=seconds * hardware.nodes * hardware.gpus / 3600,
        output_bytes=output,
        cache_bytes=float(sum(kept.values())),
        network_bytes=0.0 if hardware.nodes == 1 else output + COPIES * predictions,
        uncounted=pricing.uncounted,
        guessed=sorted(pricing.guessed),
        prices=prices,
    )


def _hardware(experiment: Experiment, target: str) -> Hardware:
    require_target(target)
    cluster = experiment.cluster
    if target == "local":
        return Hardware(1, cluster.cpus or os.cpu_count() or 1, cluster.gpus)
    if cluster.cpus is None:
        raise InputError(
            f"--on {target}: how many CPUs a node has is not known here; say it with --cpus, or in "
            "the experiment's 'cluster'"
        )
    return Hardware(cluster.nodes, cluster.cpus, cluster.gpus)


def _require_room(hardware: Hardware, resources: Resources) -> None:
    shares = {
        "cpus_per_trial": (float(resources.cpus_per_trial), hardware.cpus, "CPUs", "--cpus"),
        "gpus_per_trial": (resources.gpus_per_trial, hardware.gpus, "GPUs", "--gpus"),
        "gpus_per_extraction": (resources.gpus_per_extraction, hardware.gpus, "GPUs", "--gpus"),
    }
    for name, (share, most, kind, option) in shares.items():
        if share > most:
            raise InputError(
                f"resources.{name} is {share:g}, and a node has {most:g} {kind}; ask for less, or "
                f"say with {option} how many it has"
            )


def _gpu(
    resources: Resources, calibration: Calibration, gpu_type: str | None
) -> tuple[Device | None, list[str]]:
    """The prices of a GPU, if one is used; and where all prices come from."""
    prices = [f"{calibration.machine}, measured on {calibration.measured}"]
    if not (resources.gpus_per_extraction or resources.gpus_per_trial):
        return None, prices
    if gpu_type is None and calibration.gpu is not None:
        return calibration.gpu, prices
    known = None if gpu_type is None else find_gpu(gpu_type)
    if known is None:
        what = "its type is not said" if gpu_type is None else f"'{gpu_type}' is not known"
        raise InputError(
            f"how fast a GPU is: {what}, and the calibration has none; say --gpu-type with one of "
            f"{', '.join(DATA_SHEETS)}, or measure it: 'td-ray bench costs' on a machine that has "
            "one, and --calibration here"
        )
    words = f"{known.upper()}: half of the peak of its data sheet, not measured"
    return from_data_sheet(known), [*prices, words]


def _binding(stages: dict[str, float], course: Course) -> str:
    largest = max(stages, key=lambda stage: stages[stage])
    if largest != "fitting":
        return REMEDIES["pairs" if largest == "comparing" else "start"]
    name = max(course.bounds, key=lambda bound: course.bounds[bound])
    return REMEDIES.get(name, f"the longest trial, of {name}; more machines do not help")


def _prediction_bytes(unit: HeadUnit) -> float:
    rows = sum(int(unit.task.evaluation_rows(name).sum()) for name in unit.task.evaluation)
    return fits_of(unit) * rows * _bytes_of_prediction(unit)


def _bytes_of_prediction(unit: HeadUnit) -> float:
    """As files compress it: hardly a value; a label to the bits that tell its classes apart."""
    if not unit.task.is_classification:
        return 4.0
    return math.ceil(math.log2(len(unit.task.classes))) / 8
