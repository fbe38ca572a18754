"""What a plan takes on machines that may be elsewhere: time, GPU hours, storage, network."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from td_ray.costs import DATA_SHEETS, Calibration, Device, find_gpu, from_data_sheet
from td_ray.errors import InputError
from td_ray.memory import process_memory
from td_ray.plan.estimate import estimate, process_bytes
from td_ray.plan.pair_prices import price_pairs
from td_ray.plan.pricing import PricedBlock, Pricing
from td_ray.plan.schedule import Course, Hardware, course_of
from td_ray.plan.tiles import plan_tiles
from td_ray.plan.units import HeadUnit, Plan, fits_of
from td_ray.results.parts import Parts
from td_ray.spec import Experiment, Resources, require_target

STARTS_RAY = ("local", "slurm", "kubernetes")
"""Targets where a run does not find a Ray that is there."""

COPIES = 2
"""Of predictions and pairs in an output: in parts, and in the tables that people read."""

BINDS = {
    "GPUs": "GPUs; more of them shorten it",
    "cores": "cores; more of them shorten it",
    "slots": "trials at once; more cores or GPUs, or less of them for each, shorten it",
    "trials": "models are begun one after the other; more machines do not help",
    "longest": "the longest trial, of {longest}; more machines do not help",
    "comparing": "cores, to compare pairs; more of them shorten it",
    "start": "starting; more machines do not help",
    "nothing": "nothing: all is there",
}


@dataclass(frozen=True)
class Forecast:
    """What is left of a plan takes this on some machines.

    Attributes:
        seconds: from the start of the run to its end, without any wait for the machines.
        stages: of these: start, fitting, comparing.
        binds: what the largest stage waits for.
        core_hours: at work; ``gpu_hours`` likewise.
        gpu_hours_held: of all GPUs from start to end, which is what most clusters count.
        output_bytes: more in the output folder than now.
        cache_bytes: of features, on all nodes together.
        network_bytes: of parts and tables between nodes and the output folder; none on one node.
        uncounted: models whose passes are not in it, and why.
        guesses: what it takes for granted.
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
    guesses: list[str]
    prices: list[str]


def forecast_on(target: str, plan: Plan, parts: Parts, calibration: Calibration) -> Forecast:
    """Forecast the rest of a plan on the machines that its experiment asks a target for.

    Args:
        target: as ``--on`` names it; ``local`` is this machine, whose cache of features counts.

    Raises:
        InputError: the machines are not known, have no room for a trial, or nobody knows how fast
            their GPUs are.
    """
    experiment, tiles = plan.problem.experiment, plan_tiles(plan, parts)
    resources, hardware = experiment.resources, _hardware(experiment, target)
    _require_room(hardware, resources)
    of_passes, of_fits, prices = _gpus(experiment, calibration)
    pricing = Pricing(plan, parts, calibration, of_passes, of_fits, target == "local")
    blocks, searches = pricing.blocks(), pricing.searches()
    stages = [searches, blocks]
    course = course_of(stages, hardware, resources, calibration, process_bytes(plan))
    pairs = price_pairs(plan, parts, tiles, calibration)
    at_once = min(max(1, pairs.pieces), hardware.nodes * hardware.cpus)
    seconds = {
        "start": _start(target, calibration) if blocks or pairs.seconds else 0.0,
        "fitting": course.seconds,
        "comparing": pairs.seconds / at_once,
    }
    predictions = sum(_prediction_bytes(unit) for block in plan.blocks for unit in block.units)
    left = estimate(plan, parts, tiles)
    predictions += left.probability_bytes
    output = COPIES * (predictions + pairs.rows * calibration.pair_bytes) + left.kept_bytes
    output += calibration.unit_bytes * _units(blocks)
    total = sum(seconds.values())
    return Forecast(
        nodes=hardware.nodes,
        cpus=hardware.cpus,
        gpus=hardware.gpus,
        seconds=total,
        stages=seconds,
        binds=_binding(seconds, course),
        core_hours=(course.cores + pairs.seconds) / 3600,
        gpu_hours=course.gpus / 3600,
        gpu_hours_held=total * hardware.nodes * hardware.gpus / 3600,
        output_bytes=output,
        cache_bytes=course.cache_bytes,
        network_bytes=0.0 if hardware.nodes == 1 else output + COPIES * predictions,
        uncounted=pricing.uncounted,
        guesses=sorted(pricing.guesses | pairs.guesses),
        prices=prices,
    )


