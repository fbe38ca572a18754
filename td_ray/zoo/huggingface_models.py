"""Models of the Hugging Face hub, or folders that ``save_pretrained`` has written.

    models:
      - source: huggingface
        model: sentence-transformers/all-MiniLM-L6-v2
        revision: 1110a243fdf4706b3f48f1d95db1a4f5529b4d41
        pooling: mean                    # with the attention mask
      - source: huggingface
        model: [./mine/step-1000, ./mine/step-2000]

Texts go through the model's tokenizer, images through its image processor. The layer ``output``
is the last hidden state; any submodule may be named. A run downloads nothing: ``td-ray prefetch``
puts what transformers reads of a repository into the hub's cache before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field

from td_ray.errors import InputError, WorkError
from td_ray.files import Digest, one_line, reading
from td_ray.registry import MODEL_SOURCES
from td_ray.spec import Words
from td_ray.tasks import DataSet
from td_ray.zoo.huggingface_files import NeededModel
from td_ray.zoo.libraries import require_library
from td_ray.zoo.patterns import fill
from td_ray.zoo.source import TorchSource

if TYPE_CHECKING:
    from td_ray.zoo.network import Network

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WHERE = "models, source 'huggingface'"


@MODEL_SOURCES.register("huggingface")
class HuggingFace(TorchSource):
    """A repository at a commit, or a folder.

    Attributes:
        model: repositories of the hub, or folders, which start with ``./``, ``../`` or ``/``.
        revision: the full commit of a repository: a branch can move, and features with it.
        max_tokens: where texts are cut; by default where the model's positions end.
        allow_remote_code: lets a model run code that comes with it.
    """

    model: Annotated[Words, Field(min_length=1)]
    revision: str | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    allow_remote_code: bool = False

    def expand(self, folder: Path, data: Sequence[str], cache: Path) -> list[Self]:
        """One model per repository or folder."""
        require_library("transformers", "huggingface")
        return [self._one(model, folder) for model in self.model]

    def identity(self, folder: Path, data: str, layer: str, digest: Digest) -> Any:
        """The bytes of a folder's files, or the repository and its commit."""
        options = [self.max_tokens, self.allow_remote_code]
        place = self._folder(folder)
        if place is None:
            return [self.model[0], self.revision, *options]
        digests = {str(file.relative_to(place)): digest(file) for file in _files(place)}
        return None if None in digests.values() else [digests, *options]

    def needed(self) -> list[NeededModel]:
        """What transformers reads of a repository."""
        if self._folder(Path()) is not None:
            return []
        what, code = f"files of '{self.name}'", self.allow_remote_code
        return [NeededModel(what, self.model[0], str(self.revision), "model", code)]

    def check(self, folder: Path, data: DataSet, tasks: Sequence[str]) -> None:
        """The files of a model are there, and the data set has inputs."""
        super().check(folder, data, tasks)
        for files in self.needed():
            if not files.is_there:
                raise InputError(files.remedy)
        place = self._folder(folder) or self.needed()[0].place
        with reading(place / "config.json", "huggingface model"):
            config = json.loads((place / "config.json").read_text())
        self._refuse_code(config)

    def load(self, folder: Path, data: DataSet, layers: Sequence[str], device: str) -> Network:
        """The model in float32, and its tokenizer or image processor."""
        from td_ray.zoo import huggingface_loading as loading
        from td_ray.zoo.torch_network import TorchNetwork, without_weights

        who, name = str(self.name), str(self._folder(folder) or self.model[0])
        for files in self.needed():
            if not files.is_there:  # on this node
                raise WorkError(files.remedy)
        options = {
            "revision": self.revision,
            "local_files_only": True,
            "trust_remote_code": self.allow_remote_code,
        }
        try:
            self._refuse_code(loading.read_config(name, options))
            module = (
                without_weights(partial(loading.build_model, name, options))
                if device == "meta"
                else loading.read_model(name, options, layers, who)
            )
            is_text = isinstance(data.inputs[0:1][0], str)
            prepare = (
                loading.text_preparation(name, options, module.config, self.max_tokens, who)
                if is_text
                else loading.image_preparation(name, options, who)
            )
        except (OSError, ValueError, ImportError) as error:  # transformers explains at length
            raise WorkError(
                f"model '{who}' cannot be loaded from {name}: {one_line(error, 250)}"
            ) from None
        return TorchNetwork(
            module,
            layers,
            prepare=prepare,
            device=device,
            who=who,
            pooling=self.pooling,
            precision=self.precision,
            unwrap=loading.hidden_state,
        )

    def _one(self, model: str, folder: Path) -> Self:
        one = self.model_copy(update={"model": (model,)})
        place = one._folder(folder)
        if place is not None and not (place / "config.json").is_file():
            raise InputError(f"{_WHERE}: {place} is no folder with a model: it has no config.json")
        if place is None and (self.revision is None or not _COMMIT.fullmatch(self.revision)):
            found = "has no revision" if self.revision is None else f"is at '{self.revision}'"
            raise InputError(
                f"{_WHERE}: '{model}' {found}; a branch can move, and results with it: give "
                "'revision', the 40 digits of a commit, or write ./ before a folder"
            )
        last = (place or Path(model)).name
        words = {"model": last, "revision": (self.revision or "")[:8], "path": model}
        name = fill(self.name or "{model}", words, _WHERE)
        return one.model_copy(
            update={"name": name, "metadata": {"architecture": last, **self.metadata}}
        )

    def _folder(self, folder: Path) -> Path | None:
        model = self.model[0]
        is_local = model.startswith(("./", "../", "/")) or model in (".", "..")
        return folder / model if is_local else None

    def _refuse_code(self, config: Mapping[str, Any]) -> None:
        """Refuse code that comes with a model, unless it is wanted and cannot change.

        Raises:
            InputError: it is not, or it lies in another repository.
        """
        code = config.get("auto_map")
        if not code:
            return
        if not self.allow_remote_code:
            raise InputError(
                f"'{self.model[0]}' comes with code of its own (auto_map in its config.json), "
                "which is not run; if you trust it, say allow_remote_code: true"
            )
        if "--" in json.dumps(code):
            raise InputError(
                f"'{self.model[0]}' runs code from another repository (auto_map in its "
                "config.json), which no commit pins; copy that code into a folder with the model"
            )


def _files(place: Path) -> list[Path]:
    """What may decide a model's outputs: all files but hidden ones and descriptions."""
    found = (file for file in place.rglob("*") if file.is_file() and file.suffix != ".md")
    return sorted(
        file
        for file in found
        if not any(part.startswith((".", "__pycache__")) for part in file.relative_to(place).parts)
    )
