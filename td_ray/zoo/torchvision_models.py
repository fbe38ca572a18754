"""torchvision's classification models with the weights that torchvision names.

    models:
      - source: torchvision
        builder: [resnet*, mobilenet_v2]     # names or globs of torchvision.models.list_models
        weights: DEFAULT                     # a name of the builder's weights enum, or a list

Weights lie where torchvision looks for them, in ``$TORCH_HOME/hub/checkpoints``, and
``td-ray prefetch`` downloads them. The file's name ends in the first digits of its SHA-256, which
is checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self
from warnings import catch_warnings, simplefilter

from pydantic import Field

from td_ray.errors import InputError, WorkError
from td_ray.files import Digest, write_json
from td_ray.needs import NeededFile
from td_ray.registry import MODEL_SOURCES, closest
from td_ray.spec import Words
from td_ray.tasks import DataSet
from td_ray.zoo.images import prepare_images
from td_ray.zoo.libraries import torch_checkpoints
from td_ray.zoo.patterns import fill
from td_ray.zoo.source import TorchSource

if TYPE_CHECKING:
    from torch import Tensor, nn

    from td_ray.tasks.inputs import Block
    from td_ray.zoo.network import Network

Catalogue = dict[str, dict[str, str]]
"""Builder -> name of weights -> address of the file."""


@MODEL_SOURCES.register("torchvision")
class Torchvision(TorchSource):
    """A builder and its weights.

    Attributes:
        builder: names or globs.
        weights: names of the builder's weights enum; ``DEFAULT`` is its newest.
        address: where the weights come from; found by ``expand``.
    """

    default_layer: ClassVar[str] = "penultimate"

    builder: Annotated[Words, Field(min_length=1)]
    weights: Annotated[Words, Field(min_length=1)] = ("DEFAULT",)
    address: str = ""

    def expand(self, folder: Path, data: Sequence[str], cache: Path) -> list[Self]:
        """One model per (builder, weights)."""
        catalogue = _catalogue(cache)
        models = []
        for builder in self._builders(catalogue):
            for weights in self.weights:
                models.append(self._one(builder, weights, catalogue[builder]))
        return models

    def identity(self, folder: Path, data: str, layer: str, digest: Digest) -> Any:
        """The builder, its weights, and their address, which ends in digits of a SHA-256."""
        return [self.builder[0], self.weights[0], self.address]

    def load(self, folder: Path, data: DataSet, layers: Sequence[str], device: str) -> Network:
        """The model, and images prepared as its weights ask for."""
        from torchvision.models import get_model_weights

        from td_ray.zoo.torch_network import TorchNetwork, without_weights

        transform = get_model_weights(self.builder[0])[self.weights[0]].transforms()
        who = str(self.name)

        def prepare(block: Block) -> Tensor:
            return prepare_images(block, transform, who)

        return TorchNetwork(
            without_weights(self._build) if device == "meta" else self._load(),
            layers,
            prepare=prepare,
            device=device,
            who=who,
            pooling=self.pooling,
            precision=self.precision,
        )

    def _builders(self, catalogue: Catalogue) -> list[str]:
        found: list[str] = []
        for pattern in self.builder:
            matches = [name for name in catalogue if fnmatchcase(name, pattern)]
            if not matches:
                raise InputError(
                    f"models, source 'torchvision': no builder is called '{pattern}': "
                    f"{closest(pattern, catalogue)}"
                )
            found.extend(name for name in matches if name not in found)
        return found

    def _one(self, builder: str, weights: str, known: dict[str, str]) -> Self:
        if weights not in known:
            raise InputError(
                f"models, source 'torchvision': '{builder}' has no weights '{weights}': "
                f"{closest(weights, known)}"
            )
        address, chosen = known[weights], weights
        if weights == "DEFAULT":  # another name of one of the others
            others = (name for name in known if name != "DEFAULT" and known[name] == address)
            chosen = next(others)
        words = {"builder": builder, "weights": chosen}
        where = "models, source 'torchvision'"
        name = fill(self.name or "{builder}-{weights}", words, where)
        return self.model_copy(
            update={
                "builder": (builder,),
                "weights": (chosen,),
                "address": address,
                "name": name,
                "metadata": {"architecture": builder, "weights": chosen, **self.metadata},
            }
        )

    def needed(self) -> list[NeededFile]:
        """The file of the weights; its name is ``name-0123abcd.pth``, by its SHA-256."""
        path = torch_checkpoints() / self.address.rsplit("/", 1)[-1]
        digits = path.stem.rsplit("-", 1)[-1]
        return [NeededFile(f"weights of '{self.name}'", self.address, path, digits)]

    def check(self, folder: Path, data: DataSet, tasks: Sequence[str]) -> None:
        """The weights are there, and the data set has inputs."""
        super().check(folder, data, tasks)
        for weights in self.needed():
            if not weights.is_there:
                raise InputError(weights.remedy)

    def _load(self) -> nn.Module:
        from torchvision.models import get_model

        for weights in self.needed():
            damage = weights.damage() if weights.is_there else weights.remedy
            if damage:
                raise WorkError(damage)
        module: nn.Module = get_model(self.builder[0], weights=self.weights[0])
        return module

    def _build(self) -> nn.Module:
        from torchvision.models import get_model, get_model_weights

        name = self.builder[0]
        sizes = get_model_weights(name)[self.weights[0]].meta.get("min_size", ())
        options = {"image_size": sizes[0]} if name.startswith("vit_") and sizes else {}
        with catch_warnings():  # of two builders, that to draw their weights takes long
            simplefilter("ignore", FutureWarning)
            module: nn.Module = get_model(name, weights=None, **options)
        return module


def _catalogue(cache: Path) -> Catalogue:
    """All classification models; kept in the cache, since importing the library takes seconds."""
    path = cache / "torchvision" / f"models-{version('torchvision')}.json"
    if not path.is_file():
        from torchvision import models

        catalogue: Catalogue = {}
        for name in models.list_models(module=models):
            enum = models.get_model_weights(name)
            catalogue[name] = {weights: enum[weights].url for weights in enum.__members__}
        write_json(path, catalogue)
    content: Catalogue = json.loads(path.read_text())
    return content
