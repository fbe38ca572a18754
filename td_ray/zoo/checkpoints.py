"""Checkpoints of one architecture: a factory builds the module, each file fills its weights.

    models:
      - source: checkpoints
        path: zoo/{strategy}-{pretraining_seed}.safetensors
        factory: my_networks:build          # a module beside the experiment, or installed
        arguments: {width: 64}

The factory is called with ``arguments`` and returns a ``torch.nn.Module``; see
``td_ray.zoo.factories`` for what its module may import. It is the only code that an experiment
names; weights are read as data (safetensors, or ``torch.load`` with ``weights_only=True``),
never as code. They are a state dict, or lie in a checkpoint under ``state_dict``,
``model_state_dict`` or ``model``; the prefixes of DataParallel and torch.compile are dropped.

Inputs become a float tensor, unless the module has a method ``prepare(block)``. It takes inputs
of some samples, as an array or as a list (images of different sizes, texts), and returns what
``forward`` takes: a tensor, or a dict of tensors that ``forward`` takes by name. It runs on the
CPU, and threads may call it at the same time:

    class Encoder(nn.Module):
        def prepare(self, block):
            return torch.stack([resize(torch.from_numpy(image)) for image in block])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import JsonValue, field_validator

from td_ray.errors import WorkError
from td_ray.files import Digest, fingerprint, one_line, require_file
from td_ray.registry import MODEL_SOURCES
from td_ray.tasks import DataSet
from td_ray.zoo.factories import find_factory
from td_ray.zoo.file_entry import FileEntry
from td_ray.zoo.source import TorchSource
from td_ray.zoo.state_dicts import below, read_weights, unwrapped

if TYPE_CHECKING:
    from torch import Tensor, nn

    from td_ray.tasks.inputs import Block
    from td_ray.zoo.network import Network


@MODEL_SOURCES.register("checkpoints")
class Checkpoints(FileEntry, TorchSource):
    """A factory and its checkpoint files.

    Attributes:
        factory: ``package.module:function``.
        arguments: keyword arguments of the factory: texts, numbers, lists and mappings.
        prefix: takes the weights whose keys start so, without it, such as ``encoder.``.
    """

    default_layer: ClassVar[str] = "penultimate"
    one_file_per_data_set: ClassVar[bool] = False

    factory: str
    arguments: Mapping[str, JsonValue] = {}
    prefix: str = ""

    @field_validator("arguments")
    @classmethod
    def _have_an_identity(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        fingerprint(dict(value))  # refuses nan and infinity
        return value

    def identity(self, folder: Path, data: str, layer: str, digest: Digest) -> Any:
        """The bytes of the checkpoint, the factory's code, and its arguments."""
        weights = digest(self.file(folder, data))
        if weights is None:
            return None
        factory = find_factory(self.factory, folder)
        prefix = [self.prefix] if self.prefix else []
        return [weights, factory.text, factory.code_identity(), dict(self.arguments), *prefix]

    def architecture(self) -> Any:
        """The factory and its arguments."""
        return [self.factory, dict(self.arguments)]

    def check(self, folder: Path, data: DataSet, tasks: Sequence[str]) -> None:
        """The checkpoint and the factory are there, and the data set has inputs."""
        super().check(folder, data, tasks)
        require_file(self.file(folder, data.name), "checkpoint")
        find_factory(self.factory, folder).check()

    def load(self, folder: Path, data: DataSet, layers: Sequence[str], device: str) -> Network:
        """The module with the weights of the file."""
        from td_ray.zoo.torch_network import TorchNetwork

        module = self._module(folder, data)
        return TorchNetwork(
            deepcopy(module) if device == "meta" else module,  # to prepare may need numbers
            layers,
            prepare=getattr(module, "prepare", _as_float),
            device=device,
            who=str(self.name),
            pooling=self.pooling,
            precision=self.precision,
        )

    def _module(self, folder: Path, data: DataSet) -> nn.Module:
        module = find_factory(self.factory, folder).build(self.arguments, folder)
        path = self.file(folder, data.name)
        weights = read_weights(path)
        if self.prefix:
            weights = below(weights, self.prefix, path)
        try:
            module.load_state_dict(unwrapped(weights, module.state_dict()))
        except Exception as error:  # modules may load their state as they like
            raise WorkError(
                f"checkpoint {path} does not fit its factory '{self.factory}': {one_line(error)}"
            ) from None
        return module


def _as_float(block: Block) -> Tensor:
    import torch

    return torch.from_numpy(np.array(block)).float()