def _start(target: str, calibration: Calibration) -> float:
    return calibration.start + calibration.start_ray * (target in STARTS_RAY)


def _units(blocks: list[PricedBlock]) -> int:
    return sum(block.units for block in blocks)


def _hardware(experiment: Experiment, target: str) -> Hardware:
    require_target(target)
    cluster = experiment.cluster
    memory = None if cluster.memory is None else float(cluster.memory)
    if target == "local":
        if cluster.nodes > 1:
            raise InputError("--on local is this machine alone; leave out --nodes, or name another")
        cpus = cluster.cpus or os.cpu_count() or 1
        return Hardware(1, cpus, cluster.gpus, memory or float(process_memory()))
    if cluster.cpus is None:
        raise InputError(
            f"--on {target}: how many CPUs a node has is not known here; say it with --cpus, or in "
            "the experiment's 'cluster'"
        )
    return Hardware(cluster.nodes, cluster.cpus, cluster.gpus, memory)


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


def _gpus(
    experiment: Experiment, calibration: Calibration
) -> tuple[Device | None, Device | None, list[str]]:
    """Prices of the GPU for passes and for fits, where it is used; where all prices come from."""
    resources = experiment.resources
    prices = [f"{calibration.machine}, measured on {calibration.measured}"]
    shares = (resources.gpus_per_extraction, resources.gpus_per_trial)
    used = [_runs_on_gpu(share, resources) for share in shares]
    if not any(used):
        return None, None, prices
    gpu, words = _gpu(experiment.cluster.gpu_type, calibration)
    of_passes, of_fits = (gpu if is_used else None for is_used in used)
    return of_passes, of_fits, [*prices, words]


def _runs_on_gpu(share: float, resources: Resources) -> bool:
    """As workers see it: ``auto`` is a GPU only where a share of one was given."""
    return resources.device == "cuda" or (resources.device == "auto" and share > 0)


def _gpu(gpu_type: str | None, calibration: Calibration) -> tuple[Device, str]:
    """The GPU of the calibration, unless it is known that the cluster's is another."""
    known = None if gpu_type is None else find_gpu(gpu_type)
    measured = calibration.gpu
    if measured is not None and known in (None, find_gpu(calibration.gpu_name)):
        return measured, f"{calibration.gpu_name}, measured"
    if known is None:
        what = "its type is not said" if gpu_type is None else f"'{gpu_type}' is not known"
        raise InputError(
            f"how fast a GPU is: {what}, and the calibration has none; say --gpu-type with one of "
            f"{', '.join(DATA_SHEETS)}, or measure it: 'td-ray bench costs' on a machine that has "
            "one, and --calibration here"
        )
    words = f"{known.upper()}: half of the peak of its data sheet, not measured"
    return from_data_sheet(known), words


def _binding(stages: dict[str, float], course: Course) -> str:
    largest = max(stages, key=lambda stage: stages[stage])
    if not stages[largest]:
        return BINDS["nothing"]
    name = course.binds if largest == "fitting" else largest
    return BINDS[name].format(longest=course.longest)


def _prediction_bytes(unit: HeadUnit) -> float:
    rows = sum(int(unit.task.evaluation_rows(name).sum()) for name in unit.task.evaluation)
    on_training = unit.task.n_train if unit.with_training and None in unit.runs else 0
    return (fits_of(unit) * rows + on_training) * _bytes_of_prediction(unit)


def _bytes_of_prediction(unit: HeadUnit) -> float:
    """As files compress it: hardly a value; a label to the bits that tell its classes apart."""
    if not unit.task.is_classification:
        return 4.0
    return math.ceil(math.log2(max(2, len(unit.task.classes)))) / 8
