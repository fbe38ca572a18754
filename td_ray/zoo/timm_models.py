"""timm's models with their pretrained weights, or with weights from a file.

    models:
      - source: timm
        model: [resnet18*, vit_tiny_patch16_224]   # names or globs of timm.list_models
      - source: timm
        model: resnet18.a1_in1k
        weights: mine/resnet18.safetensors

Images are prepared as timm does in evaluation. The layer ``penultimate`` is what goes into the
model's classifier. Pretrained weights lie in ``$TORCH_HOME/hub/checkpoints``, most of them as
``<model>.safetensors``; ``td-ray prefetch`` downloads them there. timm names no commit of them, so
that what is downloaded later may be others: the identity of features covers the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field

from td_ray.errors import InputError, WorkError
from td_ray.files import Digest, one_line, require_file, write_json
from td_ray.needs import NeededFile
from td_ray.registry import MODEL_SOURCES, closest
from td_ray.spec import Words
from td_ray.tasks import DataSet
from td_ray.zoo.libraries import require_library, torch_checkpoints
from td_ray.zoo.patterns import fill
from td_ray.zoo.source import TorchSource

if TYPE_CHECKING:
    from torch import Tensor, nn

    from td_ray.tasks.inputs import Block
    from td_ray.zoo.network import Network

_WHERE = "models, source 'timm'"
_KEPT = (
    *("architecture", "hf_hub_id", "url"),
    *("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std"),
)
"""What decides the weights and how images are prepared."""


@MODEL_SOURCES.register("timm")
class Timm(TorchSource):
    """A model, and where its weights come from.

    Attributes:
        model: names or globs; a name without a tag stands for timm's default weights.
        weights: a file for it; by default the pretrained weights.
        about: what timm says of the model's weights and images; found by ``expand``.
    """

    default_layer: ClassVar[str] = "penultimate"

    model: Annotated[Words, Field(min_length=1)]
    weights: str | None = None
    about: Mapping[str, Any] = Field(default_factory=dict)

    def expand(self, folder: Path, data: Sequence[str], cache: Path) -> list[Self]:
        """One model per name."""
        require_library("timm", "timm")
        catalogue = _catalogue(cache)
        names: list[str] = []
        for pattern in self.model:
            pattern = catalogue["defaults"].get(pattern, pattern)
            matches = [name for name in catalogue["models"] if fnmatchcase(name, pattern)]
            if not matches:
                known = [*catalogue["models"], *catalogue["defaults"]]
                raise InputError(
                    f"{_WHERE}: no pretrained model is called '{pattern}': "
                    f"{closest(pattern, known)}"
                )
            names.extend(name for name in matches if name not in names)
        return [self._one(name, catalogue["models"][name]) for name in names]

    def identity(self, folder: Path, data: str, layer: str, digest: Digest) -> Any:
        """The name, what timm says of it, and the bytes of the weights."""
        weights = digest(self._file(folder))
        return None if weights is None else [self.model[0], self.about, weights]

    def needed(self) -> list[NeededFile]:
        """The file of pretrained weights."""
        if self.weights is not None:
            return []
        hub, address = self.about.get("hf_hub_id"), str(self.about.get("url"))
        name = address.rsplit("/", 1)[-1]
        if hub:
            address = f"https://huggingface.co/{hub}/resolve/main/model.safetensors"
            name = f"{self.model[0]}.safetensors"
        return [NeededFile(f"weights of '{self.name}'", address, torch_checkpoints() / name)]

    def check(self, folder: Path, data: DataSet, tasks: Sequence[str]) -> None:
        """The weights are there, and the data set has inputs."""
        super().check(folder, data, tasks)
        if self.weights is not None:
            require_file(folder / self.weights, "weights")
        for weights in self.needed():
            if not weights.is_there:
                raise InputError(weights.remedy)

    def _file(self, folder: Path) -> Path:
        return folder / self.weights if self.weights is not None else self.needed()[0].path

    def load(self, folder: Path, data: DataSet, layers: Sequence[str], device: str) -> Network:
        """The model, and images prepared as its weights ask for."""
        from timm.data import create_transform, resolve_model_data_config
        from torch import nn

        from td_ray.zoo.images import as_pillow, stack
        from td_ray.zoo.torch_network import TorchNetwork

        who = str(self.name)
        module = self._shapes(folder) if device == "meta" else self._module(folder)
        transform = create_transform(**resolve_model_data_config(module), is_training=False)
        classifier: Any = module.get_classifier()  # type: ignore[operator]

        def prepare(block: Block) -> Tensor:
            return stack([transform(image) for image in as_pillow(block, who)], who)

        return TorchNetwork(
            module,
            layers,
            prepare=prepare,
            device=device,
            who=who,
            pooling=self.pooling,
            precision=self.precision,
            classifier=[classifier] if isinstance(classifier, nn.Module) else list(classifier),
        )

    def _shapes(self, folder: Path) -> nn.Module:
        import timm

        from td_ray.zoo.state_dicts import read_weights
        from td_ray.zoo.torch_network import without_weights

        name, classes = self.model[0], {}
        if self.weights is not None:
            classes = _classes(read_weights(self._file(folder)), name)
        return without_weights(partial(timm.create_model, name, **classes))

    def _module(self, folder: Path) -> nn.Module:
        import timm

        from td_ray.zoo.state_dicts import read_weights, unwrapped

        name, path = self.model[0], self._file(folder)
        weights = read_weights(path)
        try:
            module: nn.Module = timm.create_model(name, **_classes(weights, name))
            module.load_state_dict(unwrapped(weights, module.state_dict()))
        except RuntimeError as error:
            raise WorkError(f"weights {path} do not fit timm's {name}: {one_line(error)}") from None
        return module

    def _one(self, name: str, about: dict[str, Any]) -> Self:
        words = {"model": name, "architecture": about["architecture"]}
        return self.model_copy(
            update={
                "model": (name,),
                "about": about,
                "name": fill(self.name or "{model}", words, _WHERE),
                "metadata": {"architecture": about["architecture"], **self.metadata},
            }
        )


def _classes(weights: dict[str, Tensor], name: str) -> dict[str, int]:
    """The number of classes of a classifier that was trained anew."""
    from timm.models import get_pretrained_cfg

    classifier = get_pretrained_cfg(name).classifier
    weight = weights.get(f"{classifier}.weight")
    return {} if weight is None else {"num_classes": len(weight)}


def _catalogue(cache: Path) -> dict[str, dict[str, Any]]:
    """All pretrained models; kept in the cache, since importing the library takes seconds."""
    path = cache / "timm" / f"models-{version('timm')}.json"
    if not path.is_file():
        import timm
        from timm.models import get_pretrained_cfg

        models, defaults = {}, {}
        for name in timm.list_models(pretrained=True):
            about = get_pretrained_cfg(name).to_dict()
            models[name] = {key: about[key] for key in _KEPT if about.get(key) is not None}
        for name in timm.list_models():
            default = get_pretrained_cfg(name, allow_unregistered=True)
            tagged = f"{name}.{default.tag}" if default is not None and default.tag else name
            if tagged in models:
                defaults[name] = tagged
        write_json(path, {"models": models, "defaults": defaults})
    content: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return content
