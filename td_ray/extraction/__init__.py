"""From a model and a data set to features, block by block, all layers in one pass.

Features that are in files already are read without torch, so that a process that does no more than
that starts fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from td_ray.errors import InputError, WorkError
from td_ray.extraction.arrays import MOST_READERS, Layers, read_arrays
from td_ray.features import Pass
from td_ray.spec import Resources
from td_ray.zoo import ArraySource, NetworkSource

__all__ = ["MOST_READERS", "Layers", "extract_features"]


def extract_features(
    wanted: Pass, layers: Sequence[str], start: int, folder: Path, resources: Resources
) -> Iterator[Layers]:
    """Yield a model's features at some layers of a pass, from a row on, block by block.

    Args:
        folder: where relative paths start.

    Raises:
        WorkError: whatever goes wrong with this model on this data.
    """
    model, data = wanted.model, wanted.data
    try:
        if isinstance(model, ArraySource):
            yield from read_arrays(model, wanted, layers, start, folder)
        else:
            assert isinstance(model, NetworkSource)  # there are no others that have features
            from td_ray.extraction.networks import rows_of_batch, run_network
            from td_ray.zoo.devices import find_device

            device = find_device(resources.device)
            network = model.load(folder, data, layers, device)
            rows = rows_of_batch(network, data.inputs, resources, device)
            yield from run_network(network, data.inputs, rows, wanted.who, start)
    except InputError as error:
        raise WorkError(str(error)) from None
