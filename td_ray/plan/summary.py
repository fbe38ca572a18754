"""A plan in plain values: its sizes and states, and what it takes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from td_ray.costs import Calibration
from td_ray.plan.estimate import estimate
from td_ray.plan.pair_prices import price_pairs
from td_ray.plan.pricing import Pricing
from td_ray.plan.tiles import plan_tiles
from td_ray.plan.units import Plan
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.tasks import DataSet


def describe(
    experiment: Experiment, plan: Plan, parts: Parts, calibration: Calibration
) -> dict[str, Any]:
    """The plan as JSON: counts, states, estimate.

    Its ``core_seconds`` are those of one core, without forward passes of networks.
    """
    tiles = plan_tiles(plan, parts)
    left = estimate(plan, parts, tiles)
    core_seconds = sum(Pricing(plan, parts, calibration).fits())
    core_seconds += price_pairs(plan, parts, tiles, calibration).seconds
    return {
        "experiment": experiment.name,
        "output": str(experiment.output_folder),
        "representations": len(plan.problem.representations),
        "models": len({item.model_name for item in plan.problem.representations}),
        "tasks": len(plan.problem.tasks),
        "families": Counter(task.family for task in plan.problem.tasks if task.family),
        "samples": [_samples(data) for data in plan.problem.data.values()],
        "units": len(plan.units) + len(plan.kept),
        "finished": plan.count("finished"),
        "failed": plan.count("failed"),
        "missing": plan.count("missing"),
        "unknown": plan.count("unknown"),
        "examples": experiment.examples,
        **vars(left),
        "core_seconds": core_seconds,
    }


def _samples(data: DataSet) -> dict[str, Any]:
    train, evaluation = int(data.training.sum()), int(data.evaluation.sum())
    return {
        "data": data.name,
        "train": train,
        "evaluation": evaluation,
        "neither": data.n - train - evaluation,
        "left_out": data.left_out or 0,
        "stratified": data.strata is not None,
    }
