"""The plan: what an experiment asks for, minus what is there already, with its cost.

    resolve.py     look up the files, tasks and pairs that an experiment names
    selection.py   which pairs are wanted
    units.py       units of work, and blocks of those that share features
    making.py      expand, give every unit its fingerprint, subtract the parts that are there
    tiles.py       pairs of finished units, cut on the numbers of the representations
    stand_ins.py   which heads are to be fitted as stand-ins
    estimate.py    what is left, in heads, pairs and bytes
    pricing.py     what is left to fit, in seconds of cores and GPUs
    pair_prices.py what is left to compare, likewise
    schedule.py    when it is fitted, on some machines
    forecast.py    what that makes: time, GPU hours, storage, network
    summary.py     all of it as plain values

It spends nothing, and needs no Ray; only a forecast needs torch, to count what networks do.
"""

from td_ray.plan.making import make_plan, plan_as_known
from td_ray.plan.units import Block, FeatureUnit, HeadUnit, Plan, State, fits_of, passes_of

__all__ = [
    "Block",
    "FeatureUnit",
    "HeadUnit",
    "Plan",
    "State",
    "fits_of",
    "make_plan",
    "passes_of",
    "plan_as_known",
]
