"""Plans of experiments that are measured, and their features."""

from __future__ import annotations

import time

from td_ray.features import FeatureStore
from td_ray.files import DigestMemory
from td_ray.plan import Plan, make_plan
from td_ray.plan.resolve import resolve
from td_ray.results.manifest import read_manifest
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.work.extracting import extract_into


def planned(experiment: Experiment) -> Plan:
    """The plan of an experiment, with all keys."""
    parts = Parts(experiment.output_folder)
    manifest = read_manifest(parts.output, experiment)
    digest = DigestMemory(experiment.cache_path).computed
    return make_plan(resolve(experiment), manifest, parts, digest)


def extract_all(plan: Plan, experiment: Experiment) -> tuple[float, int]:
    """Extract features into the cache; returns seconds and bytes."""
    store = FeatureStore.of(experiment)
    seconds = 0.0
    for block in plan.blocks:
        for wanted in block.passes.values():
            for key in wanted.keys.values():
                started = time.perf_counter()
                extract_into(store, key, wanted, experiment, lambda count: None)
                seconds += time.perf_counter() - started
    return seconds, sum(entry.bytes for entry in store.entries())
