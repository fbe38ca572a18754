"""Model sources, a file each, and the expansion of entries into single models.

A model source is a frozen pydantic class registered under its name. ``expand`` turns one entry
of the experiment (with globs and lists) into models; ``identity`` says which bytes decide its
outputs; ``check`` finds while planning what needs no heavy library. Sources that run a network
derive from ``NetworkSource``, those that have features from ``ArraySource``, those that have
outputs from ``PredictionSource``.

A source of your own lives in your package, whose entry point ``mine`` in the group
``td_ray.model_sources`` names its module:

    import torch
    from td_ray.registry import MODEL_SOURCES
    from td_ray.zoo import NetworkSource

    @MODEL_SOURCES.register("mine")
    class Mine(NetworkSource):
        width: int

        def expand(self, folder, data, cache):
            return [self.model_copy(update={"name": self.name or f"mine-{self.width}"})]

        def identity(self, folder, data, layer, digest):
            return [self.width]

        def load(self, folder, data, layers, device):
            from td_ray.zoo.torch_network import TorchNetwork

            torch.manual_seed(self.width)
            prepare = lambda block: torch.tensor(block).float()
            return TorchNetwork(torch.nn.Linear(4, self.width), layers, prepare=prepare,
                                device=device, who=self.name, pooling=self.pooling)

``td_ray.testing.model_sources`` checks that such a source keeps what the others keep.
"""

from td_ray.zoo.representation import Representation, needed_by, resolve_representations
from td_ray.zoo.source import (
    ArraySource,
    FeatureSource,
    ModelSource,
    NetworkSource,
    PredictionSource,
    Storage,
    TorchSource,
)

__all__ = [
    "ArraySource",
    "FeatureSource",
    "ModelSource",
    "NetworkSource",
    "PredictionSource",
    "Representation",
    "Storage",
    "TorchSource",
    "needed_by",
    "resolve_representations",
]
