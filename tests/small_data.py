"""Data sets for tests of model sources, made in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.extraction import extract_features
from td_ray.features import Pass
from td_ray.spec import Resources
from td_ray.tasks import DataSet
from td_ray.tasks.dataset import DataSource, Samples
from td_ray.zoo import ModelSource


class InMemory(DataSource):
    """A source whose inputs are known by their bytes."""

    def read(self, folder: Path, cache: Path) -> Samples:
        raise NotImplementedError

    def inputs_identity(self, folder: Path, digest: Any) -> Any:
        return self.stratify


def dataset(
    ids: Sequence[str],
    inputs: NDArray[Any] | None = None,
    name: str = "d",
    columns: dict[str, Any] | None = None,
    inputs_are: str | None = None,
) -> DataSet:
    """Samples of which the last third is evaluated."""
    arrays = {key: np.asarray(values) for key, values in (columns or {}).items()}
    samples = Samples(np.array(ids), arrays, None if inputs is None else lambda: inputs)
    training = np.arange(len(ids)) < len(ids) * 2 / 3
    source = InMemory(source="memory", name=name, stratify=inputs_are)
    return DataSet(name, samples, training, ~training, None, source)


def extracted(
    model: ModelSource, data: DataSet, folder: Path, *layers: str, batch: int = 4
) -> dict[str, NDArray[np.float32]]:
    """Features at layers, by one pass."""
    wanted = Pass(model, data, dict.fromkeys(layers, ""))
    resources = Resources(batch_size=batch, device="cpu")
    blocks = list(extract_features(wanted, layers, 0, folder, resources))
    assert all(block[x].dtype == np.float32 for block in blocks for x in layers)
    return {x: np.concatenate([block[x] for block in blocks]) for x in layers}
