"""ONNX graphs, run by onnxruntime.

    models:
      - source: onnx
        path: models/*.onnx
        layers: /encoder/Gelu_output_0   # any node's output; 'output' is the graph's first

By default the layer is ``penultimate``, what goes into the last Gemm or MatMul by weights. An
input of four axes takes images: channels first or last as its shape says, colours in [0, 1], less
``mean``, divided by ``deviation``. Other inputs take the data set's arrays as they are. Weights
may lie beside the graph, in a file called like it with ``.data`` or ``_data`` behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from td_ray.files import Digest
from td_ray.registry import MODEL_SOURCES
from td_ray.zoo.graph_entry import GraphEntry
from td_ray.zoo.libraries import require_library

if TYPE_CHECKING:
    from td_ray.zoo.network import Network


@MODEL_SOURCES.register("onnx")
class OnnxModels(GraphEntry):
    """Files of ONNX graphs."""

    file_kind: ClassVar[str] = "ONNX graph"

    def expand(self, folder: Path, data: Sequence[str], cache: Path) -> list[Self]:
        """One model per file."""
        require_library("onnx", "onnx")
        require_library("onnxruntime", "onnx")
        return super().expand(folder, data, cache)

    def identity(self, folder: Path, data: str, layer: str, digest: Digest) -> Any:
        """The bytes of the graph and of the weights beside it, and how images are prepared."""
        digests = [digest(file) for file in self._files(folder, data)]
        if None in digests:
            return None
        return [digests, *self.image_identity()]

    def network(self) -> type[Network]:
        """See ``GraphEntry``."""
        from td_ray.zoo.onnx_graph import OnnxNetwork

        return OnnxNetwork

    def _files(self, folder: Path, data: str) -> list[Path]:
        path = self.file(folder, data)
        beside = (path.with_name(path.name + end) for end in (".data", "_data"))
        return [path, *(file for file in beside if file.is_file())]
