"""scikit-learn's bundled data sets: digits, wine, iris, breast_cancer, diabetes.

data:
- {name: digits, source: sklearn, dataset: digits, stratify: label}
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from td_ray.files import Digest, atomic
from td_ray.registry import DATA_SOURCES
from td_ray.tasks.dataset import DataSource, Samples


@DATA_SOURCES.register("sklearn")
class ScikitLearn(DataSource):
    """A data set that comes with scikit-learn.

    Its column is ``label`` (``target`` for diabetes, a number). Sample ids are row numbers.
    Inputs are float32: images (n, 8, 8) in [0, 1] for digits, the raw columns for the others.
    """

    dataset: Literal["digits", "wine", "iris", "breast_cancer", "diabetes"]

    def read(self, folder: Path, cache: Path) -> Samples:
        """Read labels; see ``DataSource``."""
        target = _arrays(self.dataset, cache)["target"]
        column = "target" if self.dataset == "diabetes" else "label"
        return Samples(
            ids=np.arange(len(target)).astype(str),
            columns={column: target},
            inputs=partial(_inputs, self.dataset, cache),
        )

    def inputs_identity(self, folder: Path, digest: Digest) -> Any:
        """The name and scikit-learn's version: the arrays are part of the library."""
        return [self.dataset, version("scikit-learn")]


def _inputs(name: str, cache: Path) -> NDArray[Any]:
    return _arrays(name, cache)["inputs"]


def _arrays(name: str, cache: Path) -> dict[str, NDArray[Any]]:
    """Load a data set; kept as one npz in the cache, since importing the library takes 2 s."""
    path = cache / "sklearn" / f"{name}-{version('scikit-learn')}.npz"
    # not there yet, or damaged
    with suppress(OSError, ValueError, BadZipFile), np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    inputs = bunch.images / 16.0 if name == "digits" else bunch.data
    found = {"inputs": inputs.astype(np.float32), "target": bunch.target}
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **found)
    return found
