"""The features of one representation as heads take them: rows of a split, scaled, on a device."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from td_ray.errors import WorkError
from td_ray.heads import ScaledRows, Scaling, fit_scaling
from td_ray.memory import default_memory
from td_ray.plan import HeadUnit
from td_ray.spec import Experiment
from td_ray.tasks import DataSet
from td_ray.work.extracting import OpenFeatures
from td_ray.zoo.devices import find_device


class ScaledFeatures:
    """The features of one representation, scaled once per (data set, scaling).

    Scaled training features are kept in memory where they take at most half of what a trial may;
    larger ones are read from the map again and again. Evaluation features always are.
    """

    def __init__(self, open_features: OpenFeatures, experiment: Experiment) -> None:
        self._open = open_features
        self._device = torch.device(find_device(experiment.resources.device))
        self._memory = experiment.resources.memory or default_memory()
        self._raw: dict[str, Tensor] = {}
        self._failed: dict[str, WorkError] = {}
        self._scalings: dict[tuple[str, str], Scaling] = {}
        self._training: dict[tuple[str, str], Tensor] = {}

    def load(self, unit: HeadUnit) -> None:
        """Open all features that a unit needs.

        Raises:
            WorkError: extraction failed.
        """
        data = {unit.task.spec.data: unit.task.data, **unit.task.evaluation}
        for name, dataset in data.items():
            self.raw(str(unit.features[name]), dataset)

    def raw(self, key: str, data: DataSet) -> Tensor:
        """(n, d) of a data set as they were extracted, on the CPU.

        Raises:
            WorkError: extraction failed.
        """
        if key in self._failed:  # the next unit of the block would meet the same
            raise self._failed[key]
        if key not in self._raw:
            try:
                self._raw[key] = torch.from_numpy(self._open(key, data))
            except WorkError as error:
                self._failed[key] = error
                raise
        return self._raw[key]

    def width(self, unit: HeadUnit) -> int:
        """The width of the features, before scaling."""
        return self._raw[str(unit.features[unit.task.spec.data])].shape[1]

    def training(self, unit: HeadUnit) -> ScaledRows | Tensor:
        """(n_train, d) of the task, scaled by the statistics of the data set's training split."""
        whole, task = self._whole_training(unit), unit.task
        if task.n_train == len(whole):
            return whole
        if isinstance(whole, Tensor):
            return whole[torch.from_numpy(task.training[task.data.training]).to(whole.device)]
        key = str(unit.features[task.spec.data])
        return self._rows(key, task.training, self._scalings[key, unit.head.scaling])

    def _whole_training(self, unit: HeadUnit) -> ScaledRows | Tensor:
        """(rows of the data set's training split, d)."""
        key, kind = str(unit.features[unit.task.spec.data]), unit.head.scaling
        if (key, kind) in self._training:
            return self._training[key, kind]
        if (key, kind) not in self._scalings:
            unscaled = self._rows(key, unit.task.data.training, None)
            self._scalings[key, kind] = fit_scaling(unscaled, kind)
        rows = self._rows(key, unit.task.data.training, self._scalings[key, kind])
        size, most = math.prod(rows.shape) * rows.dtype.itemsize, self._memory // 2
        if size > most:
            return rows
        if self._held() + size > most:
            self._training.clear()
        self._training[key, kind] = rows.materialise()
        return self._training[key, kind]

    def evaluation(self, unit: HeadUnit, data: str) -> ScaledRows:
        """(n_evaluation, d) of a data set, scaled as the training split was."""
        scaling = self._scalings[str(unit.features[unit.task.spec.data]), unit.head.scaling]
        rows = unit.task.evaluation_rows(data)
        return self._rows(str(unit.features[data]), rows, scaling)

    def memory_left(self) -> int:
        """Bytes that a trial may take beyond the scaled features that are kept."""
        return self._memory - self._held()

    def _held(self) -> int:
        return sum(each.nbytes for each in self._training.values())

    def _rows(self, key: str, rows: NDArray[np.bool_], scaling: Scaling | None) -> ScaledRows:
        return ScaledRows(self._raw[key], torch.from_numpy(rows), scaling, self._device)
