"""What every model source gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from td_ray.files import Digest
from td_ray.needs import Needed
from td_ray.spec import ModelEntry, TaskSpec
from td_ray.tasks import DataSet, Task
from td_ray.zoo.pooling import Pooling

if TYPE_CHECKING:
    from td_ray.zoo.network import Network


Storage = Literal["float32", "float16"]
"""Of features, in the cache."""

Precision = Literal["float32", "bfloat16", "float16"]
"""Of a forward pass."""


class ModelSource(ModelEntry, ABC):
    """Base of all model sources: options as fields. After ``expand``, ``name`` is set."""

    default_layer: ClassVar[str] = "output"

    @abstractmethod
    def expand(self, folder: Path, data: Sequence[str], cache: Path) -> list[Self]:
        """Return one entry per model, each with a name.

        Args:
            folder: where relative paths start.
            data: names of the data sets that tasks use.
            cache: folder for expansions that need a heavy library.

        Raises:
            InputError: nothing matches.
        """

    @abstractmethod
    def identity(self, folder: Path, data: str, layer: str, digest: Digest) -> Any:
        """JSON that changes when the outputs on a data set may; None if not known yet."""

    def needed(self) -> Sequence[Needed]:
        """What an expanded model must find on the machine and can be downloaded."""
        return []

    def takes(self, task: str) -> bool:
        """Whether the model takes part in a task."""
        return not self.tasks or any(fnmatchcase(task, glob) for glob in self.tasks)

    def data_sets(self, task: TaskSpec) -> tuple[str, ...]:
        """Names of the data sets on which a task needs outputs of the model."""
        return tuple(dict.fromkeys((task.data, *task.evaluated_on)))

    def has_samples(self, folder: Path, data: DataSet) -> NDArray[np.bool_]:
        """(n,) bool, the samples of a data set that the model has, or can have, outputs of.

        Raises:
            InputError: a missing file, or one without ids.
        """
        return np.ones(data.n, dtype=np.bool_)

    def check(self, folder: Path, data: DataSet, tasks: Sequence[str]) -> None:
        """Find what can be seen without a heavy library.

        Args:
            folder: where relative paths start.
            data: a data set on which outputs are needed.
            tasks: the tasks that need them.

        Raises:
            InputError: a missing file, other sample ids, a wrong number of rows.
        """


class FeatureSource(ModelSource):
    """A model whose features are computed or read, and get heads.

    Attributes:
        storage: of its features in the cache. ``float16`` takes half the room and keeps three
            digits; features beyond 65,504 do not fit.
    """

    storage: Storage = "float32"


class ArraySource(FeatureSource):
    """A model whose features are there already."""

    @abstractmethod
    def read(self, folder: Path, data: DataSet, layer: str) -> Iterator[NDArray[np.float32]]:
        """Yield features in the row order of ``data``, as blocks (rows, width).

        Raises:
            WorkError: what is there is not features.
        """

    def width(self, folder: Path, data: str, layer: str) -> int | None:
        """The width of the features, if that can be told without reading them.

        Raises:
            InputError: they cannot be read.
        """
        return None


class NetworkSource(FeatureSource):
    """A model that runs on the data set's inputs, on a GPU if one is asked for.

    Attributes:
        pooling: how a layer's positions become one row (see ``td_ray.zoo.pooling``).
    """

    pooling: Pooling = "mean"

    def check(self, folder: Path, data: DataSet, tasks: Sequence[str]) -> None:
        """See ``ModelSource``: a network needs inputs."""
        data.require_inputs()

    def options(self) -> list[str]:
        """What decides features beside the bytes that ``identity`` covers."""
        return [self.pooling]

    def architecture(self) -> Any:
        """JSON that is the same for models whose passes consist of the same; by default none is."""
        return str(self.name)

    @abstractmethod
    def load(self, folder: Path, data: DataSet, layers: Sequence[str], device: str) -> Network:
        """Load the network onto ``cpu`` or ``cuda``, ready to give these layers.

        On ``meta`` it has shapes and no numbers, and a pass tells what one consists of; weights
        are not read if it can be built without them.

        Raises:
            WorkError: it cannot be loaded, or has no such layer; or not onto ``meta``.
        """


class TorchSource(NetworkSource):
    """A torch module, which may run in half precision.

    Attributes:
        precision: of the forward pass. ``bfloat16`` and ``float16`` stand for torch's autocast:
            products in half precision, sums and weights in float32. Faster on most GPUs, and
            features move in their third digit.
    """

    precision: Precision = "float32"

    def options(self) -> list[str]:
        """See ``NetworkSource``."""
        return [*super().options(), self.precision]


class PredictionSource(ModelSource):
    """A model that already has its outputs; it enters at the predictions stage."""

    def data_sets(self, task: TaskSpec) -> tuple[str, ...]:
        """No head is fitted, so the evaluated ones alone."""
        return task.evaluated_on

    @property
    def has_halves(self) -> bool:
        """Whether there are outputs of heads that were fitted on the halves of each seed."""
        return False

    @property
    def has_probabilities(self) -> bool:
        """Whether there are probabilities of the classes, too."""
        return False

    def predicted_probabilities(
        self, folder: Path, task: Task, data: DataSet, seed: int | None, half: str | None
    ) -> NDArray[np.float32]:
        """Return (n_evaluation, C) probabilities that go with ``predictions``.

        Rows sum to one, and the predicted class is a most probable one. Asked for only where
        ``has_probabilities``.

        Raises:
            WorkError: probabilities that do not fit the task or the predictions.
        """
        raise NotImplementedError

    @abstractmethod
    def predictions(
        self, folder: Path, task: Task, data: DataSet, seed: int | None, half: str | None
    ) -> NDArray[Any]:
        """Return (n_evaluation,) label codes or values in the row order of ``data``.

        Args:
            folder: where relative paths start.
            task: that they are for.
            data: whose evaluation split was predicted.
            seed: of the halves; None for the full training split.
            half: ``a`` or ``b``; None for the full training split.

        Raises:
            WorkError: outputs that do not fit the task.
        """
