"""Programs that ``torch.export.save`` has written.

    models:
      - source: exported
        path: models/*.pt2
        layers: linear_3      # any node of the graph; 'output' is the first that it returns

By default the layer is ``penultimate``, what goes into the last linear layer. Inputs are those
of ``td_ray.zoo.graph_entry``. A program that was exported for a fixed number of samples runs in
pieces of that number.

Files are read as data: only torch's own operators run, and nothing is unpickled. A program keeps
the mode in which it was exported, so call ``model.eval()`` before: dropout and batch
normalization in training mode are refused. It runs on the device of the experiment, whichever it
was exported on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from td_ray.files import Digest
from td_ray.registry import MODEL_SOURCES
from td_ray.zoo.graph_entry import GraphEntry

if TYPE_CHECKING:
    from td_ray.zoo.network import Network


@MODEL_SOURCES.register("exported")
class ExportedPrograms(GraphEntry):
    """Files of programs."""

    file_kind: ClassVar[str] = "exported program"

    def identity(self, folder: Path, data: str, layer: str, digest: Digest) -> Any:
        """The bytes of the program, and how images are prepared."""
        program = digest(self.file(folder, data))
        return None if program is None else [program, *self.image_identity()]

    def network(self) -> type[Network]:
        """See ``GraphEntry``."""
        from td_ray.zoo.exported_graph import ExportedNetwork

        return ExportedNetwork
