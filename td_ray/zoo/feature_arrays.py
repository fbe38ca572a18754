"""Features that someone has computed already: npy, npz, safetensors or Parquet, one row a sample.

    models:
      - source: features
        path: features/{architecture}-{seed}.npz   # arrays 'features' and 'id'

With several data sets, ``{data}`` in the path stands for the data set's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import WorkError
from td_ray.files import Digest, require_file
from td_ray.registry import MODEL_SOURCES
from td_ray.tasks import DataSet
from td_ray.tasks.table import ROW_ORDER
from td_ray.zoo import arrays
from td_ray.zoo.file_entry import FileEntry, named
from td_ray.zoo.source import ArraySource

ROWS_PER_BLOCK = 8192


@MODEL_SOURCES.register("features")
class FeatureArrays(FileEntry, ArraySource):
    """A file of features.

    Attributes:
        ids: a file of sample ids, or ``row-order``; by default ids are inside the file.
        key: the array's name inside npz, safetensors and Parquet files.
    """

    ids: str | None = None
    key: str = "features"

    def identity(self, folder: Path, data: str, layer: str, digest: Digest) -> Any:
        """The bytes of the file (and of the ids)."""
        beside = self.ids is not None and self.ids != ROW_ORDER
        ids = digest(folder / named(str(self.ids), data)) if beside else self.ids
        array = digest(self.file(folder, data))
        return None if array is None or (beside and ids is None) else [array, ids, self.key]

    def has_samples(self, folder: Path, data: DataSet) -> NDArray[np.bool_]:
        """Those whose ids come with the file."""
        return arrays.holds(self.file(folder, data.name), self._ids(data), folder, data.ids)

    def check(self, folder: Path, data: DataSet, tasks: Sequence[str]) -> None:
        """The file is there and its ids are the data set's."""
        path = require_file(self.file(folder, data.name), "features")
        self._order(path, folder, data)

    def width(self, folder: Path, data: str, layer: str) -> int | None:
        """As the file's header says; none but Parquet files leave it open."""
        shape = arrays.shape_of(self.file(folder, data), self.key)
        return shape[1] if len(shape) == 2 else None

    def read(self, folder: Path, data: DataSet, layer: str) -> Iterator[NDArray[np.float32]]:
        """Yield the rows in the order of the data set."""
        path = self.file(folder, data.name)
        order = self._order(path, folder, data)
        features = arrays.read_array(path, self.key)
        if features.ndim != 2 or not features.shape[1] or features.dtype.kind not in "fiu":
            raise WorkError(
                f"{path}: features are a table of numbers (samples, width), "
                f"not {features.dtype} of shape {features.shape}"
            )
        for start in range(0, len(order), ROWS_PER_BLOCK):
            block = features[order[start : start + ROWS_PER_BLOCK]]
            with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused
                yield block.astype(np.float32)

    def _order(self, path: Path, folder: Path, data: DataSet) -> NDArray[np.intp]:
        others = data.left_out is not None
        ids = self._ids(data)
        return arrays.row_order(path, ids, folder, data.ids, data.name, self.key, others)

    def _ids(self, data: DataSet) -> str | None:
        return None if self.ids is None else named(self.ids, data.name)
