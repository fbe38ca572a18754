"""From a model and a data set to features, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from td_ray.errors import InputError, WorkError
from td_ray.files import one_line
from td_ray.tasks import DataSet
from td_ray.tasks.inputs import Block, Inputs
from td_ray.zoo import ArraySource, ModelSource, NetworkSource
from td_ray.zoo.devices import find_device
from td_ray.zoo.network import Network

Layers = dict[str, NDArray[np.float32]]
"""Features (rows, width) of a block of samples, by layer."""


def extract_features(
    model: ModelSource,
    layers: Sequence[str],
    data: DataSet,
    folder: Path,
    device: str,
    batch_size: int,
) -> Iterator[Layers]:
    """Yield a model's features at layers on a data set, block by block, from one pass.

    Raises:
        WorkError: whatever goes wrong with this model on this data.
    """
    try:
        if isinstance(model, ArraySource):
            (layer,) = layers
            for block in model.read(folder, data, layer):
                yield {layer: block}
        elif isinstance(model, NetworkSource):
            network = model.load(folder, data, layers, find_device(device))
            yield from run_network(network, data.inputs, batch_size, str(model.name))
        else:
            raise WorkError(f"model '{model.name}' gives predictions, not features")
    except InputError as error:
        raise WorkError(str(error)) from None


def run_network(network: Network, inputs: Inputs, batch_size: int, who: str) -> Iterator[Layers]:
    """Yield the features of all inputs, batch by batch, in float32.

    Args:
        network: with the layers that are asked for.
        inputs: of n samples.
        batch_size: how many go through at once.
        who: the model's name, for errors.

    Raises:
        WorkError: the network raises on the data, or gives another number of rows.
    """
    for start in range(0, len(inputs), batch_size):
        block = inputs[start : start + batch_size]
        found = _run(network, block, who)
        for layer, values in found.items():
            if len(values) != len(block):
                raise WorkError(
                    f"model '{who}' gives {len(values)} rows at layer '{layer}' "
                    f"for {len(block)} samples"
                )
        yield found


def _run(network: Network, block: Block, who: str) -> Layers:
    try:
        with torch.inference_mode():
            features = network.forward(network.prepare(block))
    except WorkError:
        raise
    except Exception as error:  # the network is somebody's code: it can raise anything
        inputs = f"inputs of shape {block.shape}" if isinstance(block, np.ndarray) else "inputs"
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise WorkError(f"model '{who}' fails on {inputs}: {reason}") from None
    return {layer: values.float().cpu().numpy() for layer, values in features.items()}
