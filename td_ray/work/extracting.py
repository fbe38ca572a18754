"""Extract features into a store. Arrays are read without torch, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from td_ray.errors import WorkError
from td_ray.extraction import extract_features
from td_ray.features import Features, FeatureStore, Pass, require_unchanged
from td_ray.files import DigestMemory
from td_ray.spec import Experiment
from td_ray.tasks import DataSet
from td_ray.zoo import NetworkSource, Representation

OpenFeatures = Callable[[str, DataSet], Features]
"""Gives the (n, d) features of a block's representation by key, extracting them if need be."""

Heard = Callable[[int], None]
"""Hears of samples that went through a network."""


def open_from_store(
    passes: Mapping[str, Pass], experiment: Experiment, store: FeatureStore, heard: Heard
) -> OpenFeatures:
    """Features straight from a store, extracted in this process where they are not there.

    Args:
        passes: of a block, by data set.
    """

    def open_features(key: str, data: DataSet) -> Features:
        if not store.valid(key):
            extract_into(store, key, passes[data.name], experiment, heard)
        return store.open(key)

    return open_features


def extract_into(
    store: FeatureStore, key: str, wanted: Pass, experiment: Experiment, heard: Heard
) -> None:
    """Extract the features with a key into a store; those of the same pass with them.

    Raises:
        WorkError: whatever goes wrong with this model on this data.
    """
    if isinstance(wanted.model, NetworkSource):
        import torch

        torch.set_num_threads(experiment.resources.cpus_per_trial)
    try:
        errors = _run_pass(store, wanted, experiment, heard)
    except WorkError:
        if len(wanted.keys) == 1:
            raise
        errors = _run_pass(
            store, wanted.alone(key), experiment, heard
        )  # another layer may be to blame
    for layer, error in errors.items():
        if wanted.keys[layer] == key:
            raise error


def _run_pass(
    store: FeatureStore, wanted: Pass, experiment: Experiment, heard: Heard
) -> Mapping[str, WorkError]:
    """Extract what is missing of a pass; returns the errors of layers that gave no features."""
    with store.writing(wanted) as arrays:
        if not arrays.layers:
            return {}
        folder, resources = experiment.folder, experiment.resources
        heard(0)  # it is this process's turn, and the pass begins
        for block in extract_features(wanted, arrays.layers, arrays.start, folder, resources):
            arrays.append(block)
            heard(len(next(iter(block.values()))))
        digest = DigestMemory(experiment.cache_path).computed
        for layer in arrays.layers:
            representation = Representation(wanted.model, layer)
            require_unchanged(representation, wanted.data, folder, digest, wanted.keys[layer])
        arrays.finish()
        return arrays.errors
